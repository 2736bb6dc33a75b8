"""Turns two captures of one connection, before and after a firewall, into lines: what each side sent, what the other
got.

Promises: a sender's first copy of a byte is the one that counts; a damaged or truncated packet is left out; memory is
bounded by ``MOST_BYTES``. libpcap reads pcap and pcapng. Does not know what a gateway decides.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from nfmailguard.errors import CaptureError
from nfmailguard.events.records import address_text
from nfmailguard.queues.capture import CaptureFile
from nfmailguard.queues.checksums import network_offset
from nfmailguard.transcripts.model import Dialogue, Line, hidden

__all__ = ["MOST_BYTES", "Connection", "Key", "connections", "dialogue", "paired"]

#: Most bytes of one gap, and of all gaps in a stream, that are filled with NULs, so that a forged sequence number
#: cannot create gigabytes.
_MOST_GAP, _MOST_GAPS = 1 << 20, 4 << 20
#: Most bytes of dialogues kept of a capture; what exceeds it is left out and counted in ``Capture.left_out``.
MOST_BYTES = 64 << 20
_SYN, _RST, _FIN, _ACK = 2, 4, 1, 16
_EXTENSIONS = (0, 43, 60)  # IPv6 extension headers: hop-by-hop, routing, destination options (RFC 8200 4).
_TCP = 6


class Key(NamedTuple):
    """The key of a connection: addresses of 4 or 16 bytes, ports."""

    client: bytes
    client_port: int
    server: bytes
    server_port: int


@dataclass
class _Stream:
    """One direction's bytes by their offset from the first one."""

    first: int | None = None  # Sequence number of the stream's first byte; None: no byte seen yet.
    # Segments of the stream: offset, packet number, time, bytes.
    pieces: list[tuple[int, int, int, bytes]] = field(default_factory=list)

    def take(self, sequence: int, number: int, now: int, data: bytes) -> None:
        if self.first is None:
            self.first = sequence
        offset = (sequence - self.first) & 0xFFFFFFFF
        if offset < 1 << 31:
            self.pieces.append((offset, number, now, data))

    def whole(self) -> tuple[bytes, list[tuple[int, int, int]], list[tuple[int, int]]]:
        """The bytes, with gaps as NULs; where each packet begins (offset, packet, time); the gaps (from, to)."""
        out, begun, gaps = bytearray(), list[tuple[int, int, int]](), list[tuple[int, int]]()
        latest, room = (0, 0), _MOST_GAPS
        for offset, number, now, data in sorted(self.pieces, key=lambda piece: (piece[0], piece[1])):
            if offset > len(out):
                gap = offset - len(out)
                if gap > min(_MOST_GAP, room):
                    continue
                room -= gap
                gaps.append((len(out), offset))
                out += bytes(offset - len(out))
            rest = data[len(out) - offset :]
            if rest:
                # A byte can be read only when all bytes before it have arrived, so it has the latest packet's number
                # and time.
                latest = max(latest, (number, now))
                begun.append((len(out), *latest))
                out += rest
        return bytes(out), begun, gaps


@dataclass
class Connection:
    """One connection of a capture. ``start``: nanoseconds since 1970, of its first packet."""

    key: Key
    start: int
    number: int
    to_server: _Stream = field(default_factory=_Stream)
    to_client: _Stream = field(default_factory=_Stream)
    reset: bool = False


def _normal(path: str | os.PathLike[str], target: str) -> None:
    """The capture as libpcap reads it, written as classic pcap of this machine's byte order."""
    capture = CaptureFile(None, path, target, accept_all=True)
    capture.open()
    try:
        with suppress(CaptureError):  # Of a damaged capture, the part before the damage is used.
            capture.run()
    finally:
        capture.close()


def _packets(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Time and IP packet of each whole frame."""
    with tempfile.TemporaryDirectory(prefix="nfmailguard-") as scratch:
        plain = Path(scratch, "plain.pcap")
        _normal(path, str(plain))
        with plain.open("rb") as file:
            head = file.read(24)
            if len(head) < 24:
                return
            magic, link = struct.unpack("=I16xI", head)
            unit = 1000 if magic == 0xA1B2C3D4 else 1
            while len(frame := file.read(16)) == 16:
                seconds, rest, captured, length = struct.unpack("=IIII", frame)
                data = file.read(captured)
                at = network_offset(data, link & 0xFFFF) if captured == length else None
                if at is not None:
                    yield seconds * 10**9 + rest * unit, data[at:]


class _Segment(NamedTuple):
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    sequence: int
    flags: int
    data: bytes


def _segment(packet: bytes) -> _Segment | None:
    """The TCP segment of an IP packet; None for anything else, and for what is cut short."""
    if len(packet) < 20:
        return None
    if packet[0] >> 4 == 4:
        at, end = (packet[0] & 15) * 4, int.from_bytes(packet[2:4]) or len(packet)
        kind = packet[9] if not int.from_bytes(packet[6:8]) & 0x3FFF else 0
        ends = packet[12:16], packet[16:20]
    elif packet[0] >> 4 == 6 and len(packet) >= 40:
        at, end, kind = 40, 40 + int.from_bytes(packet[4:6]), packet[6]
        ends = packet[8:24], packet[24:40]
        while kind in _EXTENSIONS and at + 8 <= len(packet):
            kind, at = packet[at], at + 8 + packet[at + 1] * 8
    else:
        return None
    if kind != _TCP or end > len(packet) or end - at < 20:
        return None
    header = (packet[at + 12] >> 4) * 4
    if header < 20 or at + header > end:
        return None
    source, destination, sequence = struct.unpack("!HHI", packet[at : at + 8])
    return _Segment(ends[0], source, ends[1], destination, sequence, packet[at + 13], packet[at + header : end])


class Capture:
    """The connections of a capture to ``ports``, in the order in which they began."""

    def __init__(self, path: str | os.PathLike[str], ports: Iterable[int] = (25,)) -> None:
        self._ports = frozenset(ports)
        self._open: dict[Key, Connection] = {}
        self.connections: list[Connection] = []
        self.left_out = 0
        self._size = 0
        for number, (now, packet) in enumerate(_packets(path)):
            segment = _segment(packet)
            if segment is not None:
                self._take(number, now, segment)

    def _take(self, number: int, now: int, one: _Segment) -> None:
        to_server = one.destination_port in self._ports
        if not to_server and one.source_port not in self._ports:
            return
        ends = one[:4] if to_server else (*one[2:4], *one[:2])
        key = Key(*ends)
        begins = one.flags & (_SYN | _ACK) == _SYN and to_server
        known = self._open.get(key)
        stream = None if known is None else known.to_server if to_server else known.to_client
        if known is None or (begins and stream is not None and stream.pieces):
            known = self._open[key] = Connection(key, now, number)
            self.connections.append(known)
        stream = known.to_server if to_server else known.to_client
        known.reset |= bool(one.flags & _RST)
        if one.flags & _SYN:
            stream.first = (one.sequence + 1) & 0xFFFFFFFF
        elif one.data and self._size + len(one.data) <= MOST_BYTES:
            self._size += len(one.data)
            stream.take(one.sequence, number, now, one.data)
        else:
            self.left_out += bool(one.data)


def connections(path: str | os.PathLike[str], ports: Iterable[int] = (25,)) -> list[Connection]:
    """Of a capture file. Raises CaptureError for a file that is none."""
    return Capture(path, ports).connections


def paired(before: list[Connection], behind: list[Connection]) -> Iterator[tuple[Connection, Connection | None]]:
    """Each connection of one capture with the same one of the other, in their order.

    Matched by addresses and ports; if a firewall translates addresses, by the ports; a single remaining one is matched
    too.
    """
    left = {one.number: one for one in behind}
    found = dict[int, Connection]()
    for same in (lambda key: key, lambda key: (key.client_port, key.server_port)):
        waiting: dict[object, deque[int]] = {}
        for number, one in left.items():
            waiting.setdefault(same(one.key), deque()).append(number)
        for one in before:
            numbers = waiting.get(same(one.key))
            if one.number not in found and numbers:
                found[one.number] = left.pop(numbers.popleft())
    alone = [one for one in before if one.number not in found]
    if len(alone) == len(left) == 1:
        found[alone[0].number] = left.popitem()[1]
    for one in before:
        yield one, found.get(one.number)


def dialogue(sent: Connection, seen: Connection | None, *, title: str = "", sides: bool = False) -> Dialogue:
    """Both sides of a dialogue; ``seen`` None: only one side is known. Lengths are the same, as firewalls keep them.

    ``sides``: ``sent`` was recorded on the client's side of a firewall, ``seen`` on the server's; otherwise before and
    after it.
    """
    came, left, clock = sent, seen, sent
    if sides and seen is not None:
        came = replace(sent, to_client=seen.to_client)
        left = replace(sent, to_server=seen.to_server)
    lines: list[tuple[int, Line]] = []
    for to_server in (True, False):
        stream, order = (one.to_server if to_server else one.to_client for one in (came, clock))
        other = None if left is None else left.to_server if to_server else left.to_client
        lines += _lines(to_server, stream, other, order, one_sided=seen is None)
    lines.sort(key=lambda one: one[0])
    made = list(hidden(_without_tls([line for _, line in lines])))
    key = sent.key
    family = 4 if len(key.client) == 4 else 6
    client, server = address_text(family, key.client), address_text(family, key.server)
    ended = "the connection was reset" if (seen or sent).reset else ""
    return Dialogue(title, f"{client} port {key.client_port}", f"{server} port {key.server_port}", made, ended)


def _lines(
    to_server: bool, stream: _Stream, other: _Stream | None, order: _Stream, *, one_sided: bool
) -> Iterator[tuple[int, Line]]:
    """Each line with the number of the packet, in the capture of ``order``, that has its first byte."""
    data, _, _ = stream.whole()
    _, begun, _ = order.whole()
    there, _, gaps = (b"", [], list[tuple[int, int]]()) if other is None else other.whole()
    at, place = 0, -1
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        while place + 1 < len(begun) and begun[place + 1][0] < end:
            place += 1
        number, now = begun[place][1:] if place >= 0 else (0, None)
        got: bytes | None = there[at:end] or None
        if got is not None and any(begin < end and at < stop for begin, stop in gaps):
            got = None
        yield number, Line(to_server, data[at:end], got, now, [], one_sided=one_sided, offset=at)
        at = end


def _without_tls(lines: list[Line]) -> Iterator[Line]:
    """The lines; what comes after an accepted STARTTLS is replaced by its number of bytes, for each side."""
    asked = opaque = False
    unread: Line | None = None
    size = 0
    for line in lines:
        if opaque:
            if unread is not None and unread.to_server is line.to_server:
                size += len(line.sent)
                continue
            if unread is not None:
                yield _tls(unread, size)
            unread, size = line, len(line.sent)
            continue
        yield line
        if line.to_server:
            asked = line.sent.strip().upper() == b"STARTTLS"
        elif asked and line.sent[3:4] != b"-":
            opaque = line.sent.startswith(b"220")
            asked = False
    if unread is not None:
        yield _tls(unread, size)


def _tls(line: Line, size: int) -> Line:
    return Line(line.to_server, b"", b"", line.time, [], f"TLS: {size:,} bytes", offset=line.offset)
