"""Statements of nftables: as nft writes them, and as the kernel takes them.

Promises: both forms mean the same. Does not know chains, nor what a rule is for.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any, NamedTuple

__all__ = [
    "ACCEPT",
    "ACCEPT_PACKET",
    "BEGINS_IN_ITS_MIDST",
    "BEGINS_OR_ENDS",
    "CONNECTION_MARK",
    "CONNECTION_MARK_MASK",
    "CONNECTION_OFFLOADED",
    "COUNTER",
    "DIRECTIONS",
    "FIRST_PARTS",
    "FROM_LOOPBACK",
    "INSPECT_CONNECTION",
    "INVALID",
    "IN_BETWEEN",
    "JUMP",
    "MARK_BY_CONNECTION",
    "NEW",
    "NO_SYN",
    "OFFLOAD_CONNECTION",
    "OFFLOAD_MARK",
    "PACKET_OFFLOADS",
    "TRANSLATED",
    "UNMARK_PACKET",
    "Network",
    "Statement",
    "address",
    "connection_marked",
    "connection_with_mark",
    "goto",
    "marked",
    "on_port",
    "verdict",
    "with_mark",
]

#: Mark bit. On a packet: its connection needs no more inspection. On a connection: its packets bypass the queue.
OFFLOAD_MARK = 0x10000000
#: Mark of queued packets whose connection's addresses are translated: these bits, and part of conntrack's connection
#: id.
CONNECTION_MARK, CONNECTION_MARK_MASK = 0x60000000, 0xF0000000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Value = int | bytes | dict[str, Any]

# Constants from linux/netfilter/nf_tables.h.
NFT_REG_1 = 1
META_MARK, META_IIFNAME, META_NFPROTO, META_L4PROTO = 3, 6, 15, 16
NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
IPPROTO_FRAGMENT = 44
CT_STATE, CT_DIRECTION, CT_STATUS, CT_MARK, CT_ID = 0, 1, 2, 3, 23
CT_STATE_INVALID, CT_STATE_NEW = 1, 8
ORIGINAL, REPLY = b"\0", b"\1"
#: The status bits IPS_SRC_NAT and IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
NAT_STATUS = 0x30
TCP_FIN, TCP_SYN, TCP_RST, TCP_ACK = 0x01, 0x02, 0x04, 0x10
TCP_FLAGS_AT = 13
PAYLOAD_NETWORK, PAYLOAD_TRANSPORT = 1, 2
CMP_EQ, CMP_NEQ = 0, 1
ACCEPT, JUMP, GOTO = 1, -3, -4
IFNAMSIZ = 16


class Statement(NamedTuple):
    """One part of a rule: as nft writes it, and as the kernel takes it."""

    text: str
    expressions: tuple[tuple[str, dict[str, Value]], ...]


def _load(name: str, **where: int) -> tuple[str, dict[str, Value]]:
    return name, {"dreg": NFT_REG_1, **where}


def _compare(value: bytes, operator: int = CMP_EQ) -> tuple[str, dict[str, Value]]:
    return "cmp", {"sreg": NFT_REG_1, "op": operator, "data": {"attrs": [("NFTA_DATA_VALUE", value)]}}


def _masked(mask: bytes, other: bytes) -> tuple[str, dict[str, Value]]:
    values = {key: {"attrs": [("NFTA_DATA_VALUE", value)]} for key, value in (("mask", mask), ("xor", other))}
    return "bitwise", {"sreg": NFT_REG_1, "dreg": NFT_REG_1, "len": len(mask), **values}


def _family(number: int) -> tuple[tuple[str, dict[str, Value]], ...]:
    return _load("meta", key=META_NFPROTO), _compare(bytes([number]))


def verdict(text: str, code: int, chain: str | None = None) -> Statement:
    attributes: list[tuple[str, Any]] = [("NFTA_VERDICT_CODE", code)]
    if chain is not None:
        attributes.append(("NFTA_VERDICT_CHAIN", chain))
    data = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": attributes})]}
    return Statement(text, (("immediate", {"dreg": 0, "data": data}),))


def goto(chain: str) -> Statement:
    return verdict(f"goto {chain}", GOTO, chain)


def on_port(field: str, port: int) -> Statement:
    protocol = (_load("meta", key=META_L4PROTO), _compare(b"\x06"))
    where = _load("payload", base=PAYLOAD_TRANSPORT, offset=2 if field == "dport" else 0, len=2)
    return Statement(f"tcp {field} {port}", (*protocol, where, _compare(struct.pack("!H", port))))


def address(field: str, network: Network) -> Statement:
    family, keyword, source, size = (
        (NFPROTO_IPV4, "ip", 12, 4) if network.version == 4 else (NFPROTO_IPV6, "ip6", 8, 16)
    )
    where = _load("payload", base=PAYLOAD_NETWORK, offset=source + size * (field == "daddr"), len=size)
    whole = network.prefixlen == network.max_prefixlen
    mask = () if whole else (_masked(network.netmask.packed, bytes(size)),)
    text = f"{keyword} {field} {network.network_address if whole else network}"
    return Statement(
        text,
        (
            *_family(family),
            where,
            *mask,
            _compare(network.network_address.packed),
        ),
    )


def marked(mark: int) -> Statement:
    return Statement(f"meta mark 0x{mark:08x}", (_load("meta", key=META_MARK), _compare(struct.pack("=I", mark))))


def connection_marked(mark: int) -> Statement:
    return Statement(f"ct mark 0x{mark:08x}", (_load("ct", key=CT_MARK), _compare(struct.pack("=I", mark))))


def with_mark(mark: int) -> Statement:
    return Statement(f"meta mark set 0x{mark:08x}", (_number(mark), _store("meta", META_MARK)))


def connection_with_mark(mark: int) -> Statement:
    return Statement(f"ct mark set 0x{mark:08x}", (_number(mark), _store("ct", CT_MARK)))


def _number(value: int) -> tuple[str, dict[str, Value]]:
    return "immediate", {"dreg": NFT_REG_1, "data": {"attrs": [("NFTA_DATA_VALUE", struct.pack("=I", value))]}}


def _store(name: str, key: int) -> tuple[str, dict[str, Value]]:
    return name, {"sreg": NFT_REG_1, "key": key}


FROM_LOOPBACK = Statement('iifname "lo"', (_load("meta", key=META_IIFNAME), _compare(b"lo".ljust(IFNAMSIZ, b"\0"))))
ACCEPT_PACKET = verdict("accept", ACCEPT)
COUNTER = Statement("counter", (("counter", {}),))
_OFFLOAD = struct.pack("=I", OFFLOAD_MARK)
_NOT_OFFLOAD = struct.pack("=I", OFFLOAD_MARK ^ 0xFFFFFFFF)
#: Masks for clearing and setting the mark's bit, in the host's byte order: x & ~bit, and ((x & ~bit) ^ bit), which is x
#: | bit.
_CLEAR, _SET = (_masked(_NOT_OFFLOAD, bytes(4)), _masked(_NOT_OFFLOAD, _OFFLOAD))


def _flags(text: str, mask: int, value: int, operator: int = CMP_EQ) -> Statement:
    protocol = (_load("meta", key=META_L4PROTO), _compare(b"\x06"))
    where = _load("payload", base=PAYLOAD_TRANSPORT, offset=TCP_FLAGS_AT, len=1)
    return Statement(
        f"tcp flags & {text}", (*protocol, where, _masked(bytes([mask]), bytes(1)), _compare(bytes([value]), operator))
    )


#: TCP flags of a packet that begins or ends a connection, or may do so.
_ENDS = TCP_FIN | TCP_SYN | TCP_RST
IN_BETWEEN = _flags("(fin | syn | rst) == 0", _ENDS, 0)
BEGINS_OR_ENDS = _flags("(fin | syn | rst) != 0", _ENDS, 0, CMP_NEQ)
CONNECTION_OFFLOADED = Statement(
    f"ct mark & 0x{OFFLOAD_MARK:08x} == 0x{OFFLOAD_MARK:08x}",
    (_load("ct", key=CT_MARK), _masked(_OFFLOAD, bytes(4)), _compare(_OFFLOAD)),
)
PACKET_OFFLOADS = Statement(
    f"meta mark & 0x{OFFLOAD_MARK:08x} == 0x{OFFLOAD_MARK:08x}",
    (_load("meta", key=META_MARK), _masked(_OFFLOAD, bytes(4)), _compare(_OFFLOAD)),
)
OFFLOAD_CONNECTION = Statement(
    f"ct mark set ct mark | 0x{OFFLOAD_MARK:08x}", (_load("ct", key=CT_MARK), _SET, _store("ct", CT_MARK))
)
INSPECT_CONNECTION = Statement(
    f"ct mark set ct mark & 0x{OFFLOAD_MARK ^ 0xFFFFFFFF:08x}",
    (_load("ct", key=CT_MARK), _CLEAR, _store("ct", CT_MARK)),
)
UNMARK_PACKET = Statement(
    f"meta mark set meta mark & 0x{OFFLOAD_MARK ^ 0xFFFFFFFF:08x}",
    (_load("meta", key=META_MARK), _CLEAR, _store("meta", META_MARK)),
)
#: Conditions that match the first fragment of an IP packet, the only one that has the ports (RFC 791 3.1, RFC 8200
#: 4.5).
FIRST_PARTS = (
    Statement(
        "ip frag-off & 16383 != 0",
        (
            *_family(NFPROTO_IPV4),
            _load("payload", base=PAYLOAD_NETWORK, offset=6, len=2),
            _masked(b"\x3f\xff", bytes(2)),
            _compare(bytes(2), CMP_NEQ),
        ),
    ),
    Statement(
        "frag more-fragments 1",
        (
            *_family(NFPROTO_IPV6),
            _load("exthdr", type=IPPROTO_FRAGMENT, offset=3, len=1),
            _masked(b"\x01", bytes(1)),
            _compare(b"\x01"),
        ),
    ),
)
INVALID = Statement(
    "ct state invalid",
    (
        _load("ct", key=CT_STATE),
        _masked(struct.pack("=I", CT_STATE_INVALID), bytes(4)),
        _compare(bytes(4), CMP_NEQ),
    ),
)
NEW = Statement(
    "ct state new",
    (_load("ct", key=CT_STATE), _masked(struct.pack("=I", CT_STATE_NEW), bytes(4)), _compare(bytes(4), CMP_NEQ)),
)
#: Conditions on the direction of a packet, relative to the first packet of its connection that conntrack saw.
DIRECTIONS = {
    field: Statement(f"ct direction {name}", (_load("ct", key=CT_DIRECTION), _compare(value)))
    for field, name, value in (("dport", "original", ORIGINAL), ("sport", "reply", REPLY))
}
TRANSLATED = Statement(
    "ct status snat,dnat",
    (_load("ct", key=CT_STATUS), _masked(struct.pack("=I", NAT_STATUS), bytes(4)), _compare(bytes(4), CMP_NEQ)),
)
NO_SYN = _flags("(syn | ack) != syn", TCP_SYN | TCP_ACK, TCP_SYN, CMP_NEQ)
BEGINS_IN_ITS_MIDST = with_mark(CONNECTION_MARK)
MARK_BY_CONNECTION = Statement(
    "meta mark set ct id"
    f" meta mark set meta mark & 0x{CONNECTION_MARK_MASK ^ 0xFFFFFFFF | CONNECTION_MARK:08x} | 0x{CONNECTION_MARK:08x}",
    (
        _load("ct", key=CT_ID),
        _store("meta", META_MARK),
        _load("meta", key=META_MARK),
        _masked(struct.pack("=I", CONNECTION_MARK_MASK ^ 0xFFFFFFFF), struct.pack("=I", CONNECTION_MARK)),
        _store("meta", META_MARK),
    ),
)
