"""Where lines of events go: a file, or standard output.

Promises: writing never raises; what could not be written is counted, and the first
failure is kept for the operator. Knows nothing of what the lines say.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol

from nfmailguard.errors import ConfigError

__all__ = ["FileSink", "Sink", "StandardOutput", "open_sink"]


class Sink(Protocol):
    """Takes whole lines."""

    #: Lines that could not be written.
    lost: int

    def write(self, lines: list[bytes]) -> None: ...
    def reopen(self) -> None: ...
    def close(self) -> None: ...


class StandardOutput:
    """Lines to standard output; a reader that has gone away is no error."""

    def __init__(self) -> None:
        self.lost = 0

    def write(self, lines: list[bytes]) -> None:
        try:
            sys.stdout.buffer.write(b"".join(lines))
            sys.stdout.buffer.flush()
        except (OSError, ValueError):
            self.lost += len(lines)

    def reopen(self) -> None:
        """Nothing to reopen."""

    def close(self) -> None:
        """Not ours to close."""


class FileSink:
    """Lines appended to a file, whole batches at once. ConfigError when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        #: What went wrong first, in a line, or None.
        self.failure: str | None = None
        self._fd = self._open()

    def _open(self) -> int:
        try:
            # Events tell who writes to whom: not for everybody to read.
            return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(f"log.eve: {self.path}: {error.strerror}") from error

    def write(self, lines: list[bytes]) -> None:
        octets = memoryview(b"".join(lines))
        try:
            while octets:
                octets = octets[os.write(self._fd, octets) :]
        except OSError as error:
            self.lost += bytes(octets).count(b"\n")
            self.failure = self.failure or f"log.eve: {self.path}: {error.strerror}"

    def reopen(self) -> None:
        """After the file has been moved away by a log rotation; the old one goes on when that fails."""
        try:
            fresh = self._open()
        except ConfigError as error:
            self.failure = self.failure or str(error)
            return
        os.close(self._fd)
        self._fd = fresh

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_sink(target: str) -> Sink:
    """``-`` is standard output, anything else a file. ConfigError when it cannot be opened."""
    return StandardOutput() if target == "-" else FileSink(Path(target))
