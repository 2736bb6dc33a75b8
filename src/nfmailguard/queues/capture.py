"""The capture driver: reads packets from a capture file instead of a queue, and writes what left to another.

Promises: needs no privilege; a capture that is cut short is used up to its end, written, and then reported; the input
is never written to. Reads pcap and pcapng, also compressed with gzip or from a pipe; writes pcap of the same link type
and precision. The loop itself is ``cext.capture``. Does not know SMTP.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO

from nfmailguard.cext.drivers.capture import CaptureLoop
from nfmailguard.engine import Engine
from nfmailguard.errors import CaptureError
from nfmailguard.queues.checksums import corrected

__all__ = ["CaptureFile"]

#: Frames processed between two checks of ``stop``, of signals and of the records.
_BATCH = 65_536
_GZIP = b"\x1f\x8b"
#: An input that must be copied first has to begin with one of these, so that an endless device is not copied.
_KNOWN = (
    *(_GZIP, b"\x0a\x0d\x0d\x0a", b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xcd\x34", b"\x34\xcd\xb2\xa1"),
    *(b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1"),
)
# _LOOK: bytes written between two checks of the disk's free space. _ROOM: bytes that must stay free.
_LOOK, _ROOM = 1 << 26, 1 << 28
#: The first bytes of classic pcap files with microseconds; all other captures are read and written with nanoseconds.
_MICROSECONDS = frozenset({b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xcd\x34", b"\x34\xcd\xb2\xa1"})


def _begun(source: BufferedReader | gzip.GzipFile) -> Iterator[bytes]:
    """The data of ``source``, if it begins as a capture; otherwise ValueError."""
    # read1 returns the data before a damaged place, where read would only raise an error.
    piece = source.read1(1 << 16)
    if piece and not any(piece[: len(known)] == known[: len(piece)] for known in _KNOWN):
        raise ValueError("it begins as neither pcap nor pcapng")
    while piece:
        yield piece
        piece = source.read1(1 << 16)


class CaptureFile:
    """Replays ``in_path`` through ``engine``, which ``accept_all`` leaves out (for measuring).

    ``out_path`` None writes nothing; an existing file is replaced. ``drain`` is called between batches, before the ring
    buffer of records fills up, and at the end; it runs in the thread of ``run``. ``checksums`` False corrects those of
    IPv4 and TCP as the input is read.
    """

    def __init__(
        self,
        engine: Engine | None,
        in_path: str | os.PathLike[str],
        out_path: str | os.PathLike[str] | None = None,
        *,
        accept_all: bool = False,
        drain: Callable[[], object] | None = None,
        checksums: bool = True,
    ) -> None:
        if not (engine or accept_all):
            raise ValueError("a capture without an engine can only be accepted")
        self.in_path = os.fspath(in_path)
        self.out_path = None if out_path is None else os.fspath(out_path)
        self._loop = CaptureLoop(None if accept_all else engine)
        self._drain = drain
        self._checksums = checksums
        #: Why the input ended early, if copying it for libpcap failed.
        self._cut: str | None = None

    def open(self) -> None:
        """Opens both files, the output only for an input that is a capture. Raises CaptureError."""
        try:
            self._open_input()
            if self.out_path is not None:
                self._open_output(self.out_path)
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Runs to the end of the input, or ``stop``. Raises CaptureError if the input ends badly or
        the output is lost.
        """
        loop = self._loop
        try:
            while loop.step(_BATCH, leave_room=self._drain is not None):
                self._drain_now()
        finally:
            while loop.finish(leave_room=self._drain is not None):
                self._drain_now()
            self._drain_now()
        if loop.write_error:
            raise CaptureError(f"{self.out_path}: the output is incomplete: {os.strerror(loop.write_error)}")
        if fault := self._cut or loop.read_error:
            frames = loop.counters()["packets"]
            raise CaptureError(
                f"{self.in_path}: ends badly behind packet {frames}, all before it was replayed: {fault}"
            )

    def stop(self) -> None:
        self._loop.stop()

    def _drain_now(self) -> None:
        if self._drain:
            self._drain()

    def close(self) -> None:
        self._loop.close()

    def counters(self) -> dict[str, int]:
        """The loop's own counters; there is no kernel here to lose packets."""
        return self._loop.counters()

    @property
    def clock(self) -> int:
        """The capture's time, in nanoseconds: of the latest packet, or of the latest deadline."""
        return self._loop.clock

    def _open_input(self) -> None:
        try:
            with Path(self.in_path).open("rb") as file:
                self._input_stat = os.fstat(file.fileno())
                plain: IO[bytes] = (
                    file if stat.S_ISREG(self._input_stat.st_mode) else self._spool(_begun(file), "unpack")
                )
                if os.pread(plain.fileno(), 2, 0) == _GZIP:
                    with gzip.open(plain) as packed:
                        plain = self._spool(_begun(packed), "unpack")
                if not self._checksums:
                    plain.seek(0)
                    plain = self._spool(corrected(plain), "copy")
                fd = os.dup(plain.fileno())
                plain.close()
            os.lseek(fd, 0, os.SEEK_SET)
            self._loop.open_input(fd, os.pread(fd, 4, 0) not in _MICROSECONDS)
        except OSError as error:
            raise CaptureError(f"{self.in_path}: cannot read: {error.strerror or error}") from error
        except ValueError as error:
            raise CaptureError(f"{self.in_path}: no capture that can be read: {self._cut or error}") from error

    def _spool(self, pieces: Iterator[bytes], what: str) -> IO[bytes]:
        """Copies the pieces to a file without a name, as far as they can be read; ``what``: a verb
        for error messages.
        """
        spool = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            # Bytes copied so far, and the number of bytes at which the disk's free space is checked again.
            size = look = 0
            for piece in pieces:
                if size >= look:
                    look = size + _LOOK
                    if shutil.disk_usage(tempfile.gettempdir()).free < _ROOM:
                        raise OSError(errno.ENOSPC, f"no room to {what} it in {tempfile.gettempdir()} (TMPDIR)")
                spool.write(piece)
                size += len(piece)
        except (ValueError, OSError) as error:
            if not isinstance(error, gzip.BadGzipFile):
                spool.close()
                raise
            self._cut = f"the compressed data is damaged ({error})"
        except (EOFError, zlib.error) as error:
            self._cut = f"the compressed data is damaged ({error})"
        spool.flush()
        spool.seek(0)
        return spool

    def _open_output(self, path: str) -> None:
        try:
            # The output is truncated only when it is known to be another file than the input. Its mode is 0600, because
            # mail is private.
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            there = os.fstat(fd)
            if (there.st_dev, there.st_ino) == (self._input_stat.st_dev, self._input_stat.st_ino):
                os.close(fd)
                raise CaptureError(f"{path}: is the input; write to another file")
            if stat.S_ISREG(there.st_mode):
                os.ftruncate(fd, 0)
            self._loop.open_output(fd)
        except OSError as error:
            raise CaptureError(f"{path}: cannot write: {error.strerror or error}") from error
        except ValueError as error:
            raise CaptureError(f"{path}: cannot write this link type: {error}") from error
