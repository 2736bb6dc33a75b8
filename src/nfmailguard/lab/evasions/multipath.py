"""Multipath TCP: one stream in another order than its connection's, or over several connections.

The server orders bytes by their data sequence numbers (RFC 8684 3.3), so a gateway that follows one TCP connection
reads another text (Pearce and Thomas, "Multipath TCP: breaking today's networks with tomorrow's protocols", Black Hat
2014). Programs in Go listen this way by default since Go 1.24.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from nfmailguard.lab.evasions.technique import EVIL, Attack, NotTried, Table
from nfmailguard.lab.rawtcp import ACK, RawTcp

__all__ = ["MULTIPATH"]

MULTIPATH = Table("multipath")
technique = MULTIPATH.technique

OPTION = 30
#: Contents of the option MP_CAPABLE, version 1, with HMAC-SHA256 and without checksums (RFC 8684 3.1).
CAPABLE = b"\x01\x01"
DSS, HAS_ACK, LONG_ACK, HAS_MAP, LONG_MAP = 0x20, 1, 2, 4, 8
KEY = bytes(range(1, 9))


def first_number(key: bytes) -> int:
    """The data sequence number of a side's first byte (RFC 8684 3.1)."""
    return int.from_bytes(hashlib.sha256(key).digest()[-8:], "big") + 1


def find_key(options: bytes) -> bytes | None:
    """The server's key in the options of its SYN-ACK; None: it speaks plain TCP."""
    while options and options[0]:
        length = 1 if options[0] == 1 else options[1] if len(options) > 1 else 0
        if options[0] == OPTION and length == 12 and options[2] >> 4 == 0:
            return options[4:12]
        if length == 0:
            break
        options = options[length:]
    return None


def mapped(number: int, place: int, length: int, acknowledged: int) -> list[tuple[Any, ...]]:
    """The option that says where bytes at ``place`` of the connection belong in the data stream."""
    flags = HAS_ACK | LONG_ACK | HAS_MAP | LONG_MAP
    return [(OPTION, struct.pack("!BBQQIH", DSS, flags, acknowledged, number % (1 << 64), place + 1, length))]


def opened(attack: Attack) -> tuple[RawTcp, int | None]:
    """A greeted connection to the server that has Multipath TCP, and its first data number; None: it answered with
    plain TCP.
    """
    if attack.multipath_server is None:
        raise NotTried("this kernel has no Multipath TCP")
    connection = attack.tcp(server=attack.multipath_server)
    connection.put_syn(options=[(OPTION, CAPABLE)])
    if not connection.wait(lambda: connection.established, 1.0):
        raise NotTried("no connection")
    key = find_key(connection.peer_options)
    connection.stray(flags=ACK, options=[] if key is None else [(OPTION, CAPABLE + KEY + key)])
    if not connection.read(1.0).startswith(b"220"):
        raise NotTried("no greeting")
    return connection, None if key is None else first_number(key)


@technique("multipath-order", "the data order puts the command before the line it looks an argument of (RFC 8684)")
def multipath_order(attack: Attack) -> None:
    connection, theirs = opened(attack)
    before, number, start = b"NOOP ", first_number(KEY), connection.here
    acknowledged = 0 if theirs is None else (theirs + len(connection.heard)) % (1 << 64)
    later = [] if theirs is None else mapped(number + len(EVIL), start, len(before), acknowledged)
    first = [] if theirs is None else mapped(number, start + len(before), len(EVIL), acknowledged)
    connection.put(before, options=later)
    connection.put(EVIL, options=first)
    connection.read()
