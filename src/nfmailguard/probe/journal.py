"""Lines of text files of any kind: plain, compressed, of journald and other loggers that write JSON.

Promises: a file of any size in little memory, a line of any length in bounded time; a damaged file is read up to the
damage. Does not know what a line means.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

__all__ = ["EVENT", "lines", "opened", "plain_head"]

#: _LONGEST: bytes of a log line that are read. _LOOKED_AT: characters of it that are searched for signs.
_LONGEST = 1 << 16
_LOOKED_AT = 8192
_PACKED: tuple[tuple[bytes, Any], ...] = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: Stands in place of a log line that is one of nfmailguard's own events.
EVENT = "\0event"
_TEXTS = ("MESSAGE", "log", "message", "msg")
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def opened(file: io.BufferedReader) -> io.BufferedReader:
    """The file itself, or its decompressed content."""
    head = file.peek(8)[:8]
    for magic, unpack in _PACKED:
        if head.startswith(magic):
            return io.BufferedReader(unpack(file))
    return file


def plain_head(file: io.BufferedReader) -> bytes:
    """The first bytes of the content; empty if they cannot be read."""
    try:
        return file.peek(8)[:8]
    except _DAMAGED:
        return b""


def lines(file: io.BufferedReader) -> Iterator[tuple[int, str]]:
    """Each line's number and its text; if the line is a JSON object, the text of its message."""
    wide = plain_head(file)[:2] in _WIDE
    source: BinaryIO = io.BufferedReader(_Recoder(file)) if wide else file
    number, begins = 1, True
    while True:
        try:
            line = source.readline(_LONGEST)
        except _DAMAGED:
            return
        if not line:
            return
        if begins:  # Not the continuation of an overlong line: no mail program writes lines that long.
            yield number, _text(line.rstrip(b"\n"))[:_LOOKED_AT]
        begins = line.endswith(b"\n")
        number += begins


class _Recoder(io.RawIOBase):
    """Converts UTF-16, as PowerShell writes it, to UTF-8."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-16")("replace")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            octets = self._file.read(1 << 14)
            self._ready = self._decoder.decode(octets, final=not octets).encode()
            if not octets and not self._ready:
                return 0
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def _text(line: bytes) -> str:
    if line[:1] == b"{" and line.rstrip()[-1:] == b"}":
        try:
            return _message(json.loads(line))
        except (ValueError, RecursionError):
            pass
    return line.decode("latin-1")


def _message(entry: Any) -> str:
    """The logged message, after the program's name (systemd.journal-fields(7))."""
    if not isinstance(entry, dict):
        return ""
    if "event_type" in entry:
        # The line is an event of nfmailguard or Suricata: it reports what was seen, a mail server did not write it.
        return EVENT if entry["event_type"] == "mailguard" else ""
    for key in _TEXTS:
        if key in entry:
            text = entry[key]
            if isinstance(text, list):  # journalctl writes a message that is not valid UTF-8 as a list of bytes.
                text = bytes(part & 0xFF for part in text if isinstance(part, int)).decode("latin-1")
            program, pid = entry.get("SYSLOG_IDENTIFIER", ""), entry.get("_PID") or entry.get("SYSLOG_PID") or "0"
            return f"{program}[{pid}]: {text}" if program else str(text)
    return ""
