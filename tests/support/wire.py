"""TCP packets in plain Python, independent of the core: the tests' own opinion of the wire."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


def checksum(octets: bytes) -> int:
    """RFC 1071; 0 over octets that hold their own right checksum."""
    if len(octets) % 2:
        octets += b"\0"
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class End:
    """One end of a connection."""

    address: str
    port: int

    @property
    def packed(self) -> bytes:
        return ipaddress.ip_address(self.address).packed


@dataclass(frozen=True)
class Segment:
    """What a packet says, once its lengths and checksums have been found right."""

    source: End
    destination: End
    seq: int
    ack: int
    flags: int
    payload: bytes
    window: int = 0
    urgent: int = 0
    options: bytes = b""


def build(
    source: End,
    destination: End,
    seq: int,
    ack: int,
    flags: int,
    payload: bytes = b"",
    *,
    urgent: int = 0,
    window: int = 65535,
    options: bytes = b"",
    ttl: int = 64,
    tos: int = 0,
    extra: bytes = b"",
    extra_kind: int = 0,
) -> bytes:
    """A whole IP packet with right checksums.

    ``options`` are TCP's, ``extra`` IPv4's or IPv6's extension headers, which ``extra_kind`` begins;
    all are multiples of four octets, and of eight in IPv6. ``tos`` is DSCP and ECN.
    """
    assert len(options) % 4 == 0
    assert len(extra) % (8 if len(source.packed) == 16 else 4) == 0
    ports = struct.pack("!HHII", source.port, destination.port, seq % 2**32, ack % 2**32)
    tcp = ports + struct.pack("!BBHHH", (5 + len(options) // 4) << 4, flags, window, 0, urgent) + options + payload
    pseudo = source.packed + destination.packed + struct.pack("!IBBBB", len(tcp), 0, 0, 0, 6)
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    if len(source.packed) == 16:
        first = extra_kind if extra else 6
        header = struct.pack("!IHBB", 0x60000000 | tos << 20, len(extra) + len(tcp), first, ttl)
        return header + source.packed + destination.packed + extra + tcp
    size = 20 + len(extra)
    header = struct.pack("!BBHHHBBH", 0x40 | size // 4, tos, size + len(tcp), 1, 0x4000, ttl, 6, 0)
    header += source.packed + destination.packed + extra
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + tcp


def parse(packet: bytes) -> Segment:
    """Checks lengths and checksums (AssertionError names what is wrong) and reads the segment."""
    if packet[0] >> 4 == 4:
        size, at = 4, (packet[0] & 15) * 4
        assert struct.unpack("!H", packet[2:4])[0] == len(packet), "IPv4 total length"
        assert checksum(packet[:at]) == 0, "IPv4 header checksum"
        addresses = packet[12:20]
    else:
        size, at = 16, 40
        assert struct.unpack("!H", packet[4:6])[0] == len(packet) - 40, "IPv6 payload length"
        addresses = packet[8:40]
        kind = packet[6]
        while kind != 6:  # RFC 8200 4: each begins with the next one's kind and its own length
            kind, at = packet[at], at + (packet[at + 1] + 1) * 8
    tcp = packet[at:]
    pseudo = addresses + struct.pack("!IBBBB", len(tcp), 0, 0, 0, 6)
    assert checksum(pseudo + tcp) == 0, "TCP checksum"
    source_port, destination_port, seq, ack, offset, flags, window, _, urgent = struct.unpack("!HHIIBBHHH", tcp[:20])
    header = (offset >> 4) * 4
    return Segment(
        End(str(ipaddress.ip_address(addresses[:size])), source_port),
        End(str(ipaddress.ip_address(addresses[size:])), destination_port),
        seq,
        ack,
        flags,
        tcp[header:],
        window,
        urgent,
        tcp[20:header],
    )
