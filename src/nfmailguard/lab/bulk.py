"""Builds many similar TCP segments, fast enough to send tens of thousands of them.

Promises: lengths and checksums are right. Does not send, and knows no connection.
"""

from __future__ import annotations

import socket
import struct

from nfmailguard.lab.rawtcp import Ends
from nfmailguard.queues.checksums import internet_checksum

__all__ = ["segment"]

IPV6_DESTINATION = 60


def segment(
    ends: Ends,
    flags: int,
    seq: int,
    ack: int = 0,
    payload: bytes = b"",
    *,
    options: bytes = b"",
    destination_options: bytes = b"",
    window: int = 65535,
    ttl: int = 64,
    tag: int = 0,
) -> bytes:
    """An IP packet with one TCP segment.

    ``options``: TCP options, a multiple of four bytes. ``destination_options``: contents of an IPv6 destination options
    header, without its first two bytes for the next header and the length.
    """
    offset = (20 + len(options)) << 2
    numbers = (seq % (1 << 32), ack % (1 << 32), offset, flags, window, 0, 0)
    tcp = struct.pack("!HHIIBBHHH", ends.port, ends.destination_port, *numbers) + options + payload
    kind = socket.AF_INET if ends.family == 4 else socket.AF_INET6
    addresses = socket.inet_pton(kind, ends.source) + socket.inet_pton(kind, ends.destination)
    total = internet_checksum(addresses + struct.pack("!II", socket.IPPROTO_TCP, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
    if ends.family == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), tag, 0x4000, ttl, socket.IPPROTO_TCP, 0) + addresses
        return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + tcp
    following, between = socket.IPPROTO_TCP, b""
    if destination_options:
        following = IPV6_DESTINATION
        between = bytes((socket.IPPROTO_TCP, (len(destination_options) + 2) // 8 - 1)) + destination_options
    return struct.pack("!IHBB", 6 << 28 | tag, len(between) + len(tcp), following, ttl) + addresses + between + tcp
