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
from pathlib import Path
from typing import Protocol

from nfmailguard.errors import ConfigError

__all__ = ["FileSink", "Sink", "StandardOutput", "open_sink"]


class Sink(Protocol):
    """Takes whole lines."""

    #: Lines that could not be written.
    lost: int
    #: Why the last lines were not taken, or None.
    trouble: str | None

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
        began_torn = self.torn
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

    A pipe that nobody reads is tried again; a file that somebody removed is made anew.
    """

    def __init__(self, path: Path, patient: bool = False) -> None:
        self.path = path
        self._patient = patient
        self.lost = 0
        #: What went wrong first, in a line, or None.
        self.failure: str | None = None
        self.trouble: str | None = None
        self._pushed = _Pushed(self._patient)
        self._look = 0.0
        self._fd = self._open()

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
        if self._gone() and time.monotonic() >= self._look:
            self._look = time.monotonic() + _AGAIN
            self.reopen()
        lost, failure = (len(lines), None) if self._gone() else self._pushed.push(self._fd, lines)
        self.lost += lost
        self.trouble = None
        if lost:
            why = failure.strerror if failure else "it is gone, or nobody reads it"
            self.failure = self.failure or f"log.eve: {self.path}: {why}"
            self.trouble = f"{self.path}: {why}; events are lost"

    def _gone(self) -> bool:
        return self._fd < 0 or not os.fstat(self._fd).st_nlink

    def reopen(self) -> None:
        """After the file has been moved away by a log rotation; the old one goes on when that fails."""
        try:
            fresh = self._open()
        except ConfigError as error:
            self.failure = self.failure or str(error)
            return
        self.close()
        self._fd = fresh
        self._pushed = _Pushed(self._patient)

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
