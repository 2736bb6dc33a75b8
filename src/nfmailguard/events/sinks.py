"""Where lines of events go: a file, or standard output.

Promises: writing never raises, and waits for no reader longer than a moment; what could not
be written is counted, and the first failure is kept for the operator. Knows nothing of what the lines say.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from nfmailguard.errors import ConfigError

__all__ = ["FileSink", "Sink", "StandardOutput", "open_sink"]


class Sink(Protocol):
    """Takes whole lines."""

    @property
    def lost(self) -> int:
        """Lines that could not be written."""

    @property
    def trouble(self) -> str | None:
        """Why the last lines were not taken, or None."""

    def write(self, lines: list[bytes]) -> None: ...
    def reopen(self) -> None: ...
    def close(self) -> None: ...


#: Octets that a pipe takes at once when it says that it takes any (pipe(7): PIPE_BUF).
_AT_ONCE = select.PIPE_BUF
_PATIENCE = 0.5  # seconds a reader may let us wait, until it has let us wait in vain
_AGAIN = 5.0  # seconds between two tries to open what could not be opened


class _Pushed:
    """Octets into a descriptor that may be a pipe: what it does not take at once, or soon, is not waited for."""

    def __init__(self, patient: bool) -> None:
        self._patient = patient
        self._stuck = False
        #: Whether the last line went only in part: the next begins on a line of its own.
        self.torn = False

    def push(self, fd: int, lines: list[bytes]) -> tuple[int, OSError | None]:
        """How many of the lines were lost, and why."""
        began_torn = self.torn and not _is_empty(fd)
        octets = memoryview((b"\n" if began_torn else b"") + b"".join(lines))
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
        return bytes(octets[taken:]).count(b"\n") - (began_torn and not taken), failure


def _is_empty(fd: int) -> bool:
    """Of a file that was cut to nothing (logrotate's copytruncate) also the torn line has gone."""
    with suppress(OSError):
        found = os.fstat(fd)
        return stat.S_ISREG(found.st_mode) and found.st_size == 0
    return False


def _is_torn(path: Path) -> bool:
    """Whether a file's last line has no end, as a full disk or a crash leaves it."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            return os.pread(fd, 1, max(0, os.fstat(fd).st_size - 1)) not in (b"", b"\n")
        finally:
            os.close(fd)
    return False


class StandardOutput:
    """Lines to standard output; a reader that has gone away is no error."""

    def __init__(self, patient: bool = False) -> None:
        self.lost = 0
        self.trouble: str | None = None
        self._pushed = _Pushed(patient)

    def write(self, lines: list[bytes]) -> None:
        lost, failure = 0, ""
        try:
            sys.stdout.flush()
            descriptor = self._descriptor()
            if descriptor < 0:
                sys.stdout.buffer.write(b"".join(lines))
            else:
                lost, error = self._pushed.push(descriptor, lines)
                failure = str(error and error.strerror)
        except (OSError, ValueError) as error:
            lost, failure = len(lines), str(error)
        self.lost += lost
        self.trouble = f"standard output: {failure}; events are lost" if lost else None

    @staticmethod
    def _descriptor() -> int:
        """-1: it has none."""
        try:
            return sys.stdout.fileno()
        except io.UnsupportedOperation:
            return -1

    def reopen(self) -> None:
        """Nothing to reopen."""

    def close(self) -> None:
        """Not ours to close."""


class FileSink:
    """Lines appended to a file, whole batches at once. ConfigError when it cannot be opened.

    A pipe that nobody reads is tried again; a file that somebody removed is made anew. One that was moved away is
    followed after a few seconds, in which a rotation may send its SIGHUP.
    """

    def __init__(self, path: Path, patient: bool = False) -> None:
        self.path = path
        self._patient = patient
        self.lost = 0
        #: What went wrong first, in a line, or None.
        self.failure: str | None = None
        self.trouble: str | None = None
        self._look = 0.0
        self._moved: float | None = None  # since when another file, or none, has our name
        self._fd, self._pushed = self._opened()

    def _opened(self) -> tuple[int, _Pushed]:
        fd, pushed = self._open(), _Pushed(self._patient)
        pushed.torn = fd >= 0 and stat.S_ISREG(os.fstat(fd).st_mode) and _is_torn(self.path)
        return fd, pushed

    def _open(self) -> int:
        """-1: a pipe without a reader."""
        try:
            # Events tell who writes to whom: not for everybody to read. Nothing of a file is worth waiting for.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            return os.open(self.path, flags | (0 if self._patient else os.O_NONBLOCK), 0o640)
        except OSError as error:
            if error.errno == errno.ENXIO and self.path.is_fifo():
                return -1
            raise ConfigError(f"log.eve: {self.path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"log.eve: {error}") from error  # a NUL in the path

    def write(self, lines: list[bytes]) -> None:
        self._follow(time.monotonic())
        lost, failure = (len(lines), None) if self._gone() else self._pushed.push(self._fd, lines)
        self.lost += lost
        self.trouble = None
        if lost:
            why = failure.strerror if failure else "it is gone, or nobody reads it"
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
        """Whether the name is still that of the file we write."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except OSError:
            return False

    def _gone(self) -> bool:
        return self._fd < 0 or not os.fstat(self._fd).st_nlink

    def reopen(self) -> None:
        """After the file has been moved away by a log rotation; the old one goes on when that fails."""
        try:
            fresh, pushed = self._opened()
        except ConfigError as error:
            self.failure = self.failure or str(error)
            return
        self.close()
        self._fd, self._pushed = fresh, pushed

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_sink(target: str, *, patient: bool = False) -> Sink:
    """``-`` is standard output, anything else a file. ConfigError when it cannot be opened.

    ``patient``: where nothing else waits, a slow reader loses nothing.
    """
    return StandardOutput(patient) if target == "-" else FileSink(Path(target), patient)
