"""Where lines of events go: a file, or standard output.

Promises: writing never raises, and waits for no reader longer than a moment; what could not be written is counted, by
kind where it is an event, and the first failure is kept for the operator. Findings are lost last: some are kept here
until they can be written. Knows nothing else of what the lines say.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import stat
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from nfmailguard.errors import ConfigError

__all__ = ["KINDS", "FileSink", "Sink", "StandardOutput", "kind_of", "open_sink"]

#: Event types, as in the `event_type` field of a line.
KINDS = ("mailguard", "alert", "smtp", "flow", "stats", "health", "withheld")


class Sink(Protocol):
    """Takes whole lines."""

    @property
    def lost(self) -> int:
        """Number of lines that could not be written."""

    @property
    def lost_by_kind(self) -> Mapping[str, int]:
        """Number of events that could not be written, by kind."""

    @property
    def trouble(self) -> str | None:
        """Why the last lines could not be written; None: they were written."""

    def write(self, lines: list[bytes]) -> None: ...
    def write_block(self, block: bytes | memoryview, lines: int) -> None:
        """Writes a block of ``lines`` lines; the caller may reuse the block's memory when this returns."""

    def reopen(self) -> None: ...
    def close(self) -> None: ...


#: Most bytes written to a pipe at once: when poll says a pipe is writable, it takes as many without blocking (pipe(7):
#: PIPE_BUF).
_AT_ONCE = select.PIPE_BUF
# Seconds to wait for a slow reader; once such a wait was in vain, writes do not wait until the reader reads again.
_PATIENCE = 0.5
_AGAIN = 5.0  # Seconds between two attempts to open a file or pipe that could not be opened.
#: Most bytes of finding, alert and health events kept for another attempt when they could not be written; other events,
#: and those beyond this limit, are lost and only counted.
_MOST_KEPT = 1 << 20
# Quotes in a peer's text are escaped in JSON, so only the gateway's own field matches these bytes.
_KIND = re.compile(rb'"event_type":"(\w+)"')
_KEPT_KINDS = re.compile(rb'^.*"event_type":"(?:mailguard|alert|health)".*\n', re.MULTILINE)


class _Pushed:
    """Writes bytes to a descriptor that may be a pipe, without waiting longer than a moment for a slow reader."""

    def __init__(self, patient: bool) -> None:
        self._patient = patient
        self._stuck = False
        #: True if the last line was written only in part: the next write begins with a line feed.
        self.torn = False

    def push(self, fd: int, block: bytes | memoryview) -> tuple[int, OSError | None]:
        """How many bytes of the lines were written, and the error if not all."""
        before = 1 if self.torn and not _is_empty(fd) else 0
        octets = memoryview(b"\n" + bytes(block) if before else block)
        deadline = time.monotonic() + (0.0 if self._stuck else _PATIENCE)
        failure: OSError | None = None
        taken = 0
        try:
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
            waiting = select.poll()
            waiting.register(fd, select.POLLOUT)
            while taken < len(octets):
                left = None if self._patient else 1000 * max(0.0, deadline - time.monotonic())
                if not regular and not waiting.poll(left):
                    raise BlockingIOError(errno.EAGAIN, "nobody reads it")
                taken += os.write(fd, octets[taken : len(octets) if regular else taken + _AT_ONCE])
        except OSError as error:
            failure = error
        self._stuck = isinstance(failure, BlockingIOError)
        if taken:
            self.torn = octets[taken - 1] != ord("\n")
        return max(0, taken - before), failure


class _Lines:
    """Lines are written, kept for the next attempt, or lost and counted."""

    def __init__(self) -> None:
        self.lost = 0
        self.lost_by_kind: Counter[str] = Counter()
        self.trouble: str | None = None
        self._kept: deque[bytes] = deque()
        self._kept_octets = 0

    def write(self, lines: list[bytes]) -> None:
        """Writes whole lines, each with its line end."""
        self.write_block(b"".join(lines), len(lines))

    def write_block(self, block: bytes | memoryview, lines: int) -> None:
        """Writes a block of ``lines`` lines."""
        if self._kept:
            lines += len(self._kept)
            block = b"".join((*self._kept, block))
            self._kept.clear()
            self._kept_octets = 0
        taken, why = self._take(block)
        if taken == len(block):
            self.trouble = None
            return
        octets = bytes(block)
        # A line that was written only in part counts as lost as a whole.
        rest = octets[octets.rfind(b"\n", 0, taken) + 1 :]
        self._keep(rest)
        for kind in KINDS:
            self.lost_by_kind[kind] += rest.count(b'"event_type":"%s"' % kind.encode())
        self.lost += min(lines, rest.count(b"\n")) - len(self._kept)
        self.lost_by_kind.subtract(map(kind_of, self._kept))
        self._failed(why)

    def _take(self, block: bytes | memoryview) -> tuple[int, str]:
        """How many bytes were written, and why not all."""
        raise NotImplementedError

    def _failed(self, why: str) -> None:
        """Called when not all bytes were written."""
        raise NotImplementedError

    def _keep(self, lines: bytes) -> None:
        for found in _KEPT_KINDS.finditer(lines):
            line = found[0]
            if self._kept_octets + len(line) > _MOST_KEPT:
                return
            self._kept.append(line)
            self._kept_octets += len(line)

    def give_up(self) -> None:
        """Counts as lost what was kept for another attempt, as there will be none."""
        self.lost += len(self._kept)
        self.lost_by_kind.update(map(kind_of, self._kept))
        self._kept.clear()
        self._kept_octets = 0


def kind_of(line: bytes) -> str:
    """The type of an event; "" if the line is no event."""
    found = _KIND.search(line)
    return found[1].decode() if found else ""


def _is_empty(fd: int) -> bool:
    """Whether a file is empty, for instance after logrotate's copytruncate; then an incomplete line is gone too."""
    with suppress(OSError):
        found = os.fstat(fd)
        return stat.S_ISREG(found.st_mode) and found.st_size == 0
    return False


def _is_torn(path: Path) -> bool:
    """Whether a file's last line has no line end, as after a full disk or a crash."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            return os.pread(fd, 1, max(0, os.fstat(fd).st_size - 1)) not in (b"", b"\n")
        finally:
            os.close(fd)
    return False


class StandardOutput(_Lines):
    """Writes lines to standard output; a reader that has gone away is no error."""

    def __init__(self, patient: bool = False) -> None:
        super().__init__()
        self._pushed = _Pushed(patient)

    def _take(self, block: bytes | memoryview) -> tuple[int, str]:
        try:
            sys.stdout.flush()
            descriptor = self._descriptor()
            if descriptor < 0:
                sys.stdout.buffer.write(block)
                return len(block), ""
            taken, error = self._pushed.push(descriptor, block)
            return taken, str(error and error.strerror)
        except (OSError, ValueError) as error:
            return 0, str(error)

    def _failed(self, why: str) -> None:
        self.trouble = f"standard output: {why}; events are lost"

    @staticmethod
    def _descriptor() -> int:
        """The file descriptor of standard output; -1: it has none."""
        try:
            return sys.stdout.fileno()
        except io.UnsupportedOperation:
            return -1

    def reopen(self) -> None:
        """Does nothing: standard output cannot be reopened."""

    def close(self) -> None:
        """Leaves standard output open, and counts what was kept as lost."""
        self.give_up()


class FileSink(_Lines):
    """Appends lines to a file, in whole batches. ConfigError when it cannot be opened.

    A pipe that nobody reads is tried again; a file that was removed is created anew. One that was moved away is
    followed after a few seconds, in which a log rotation may send SIGHUP.
    """

    def __init__(self, path: Path, patient: bool = False) -> None:
        super().__init__()
        self.path = path
        self._patient = patient
        #: One-line description of the first failure; None: none yet.
        self.failure: str | None = None
        self._look = 0.0
        # Time since when the path names another file, or none; None: it names the open file.
        self._moved: float | None = None
        self._fd, self._pushed = self._opened()

    def _opened(self) -> tuple[int, _Pushed]:
        fd, pushed = self._open(), _Pushed(self._patient)
        pushed.torn = fd >= 0 and stat.S_ISREG(os.fstat(fd).st_mode) and _is_torn(self.path)
        return fd, pushed

    def _open(self) -> int:
        """The opened file; -1: a pipe without a reader."""
        try:
            # Mode 0640: events tell who writes to whom, so not everybody may read them. O_NONBLOCK: opening the file
            # must never wait.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            return os.open(self.path, flags | (0 if self._patient else os.O_NONBLOCK), 0o640)
        except OSError as error:
            if error.errno == errno.ENXIO and self.path.is_fifo():
                return -1
            raise ConfigError(f"log.eve: {self.path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"log.eve: {error}") from error  # ValueError: the path contains a NUL character.

    def _take(self, block: bytes | memoryview) -> tuple[int, str]:
        self._follow(time.monotonic())
        taken, failure = (0, None) if self._gone() else self._pushed.push(self._fd, block)
        return taken, (failure.strerror or str(failure)) if failure else "it is gone, or nobody reads it"

    def _failed(self, why: str) -> None:
        self.failure = self.failure or f"log.eve: {self.path}: {why}"
        self.trouble = f"{self.path}: {why}; events are lost"

    def _follow(self, now: float) -> None:
        if self._gone():
            if now >= self._look:
                self._look = now + _AGAIN
                self.reopen()
        elif self._is_ours():
            self._moved = None
        else:
            self._moved = now if self._moved is None else self._moved
            if now - self._moved >= _AGAIN:
                self._moved = None
                self.reopen()

    def _is_ours(self) -> bool:
        """Whether the path still names the file that is open."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except OSError:
            return False

    def _gone(self) -> bool:
        return self._fd < 0 or not os.fstat(self._fd).st_nlink

    def reopen(self) -> None:
        """Opens the file anew after a log rotation has moved it; the old file is kept if that fails."""
        try:
            fresh, pushed = self._opened()
        except ConfigError as error:
            self.failure = self.failure or str(error)
            return
        self._close()
        self._fd, self._pushed = fresh, pushed

    def close(self) -> None:
        """Closes the file. May be called repeatedly."""
        self.give_up()
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_sink(target: str, *, patient: bool = False) -> Sink:
    """Opens a target: ``-`` is standard output, anything else a file. ConfigError when it cannot be opened.

    ``patient``: wait for a slow reader instead of losing lines, where nothing else has to wait with it.
    """
    return StandardOutput(patient) if target == "-" else FileSink(Path(target), patient)
