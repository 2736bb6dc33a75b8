"""Packets of one direction of one connection, built and read fast: a run sends thousands.

Promises: every packet has right lengths and checksums unless asked otherwise, and what
``read`` gives has had both checked. Does not know streams; independent of the core.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
ADDRESSES = {4: ("10.0.1.2", "10.0.2.2"), 6: ("fd00:1::2", "fd00:2::2")}
CLIENT_PORT, SERVER_PORT = 40000, 25
#: NOP, NOP, timestamps: what most real segments carry.
STAMP = 0x01020304
TIMESTAMPS = bytes([1, 1, 8, 10]) + struct.pack("!II", STAMP, STAMP)
#: The same of long ago, and what a receiver refuses that knows no key (RFC 2385, RFC 5925).
OLD_TIMESTAMPS = bytes([1, 1, 8, 10]) + struct.pack("!II", STAMP - 5000, STAMP)
MD5 = bytes([1, 1, 19, 18]) + bytes(16)
AUTHENTICATION = bytes([29, 16]) + bytes(14)
#: Of a kind nobody knows, and of lengths that cannot be right: Linux takes what carries them.
ODD_OPTIONS = (bytes([253, 4, 0, 0]), bytes([1, 1, 254, 40]), bytes([1, 1, 254, 0]))

_V4 = struct.Struct("!2sH6sH8sHHIIHHHH")
_V6 = struct.Struct("!4sH2s32sHHIIHHHH")
_TCP = struct.Struct("!HHIIHHHH")


class Segment(NamedTuple):
    """What a receiver sees of a packet."""

    seq: int
    ack: int
    flags: int
    window: int
    payload: bytes
    option: int = 0  #: 1: MD5, 2: authentication
    stamp: int | None = None


def options_of(packet: bytes, at: int) -> tuple[int, int | None]:
    """What a receiver makes of a TCP header's options: 1 for MD5, 2 for AO, else 0; and the timestamp, if any.

    As tcp_parse_options and tcp_parse_auth_options do: nothing is read behind a length that cannot be right.
    """
    place, end = at + 20, at + (packet[at + 12] >> 4) * 4
    option, stamp = 0, None
    while place < end and (kind := packet[place]):
        if kind == 1:
            place += 1
            continue
        size = packet[place + 1] if place + 1 < end else 0
        if size < 2 or place + size > end:
            break
        if kind == 8 and size == 10:
            stamp = int.from_bytes(packet[place + 2 : place + 6])
        elif kind == 19 and size == 18:
            option = 1
        elif kind == 29 and size >= 4:
            option = 2
        place += size
    return option, stamp


class Track:
    """One direction: the packets between these two ends, all with the same addresses and ports."""

    def __init__(self, family: int, to_server: bool, *, client: str = "", port: int = CLIENT_PORT) -> None:
        ends = client or ADDRESSES[family][0], ADDRESSES[family][1]
        here, there = (ipaddress.ip_address(address).packed for address in ends)
        self.family = family
        self.at = 20 if family == 4 else 40
        self.ports = (port, SERVER_PORT) if to_server else (SERVER_PORT, port)
        self.addresses = here + there if to_server else there + here
        # One's complement sums are sums modulo 65535 (RFC 1071): long numbers do them at once.
        self._pseudo = int.from_bytes(self.addresses) + 6
        self._base = self._pseudo + sum(self.ports)
        self._ip = int.from_bytes(b"\x45\0\0\0\0\1\x40\0\x40\x06\0\0" + self.addresses) if family == 4 else 0

    def build(
        self,
        seq: int,
        ack: int,
        flags: int,
        payload: bytes = b"",
        *,
        window: int = 65535,
        urgent: int = 0,
        options: bytes = b"",
        spoil: int = 0,
    ) -> bytes:
        """A whole IP packet; ``spoil`` is added to the TCP checksum."""
        size = 20 + len(options) + len(payload)
        head = (20 + len(options)) << 10 | flags
        total = self._base + size + seq + ack + head + window + urgent + int.from_bytes(options)
        total += int.from_bytes(payload) << (8 * (len(payload) & 1))
        check = (spoil - total) % 65535
        if self.family == 4:
            length = 20 + size
            packet = _V4.pack(
                b"\x45\0",
                length,
                b"\0\1\x40\0\x40\x06",
                -(self._ip + (length << 0)) % 65535,
                self.addresses,
                *self.ports,
                seq,
                ack,
                head,
                window,
                check,
                urgent,
            )
        else:
            packet = _V6.pack(
                b"\x60\0\0\0", size, b"\x06\x40", self.addresses, *self.ports, seq, ack, head, window, check, urgent
            )
        return packet + options + payload

    def wrong_with(self, packet: bytes) -> str:
        """What no receiver would take about a packet of this direction; empty when all is right."""
        at = self.at
        length = int.from_bytes(packet[2:4]) if self.family == 4 else 40 + int.from_bytes(packet[4:6])
        if length != len(packet):
            return f"length {length} of {len(packet)} octets"
        if self.family == 4 and int.from_bytes(packet[:20]) % 65535:
            return "IPv4 header checksum"
        tcp = packet[at:]
        total = self._pseudo + len(tcp) + (int.from_bytes(tcp) << (8 * (len(tcp) & 1)))
        return "TCP checksum" if total % 65535 else ""

    def read(self, packet: bytes) -> Segment:
        """The segment in a packet of this direction; nothing is checked."""
        at = self.at
        _, _, seq, ack, head, window, _, _ = _TCP.unpack_from(packet, at)
        option, stamp = options_of(packet, at) if head >> 12 > 5 and len(packet) >= at + (head >> 12) * 4 else (0, None)
        return Segment(seq, ack, head & 0xFF, window, packet[at + (head >> 12) * 4 :], option, stamp)
