"""systemd's journal: entries with fields, in its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

Promises: sending never waits and never raises anything but OSError; an entry too large for a datagram is sent as a
sealed memory file. It uses its own socket: sd_journal_send(3), and with it every binding, waits for a journal that does
not read. Does not know what an event says.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from nfmailguard.events.cisco import SEVERITIES
from nfmailguard.events.records import end_text
from nfmailguard.events.sinks import kind_of
from nfmailguard.plain import printable
from nfmailguard.sealed import sealed_file

__all__ = ["IDENTIFIER", "MESSAGE_IDS", "SOCKET", "Journal", "JournalSink", "emit_entry"]

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "nfmailguard"
#: MESSAGE_ID of a journal entry by event type, and by Cisco message number; `journalctl MESSAGE_ID=` finds entries by
#: it. The values never change.
MESSAGE_IDS: Mapping[str, str] = {
    "mailguard": "6a1c0d3c5c9f4f0e9a52d6a4a4c5f101",
    "alert": "6a1c0d3c5c9f4f0e9a52d6a4a4c5f102",
    "smtp": "6a1c0d3c5c9f4f0e9a52d6a4a4c5f103",
    "flow": "6a1c0d3c5c9f4f0e9a52d6a4a4c5f104",
    "stats": "6a1c0d3c5c9f4f0e9a52d6a4a4c5f105",
    "health": "6a1c0d3c5c9f4f0e9a52d6a4a4c5f106",
    "withheld": "6a1c0d3c5c9f4f0e9a52d6a4a4c5f107",
    **{str(number): f"6a1c0d3c5c9f4f0e9a52d6a4a4{number:06d}" for number in SEVERITIES},
}
#: Journal priorities, as numbered in syslog(3).
_WARNING, _NOTICE, _INFO, _DEBUG = 4, 5, 6, 7
_PRIORITIES: Mapping[str, int] = {
    "mailguard": _NOTICE,
    "alert": _WARNING,
    "health": _WARNING,
    "withheld": _WARNING,
    "stats": _DEBUG,
}
#: The journal takes field names of at most 64 bytes. The counters of a stats event are not made fields; they are in the
#: whole line only.
_MOST_FIELDS, _LONGEST_NAME = 128, 64
_SEND_BUFFER = 8 << 20  # Size in bytes of the socket's send buffer: what sd_journal_send asks for.
_AGAIN = 5.0
_DECODE = msgspec.json.Decoder().decode


def emit_entry(fields: Iterable[tuple[str, str]]) -> bytes:
    """Encodes a journal entry. The field names must be valid. A value with a line feed is written with its length."""
    parts = []
    for name, value in fields:
        octets = value.encode()
        if b"\n" in octets:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(octets)) + octets + b"\n")
        else:
            parts.append(name.encode() + b"=" + octets + b"\n")
    return b"".join(parts)


class Journal:
    """The journal's socket. The journal may be started, stopped and replaced meanwhile."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def send(self, entry: bytes) -> None:
        """Raises OSError if the entry is not accepted at once."""
        link = self._socket or self._opened()
        try:
            link.sendto(entry, socket.MSG_DONTWAIT, str(SOCKET))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._send_file(link, entry)

    def look(self) -> None:
        """Raises OSError if no journal listens."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.setblocking(False)
            link.connect(str(SOCKET))

    def _opened(self) -> socket.socket:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        return self._socket

    @staticmethod
    def _send_file(link: socket.socket, entry: bytes) -> None:
        fd = sealed_file("nfmailguard-journal", [entry])
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
            link.sendmsg([], rights, socket.MSG_DONTWAIT, str(SOCKET))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Closes the socket. May be called repeatedly."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class JournalSink:
    """Writes events as journal entries: the whole line in ``NFMAILGUARD_EVENT``, and its contents
    in separate fields.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.lost_by_kind: Counter[str] = Counter()
        self.trouble: str | None = None
        self._journal = Journal()
        self._again = 0.0

    def write(self, lines: list[bytes]) -> None:
        """Sends the lines; after a failure nothing is sent for a while, so that no thread waits for the journal."""
        if time.monotonic() < self._again:
            self._lose(lines)
            return
        for place, line in enumerate(lines):
            try:
                self._journal.send(emit_entry(_fields(line)))
            except OSError as error:
                self._lose(lines[place:])
                self.trouble = f"journald: {error.strerror or error}; events are lost"
                if not isinstance(error, BlockingIOError):
                    self._again = time.monotonic() + _AGAIN
                return
        if lines:
            self.trouble = None

    def write_block(self, block: bytes | memoryview, lines: int) -> None:
        """Writes the lines of a block."""
        self.write(bytes(block).splitlines(keepends=True))

    def _lose(self, lines: Sequence[bytes]) -> None:
        self.lost += len(lines)
        self.lost_by_kind.update(map(kind_of, lines))

    def reopen(self) -> None:
        """Nothing to reopen."""

    def close(self) -> None:
        self._journal.close()


def _fields(line: bytes) -> Iterator[tuple[str, str]]:
    event: dict[str, Any] = _DECODE(line)
    kind = event.get("event_type", "")
    body = event.get(kind, {})
    yield "MESSAGE", _message(kind, event, body)
    yield "MESSAGE_ID", MESSAGE_IDS[kind]
    yield "PRIORITY", str(_PRIORITIES.get(kind, _INFO))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    yield "NFMAILGUARD_EVENT", line.decode().rstrip("\n")
    shown = {**event, kind: {}} if kind == "stats" else event
    for number, (name, value) in enumerate(_flat(shown, "NFMAILGUARD")):
        if number < _MOST_FIELDS:
            yield name, value


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{name}_{re.sub('[^A-Z0-9]', '_', str(key).upper())}")
    elif value is not None and len(name) <= _LONGEST_NAME:
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        yield name, shown


def _message(kind: str, event: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """The readable text of an entry."""
    ends = ""
    if "src_ip" in event:
        ends = f" {end_text(event['src_ip'], event['src_port'])} -> {end_text(event['dest_ip'], event['dest_port'])}"
    said = {
        "mailguard": ("finding", "action"),
        "alert": ("signature",),
        "smtp": ("mail_from",),
        "flow": ("state", "reason"),
        "health": ("state", "reason", "text", "ended", "reload", "hand_over"),
    }.get(kind, ())
    words = (str(body[name]) for name in said if body.get(name))
    return printable(f"{kind}: {', '.join(words)}{ends}" if said else f"{kind}{ends}")
