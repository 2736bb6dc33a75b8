"""Below TCP: fragments, IPv4 options, IPv6 extension headers, and bytes after a packet's end.

A port rule never sees a later fragment, a parser that does not walk every header sees no TCP, and both ends of a path
may reassemble fragments differently (Ptacek and Newsham; Gont, RFC 7112; Atlasis, "Evading IDS by IPv6 extension
headers", 2014).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from nfmailguard.lab.evasions.technique import EVIL, HARMLESS, Attack, Table
from nfmailguard.lab.rawtcp import RawTcp

__all__ = ["PACKETS"]

PACKETS = Table("packets")
technique = PACKETS.technique

Piece = tuple[int, bytes]


def pieces(octets: bytes, *cuts: int) -> list[Piece]:
    """``octets`` split at multiples of 8, each piece with its offset."""
    edges = [0, *cuts, len(octets)]
    return [(start, octets[start:stop]) for start, stop in pairwise(edges)]


def send_pieces(connection: RawTcp, parts: list[Piece], total: int, *, extensions: Any = None) -> None:
    """Sends parts of the segment noted last, of ``total`` bytes, as fragments, in the order given."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment

    ends, tag = connection.ends, connection.link.next_tag()
    # The fragments, and so the reassembled packet, carry this tag as their IP identification.
    connection.sent[tag] = connection.sent.popitem()[1]
    for place, octets in parts:
        more = place + len(octets) < total
        packet: Any
        if ends.family == 4:
            packet = IP(
                src=ends.source, dst=ends.destination, id=tag, proto=6, frag=place // 8, flags="MF" if more else 0
            )
        else:
            packet = IPv6(src=ends.source, dst=ends.destination, fl=tag)
            packet = packet / extensions if extensions is not None else packet
            packet /= IPv6ExtHdrFragment(offset=place // 8, m=int(more), id=tag, nh=6)
        connection.link.send(bytes(packet / octets))


def tcp_octets(connection: RawTcp, payload: bytes) -> bytes:
    """The TCP segment that carries ``payload`` here, with its checksum; it is recorded as sent."""
    packet = connection.segment(payload)
    start = connection.here
    octets = bytes(packet)[20 if connection.ends.family == 4 else 40 :]
    connection.note(packet, payload, start)
    return octets


@technique("fragments-tiny", "a first fragment of 8 octets: ports, but no flags (RFC 1858 3)")
def fragments_tiny(attack: Attack) -> None:
    connection = attack.session()
    octets = tcp_octets(connection, EVIL)
    send_pieces(connection, pieces(octets, 8, 16, 24), len(octets))


@technique("fragments-backwards", "the last fragment first, so that the one with the ports comes last")
def fragments_backwards(attack: Attack) -> None:
    connection = attack.session()
    octets = tcp_octets(connection, EVIL)
    send_pieces(connection, pieces(octets, 8, 24)[::-1], len(octets))


@technique("fragments-overlap", "two fragments overlap: one says NOOP there, one TURN (Ptacek-Newsham; RFC 5722)")
def fragments_overlap(attack: Attack) -> None:
    connection = attack.session()
    octets = tcp_octets(connection, b"    " + EVIL)
    clean = octets.replace(EVIL[:4], HARMLESS[:4])
    send_pieces(connection, [(0, clean[:32]), (24, octets[24:])], len(octets))


@technique("fragments-twice", "the same fragment twice, other content the second time, before the last one")
def fragments_twice(attack: Attack) -> None:
    connection = attack.session()
    octets = tcp_octets(connection, b"    " + EVIL)
    clean = octets.replace(EVIL[:4], HARMLESS[:4])
    first, middle, last = pieces(octets, 24, 32)
    send_pieces(connection, [(24, clean[24:32]), middle, first, last], len(octets))


@technique("fragments-ports", "a second first fragment with the ports of another service, before the real one")
def fragments_ports(attack: Attack) -> None:
    connection = attack.session()
    octets = tcp_octets(connection, EVIL)
    first, rest = pieces(octets, 8)
    other = (0, (9999).to_bytes(2, "big") * 2 + first[1][4:])
    send_pieces(connection, [other, first, rest], len(octets))


@technique("fragments-ports-rewritten", "fragments to another port; the next one rewrites the ports (RFC 1858 4)")
def fragments_ports_rewritten(attack: Attack) -> None:
    connection = attack.session()
    octets = tcp_octets(connection, EVIL)
    disguised = octets[:2] + (80).to_bytes(2, "big") + octets[4:]
    send_pieces(connection, [(0, disguised[:16]), (0, octets[:16]), (16, octets[16:])], len(octets))


@technique("fragment-atomic", "an IPv6 fragment that is whole (RFC 6946)", families=(6,))
def fragment_atomic(attack: Attack) -> None:
    connection = attack.session()
    octets = tcp_octets(connection, EVIL)
    send_pieces(connection, [(0, octets)], len(octets))


@technique("fragments-behind-options", "fragments whose header stands behind destination options", families=(6,))
def fragments_behind_options(attack: Attack) -> None:
    from scapy.layers.inet6 import IPv6ExtHdrDestOpt, PadN

    connection = attack.session()
    octets = tcp_octets(connection, EVIL)
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    send_pieces(connection, pieces(octets, 8), len(octets), extensions=options)


@technique("ipv4-options", "IPv4 options, up to the 40 octets there can be, before the TCP header", families=(4,))
def ipv4_options(attack: Attack) -> None:
    from scapy.layers.inet import IPOption_NOP, IPOption_RR

    for options in ([IPOption_NOP()] * 4, [IPOption_NOP()] * 40, [IPOption_RR(routers=["0.0.0.0"] * 3)]):
        connection = attack.session()
        connection.put(EVIL, ip_options=options)


@technique("ipv6-hop-by-hop", "a hop-by-hop header before TCP (RFC 8200 4.3)", families=(6,))
def ipv6_hop_by_hop(attack: Attack) -> None:
    from scapy.layers.inet6 import IPv6ExtHdrHopByHop, PadN

    connection = attack.session()
    connection.put(EVIL, extensions=IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]))


@technique("ipv6-destination-options", "destination options before TCP, short and long", families=(6,))
def ipv6_destination_options(attack: Attack) -> None:
    from scapy.layers.inet6 import IPv6ExtHdrDestOpt, PadN

    for size in (4, 252):
        connection = attack.session()
        connection.put(EVIL, extensions=IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * size)]))


@technique("ipv6-many-headers", "a chain of 1, 8 and 100 extension headers before TCP (RFC 7112)", families=(6,))
def ipv6_many_headers(attack: Attack) -> None:
    from scapy.layers.inet6 import IPv6ExtHdrDestOpt, PadN

    for count in (1, 8, 100):
        connection = attack.session()
        chain = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
        for _ in range(count - 1):
            chain = chain / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
        connection.put(EVIL, extensions=chain)


@technique("ipv6-routing", "a routing header with no segment left before TCP (RFC 8200 4.4)", families=(6,))
def ipv6_routing(attack: Attack) -> None:
    from scapy.layers.inet6 import IPv6ExtHdrRouting

    for kind in (0, 2, 4):
        connection = attack.session()
        connection.put(EVIL, extensions=IPv6ExtHdrRouting(type=kind, addresses=[], segleft=0))


@technique("ipv6-unknown-header", "extension headers that port rules do not walk: 135, 139, 140, 253", families=(6,))
def ipv6_unknown_header(attack: Attack) -> None:
    from scapy.layers.inet6 import IPv6ExtHdrDestOpt, PadN

    for kind in (135, 139, 140, 253):
        connection = attack.session()
        packet = connection.segment(EVIL, extensions=IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]))
        packet.nh = kind
        connection.note(packet, EVIL, connection.here)
        attack.link.send(bytes(packet))


@technique("behind-the-packet", "the command stands behind the IP packet's end, in the frame's padding")
def behind_the_packet(attack: Attack) -> None:
    connection = attack.session()
    start = connection.here
    packet = connection.segment(HARMLESS)
    connection.note(packet, HARMLESS, start)
    attack.link.send(bytes(packet), trailer=EVIL)
    attack.wait(0.05)
    connection.put(EVIL)
