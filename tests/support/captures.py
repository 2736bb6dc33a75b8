"""Capture files in plain Python, independent of libpcap: what the tests replay and read back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.dialogue import CLIENTS, SERVERS
from tests.support.wire import ACK, FIN, PSH, SYN, build

MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
START = 1_700_000_000_000_000_000
ETHERNET, RAW = 1, 101


@dataclass(frozen=True)
class Frame:
    """A packet of a capture; ``length`` 0 is that of ``data``."""

    now: int
    data: bytes
    length: int = 0


def pcap(frames: Sequence[Frame], link: int = ETHERNET, *, magic: int = MICROSECONDS, order: str = "<") -> bytes:
    """A capture file; ``order`` is the octet order as ``struct`` has it."""
    unit = 1 if magic == NANOSECONDS else 1000
    out = [struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 262144, link)]
    for frame in frames:
        seconds, rest = divmod(frame.now, 10**9)
        lengths = len(frame.data), frame.length or len(frame.data)
        out += [struct.pack(order + "IIII", seconds, rest // unit, *lengths), frame.data]
    return b"".join(out)


def frames(capture: bytes) -> list[Frame]:
    """The packets of a little-endian capture file."""
    magic = struct.unpack_from("<I", capture)[0]
    unit = {MICROSECONDS: 1000, NANOSECONDS: 1}[magic]
    found, at = [], 24
    while at < len(capture):
        seconds, rest, captured, length = struct.unpack_from("<IIII", capture, at)
        found.append(Frame(seconds * 10**9 + rest * unit, capture[at + 16 : at + 16 + captured], length))
        at += 16 + captured
    return found


def link_type(capture: bytes) -> int:
    return int(struct.unpack_from("<I", capture, 20)[0])


def pcapng(frames: Sequence[Frame], link: int = ETHERNET) -> bytes:
    """One section, one interface with nanosecond times (draft-ietf-opsawg-pcapng)."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)

    resolution = struct.pack("<HHBxxxHH", 9, 1, 9, 0, 0)
    out = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    out += [block(1, struct.pack("<HHI", link, 0, 262144) + resolution)]
    for frame in frames:
        high, low = divmod(frame.now, 2**32)
        lengths = len(frame.data), frame.length or len(frame.data)
        out.append(block(6, struct.pack("<IIIII", 0, high, low, *lengths) + frame.data))
    return b"".join(out)


class Conversation:
    """The packets of one connection, as both ends send them; ``packets`` is (to_server, IP packet)."""

    def __init__(self, family: int = 4) -> None:
        self.ends = {True: CLIENTS[family], False: SERVERS[family]}
        self.sent = {True: 1000, False: 5000}
        self.packets: list[tuple[bool, bytes]] = []
        for to_server, flags in ((True, SYN), (False, SYN | ACK), (True, ACK)):
            self.send(to_server, flags=flags)
            self.sent[to_server] += bool(flags & SYN)

    def send(self, to_server: bool, payload: bytes = b"", flags: int = ACK | PSH) -> bytes:
        seq, ack = self.sent[to_server], self.sent[not to_server] if flags & ACK else 0
        packet = build(self.ends[to_server], self.ends[not to_server], seq, ack, flags, payload)
        self.sent[to_server] += len(payload) + bool(flags & FIN)
        self.packets.append((to_server, packet))
        return packet

    def client(self, payload: bytes) -> bytes:
        return self.send(True, payload)

    def server(self, payload: bytes) -> bytes:
        return self.send(False, payload)


def mail(family: int = 4) -> Conversation:
    """A whole mail in which pix63 changes the banner and EHLO."""
    talk = Conversation(family)
    talk.server(b"220 mx.example ESMTP\r\n")
    for command, reply in (
        (b"EHLO a\r\n", b"500 what?\r\n"),
        (b"HELO a\r\n", b"250 mx\r\n"),
        (b"MAIL FROM:<a@example>\r\n", b"250 ok\r\n"),
        (b"RCPT TO:<b@example>\r\n", b"250 ok\r\n"),
        (b"DATA\r\n", b"354 go on\r\n"),
        (b"Subject: x\r\n\r\nhello\r\n.\r\n", b"250 queued as 1234\r\n"),
        (b"QUIT\r\n", b"221 bye\r\n"),
    ):
        talk.client(command)
        talk.server(reply)
    talk.send(True, flags=FIN | ACK)
    talk.send(False, flags=FIN | ACK)
    talk.send(True, flags=ACK)
    return talk


def framed(talk: Conversation, to_server: bytes = b"", to_client: bytes = b"", behind: bytes = b"") -> list[Frame]:
    """The conversation as frames, a millisecond apart, each behind its side's link header."""
    return [
        Frame(START + number * 1_000_000, (to_server if direction else to_client) + packet + behind)
        for number, (direction, packet) in enumerate(talk.packets)
    ]
