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


def build(
    source: End, destination: End, seq: int, ack: int, flags: int, payload: bytes = b"", *, urgent: int = 0
) -> bytes:
    """A whole IP packet with right checksums."""
    tcp = struct.pack(
        "!HHIIBBHHH", source.port, destination.port, seq % 2**32, ack % 2**32, 0x50, flags, 65535, 0, urgent
    )
    tcp += payload
    pseudo = source.packed + destination.packed + struct.pack("!IBBBB", len(tcp), 0, 0, 0, 6)
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    if len(source.packed) == 16:
        return struct.pack("!IHBB", 0x60000000, len(tcp), 6, 64) + source.packed + destination.packed + tcp
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + source.packed + destination.packed
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
    tcp = packet[at:]
    pseudo = addresses + struct.pack("!IBBBB", len(tcp), 0, 0, 0, 6)
    assert checksum(pseudo + tcp) == 0, "TCP checksum"
    source_port, destination_port, seq, ack, offset, flags = struct.unpack("!HHIIBB", tcp[:14])
    return Segment(
        End(str(ipaddress.ip_address(addresses[:size])), source_port),
        End(str(ipaddress.ip_address(addresses[size:])), destination_port),
        seq,
        ack,
        flags,
        tcp[(offset >> 4) * 4 :],
    )
