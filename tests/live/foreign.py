"""Traffic of every kind that a router forwards, and a witness of what came in and what went out.

Packets are made octet by octet: no kernel at either end puts anything right. Both ends are hosts that
are not there (``SILENT``), so that nobody answers.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from pyroute2 import IPRoute
from queue_router import Router

#: Client's and server's side, by IP version.
SILENT = {4: ("10.99.1.77", "10.99.2.77"), 6: ("fd99:1::77", "fd99:2::77")}
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, 0x0800, 0x86DD
OUTGOING = 4
ICMP, TCP, UDP, GRE, ESP, ICMPV6, OPTIONS, SCTP = 1, 6, 17, 47, 50, 58, 60, 132
FRAGMENT_HEADER, NOTHING, EXPERIMENTAL = 44, 59, 253
SYN, ACK, FIN, RST, PSH, URG = 2, 16, 1, 4, 8, 32


class Sent(NamedTuple):
    """A packet and its direction."""

    to_server: bool
    octets: bytes


def checksum(octets: bytes) -> int:
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets[: len(octets) & ~1]))
    total += octets[-1] << 8 if len(octets) & 1 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class Ends:
    """Packets of one IP version in one direction."""

    def __init__(self, version: int, to_server: bool) -> None:
        self.version, self.to_server = version, to_server
        client, server = SILENT[version]
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self.source, self.target = (
            socket.inet_pton(family, text) for text in ((client, server) if to_server else (server, client))
        )

    def ip(self, protocol: int, body: bytes, *, ident: int = 1, flags: int = 0, options: bytes = b"") -> Sent:
        """``flags``: IPv4's flags and fragment offset."""
        if self.version == 6:
            header = struct.pack("!IHBB", 0x6000_0000, len(body), protocol, 63) + self.source + self.target
            return Sent(self.to_server, header + body)
        size = 20 + len(options)
        header = struct.pack("!BBHHHBBH", 0x40 | size >> 2, 3, size + len(body), ident, flags, 63, protocol, 0)
        header += self.source + self.target + options
        return Sent(self.to_server, header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body)

    def pieces(self, protocol: int, body: bytes, ident: int, size: int = 64) -> list[Sent]:
        """The packet in fragments of ``size`` octets."""
        found = []
        for at in range(0, len(body), size):
            part, more = body[at : at + size], at + size < len(body)
            if self.version == 4:
                found.append(self.ip(protocol, part, ident=ident, flags=(0x2000 if more else 0) | at >> 3))
            else:
                found.append(self.ip(FRAGMENT_HEADER, struct.pack("!BBHI", protocol, 0, at | more, ident) + part))
        return found

    def summed(self, protocol: int, body: bytes, at: int) -> bytes:
        pseudo = self.source + self.target + struct.pack("!II", len(body), protocol)
        return body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]

    def udp(self, ports: tuple[int, int], data: bytes, *, wrong: int | None = None) -> bytes:
        header = struct.pack("!HHHH", *ports, 8 + len(data), 0 if wrong is None else wrong)
        return self.summed(UDP, header + data, 6) if wrong is None else header + data

    def tcp(
        self,
        ports: tuple[int, int],
        flags: int,
        *,
        seq: int = 1000,
        ack: int = 0,
        data: bytes = b"",
        options: bytes = b"",
        offset: int | None = None,
        wrong: bool = False,
    ) -> bytes:
        words = 5 + len(options) // 4 if offset is None else offset
        header = struct.pack("!HHIIBBHHH", *ports, seq, ack, words << 4, flags, 8192, 0, 0)
        segment = self.summed(TCP, header + options + data, 16)
        return segment[:16] + bytes([segment[16] ^ wrong]) + segment[17:]

    def echo(self, data: bytes) -> tuple[int, bytes]:
        if self.version == 6:
            return ICMPV6, self.summed(ICMPV6, struct.pack("!BBHHH", 128, 0, 0, 7, 1) + data, 2)
        body = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + data
        return ICMP, body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def whole_and_in_parts(ends: Ends) -> Iterator[Sent]:
    """Every protocol, whole, in fragments in and out of order, overlapping, and fragments that are alone."""
    ports = (5000, 5353)
    bodies = [
        (UDP, ends.udp(ports, b"x" * 200)),
        ends.echo(b"e" * 200),
        (SCTP, struct.pack("!HHII", 6000, 6001, 0, 0) + struct.pack("!BBHIIHHI", 1, 0, 20, 9, 9, 1, 1, 9) + b"s" * 200),
        (TCP, ends.tcp((4000, 8080), PSH | ACK, ack=1, data=b"t" * 200)),
        (TCP, ends.tcp((4001, 25), PSH | ACK, ack=1, data=b"m" * 200)),
        (TCP, ends.tcp((25, 4002), PSH | ACK, ack=1, data=b"r" * 200)),
        (GRE, struct.pack("!HH", 0, 0x0800) + b"g" * 200),
        (ESP, struct.pack("!II", 77, 1) + b"p" * 200),
        (EXPERIMENTAL, b"q" * 200),
    ]
    for number, (protocol, body) in enumerate(bodies):
        ident = 100 + 10 * number + ends.version
        yield ends.ip(protocol, body, ident=ident)
        parts = ends.pieces(protocol, body, ident + 1)
        yield from parts
        yield from reversed(ends.pieces(protocol, body, ident + 2))
        yield from (ends.pieces(protocol, body, ident + 3)[place] for place in (0, 0, 1, 3))
        yield ends.pieces(protocol, body, ident + 4)[0]
        yield ends.pieces(protocol, body, ident + 5)[1]
        yield ends.pieces(protocol, body, ident + 6)[-1]
        overlapping = ends.pieces(protocol, body, ident + 7, 64)[:2] + ends.pieces(protocol, body, ident + 7, 40)[1:]
        yield from overlapping


def odd_segments(ends: Ends) -> Iterator[Sent]:
    """TCP as no TCP sends it, of no connection: on mail's port and on others."""
    for port in (25, 8080):
        ports = (4100, port) if ends.to_server else (port, 4100)
        for flags in (0, SYN | FIN, SYN | RST, FIN | PSH | URG, 0xFF, SYN, SYN | ACK, FIN, RST, ACK, FIN | ACK, URG):
            yield ends.ip(TCP, ends.tcp(ports, flags, data=b"d" * (flags % 5)))
        yield ends.ip(TCP, ends.tcp(ports, ACK, data=b"wrong", wrong=True))
        for options in (b"\x05\x00\x01\x01", b"\x05\x01\x01\x01", b"\x13\xff\x00\x00", b"\xfe\x28\x01\x01"):
            yield ends.ip(TCP, ends.tcp(ports, ACK, data=b"o", options=options))
        yield ends.ip(TCP, ends.tcp(ports, ACK, data=b"md5", options=b"\x13\x12" + bytes(16) + b"\1\1"))
        for offset in (0, 4, 15):
            yield ends.ip(TCP, ends.tcp(ports, ACK, data=b"header", offset=offset))
        for size in (0, 1, 4, 13, 19):
            yield ends.ip(TCP, ends.tcp(ports, ACK)[:size])


def odd_packets(ends: Ends) -> Iterator[Sent]:
    """Headers that few use, and sums that are wrong."""
    ports = (5001, 53)
    yield ends.ip(UDP, ends.udp(ports, b"no sum", wrong=0))
    yield ends.ip(UDP, ends.udp(ports, b"wrong sum", wrong=0x1234))
    yield ends.ip(UDP, ends.udp(ports, b"short")[:6])
    yield ends.ip(UDP, b"")
    for port in (25, 8080):
        segment = ends.tcp((4200, port), ACK, data=b"behind options")
        if ends.version == 4:
            yield ends.ip(TCP, segment, options=b"\x01" * 4)
            yield ends.ip(TCP, segment, flags=0x4000, ident=0)
            yield ends.ip(TCP, segment, flags=0x8000)
        else:
            for before in (0, OPTIONS):
                yield ends.ip(before, bytes([TCP, 0, 1, 4, 0, 0, 0, 0]) + segment)
            yield ends.ip(FRAGMENT_HEADER, struct.pack("!BBHI", TCP, 0, 0, 9) + segment)
            yield ends.ip(NOTHING, segment)
    yield ends.ip(4 if ends.version == 4 else 41, b"\x45" * 40)


def conversation(version: int, port: int) -> Iterator[Sent]:
    """A connection with what its ends would refuse in between."""
    there, back = Ends(version, True), Ends(version, False)
    ports, answer = (4300, port), (port, 4300)

    def say(ends: Ends, flags: int, seq: int, ack: int, data: bytes = b"", **more: bytes) -> Sent:
        return ends.ip(TCP, ends.tcp(ports if ends is there else answer, flags, seq=seq, ack=ack, data=data, **more))

    yield say(there, SYN, 100, 0, b"too early")
    yield say(there, SYN, 100, 0)
    yield say(back, SYN | ACK, 900, 101)
    yield say(back, SYN | ACK, 990, 101)
    yield say(there, ACK, 101, 901)
    yield say(back, ACK | PSH, 901, 101, b"220 mail ESMTP\r\n")
    yield say(there, ACK | PSH, 101, 917, b"EHLO x\r\n")
    yield say(there, ACK | PSH, 101, 917, b"NOOP x\r\n")
    yield say(there, ACK | PSH, 50_000, 917, b"beyond the window\r\n")
    yield say(there, ACK | PSH, 0xFFFF_0000, 917, b"below it\r\n")
    yield say(there, ACK | PSH | URG, 109, 90_000, b"NOOP\r\n")
    yield say(there, ACK | PSH, 115, 917, b"NOOP\r\n", options=b"\x13\x12" + bytes(16) + b"\1\1")
    yield say(there, ACK, 127, 917, b"ahead of its turn")
    yield say(back, ACK | PSH, 917, 109, b"250-mail\r\n250 STARTTLS\r\n")
    yield say(there, RST, 4000, 0)
    yield say(there, SYN, 7777, 0)
    yield say(there, ACK | PSH, 115, 917, b"DATA\r\nRCPT TO:<x@y>\r\n")
    yield say(there, RST | ACK, 137, 942, b"with words")
    yield say(back, FIN | ACK, 942, 137)


def everything() -> list[Sent]:
    found: list[Sent] = []
    for version in (4, 6):
        for to_server in (True, False):
            ends = Ends(version, to_server)
            found += [*whole_and_in_parts(ends), *odd_segments(ends), *odd_packets(ends)]
        for port in (25, 8080):
            found += conversation(version, port)
    return found


def hops(octets: bytes) -> bytes:
    """The packet behind a router: one hop less."""
    if octets[0] >> 4 == 6:
        return octets[:7] + bytes([octets[7] - 1]) + octets[8:]
    size = 4 * (octets[0] & 15)
    header = octets[:8] + bytes([octets[8] - 1, octets[9], 0, 0]) + octets[12:size]
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + octets[size:]


def talk(octets: bytes) -> tuple[bytes, ...]:
    """What keeps its order: the packets of one connection, or of one pair of hosts with fragments, or a protocol."""
    if octets[0] >> 4 == 4:
        at, protocol, ends = 4 * (octets[0] & 15), octets[9], octets[12:20]
        part = bool(struct.unpack_from("!H", octets, 6)[0] & 0x3FFF)
    else:
        at, protocol, ends, part = 40, octets[6], octets[8:40], False
        while protocol in (0, OPTIONS, FRAGMENT_HEADER) and not part:
            part = protocol == FRAGMENT_HEADER and bool(struct.unpack_from("!H", octets, at + 2)[0] & 0xFFF9)
            protocol, at = octets[at], at + 8
    ports = octets[at : at + 4] if protocol in (TCP, UDP, SCTP) else b""
    return ends, bytes([protocol]), b"part" if part else ports


class Witness:
    """Sees what comes in to the gateway, and what it forwards, between the client's and the server's net."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.came: list[Sent] = []
        self.left: list[Sent] = []
        self._sockets: dict[str, socket.socket] = {}

    def __enter__(self) -> Witness:
        def listen(name: str) -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
            made.bind((name, ETH_P_ALL))
            made.setblocking(False)
            return made

        for name in ("veth-c", "veth-s"):
            self._sockets[name] = self.router.run(self.router.gateway, lambda name=name: listen(name))
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets.values():
            one.close()

    def wait(self, quiet: float = 0.5) -> None:
        """Until nothing has come for a while."""
        ends = {one: name for name, one in self._sockets.items()}
        last = time.monotonic()
        while time.monotonic() - last < quiet:
            for one in select.select(list(ends), [], [], 0.05)[0]:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        octets, where = one.recvfrom(70_000)
                        if self._note(octets[14:], ends[one] == "veth-c", where[2] == OUTGOING):
                            last = time.monotonic()

    def _note(self, octets: bytes, at_client: bool, outgoing: bool) -> bool:
        at, size = (12, 4) if octets[0] >> 4 == 4 else (8, 16)
        nets = [octets[place : place + size] for place in (at, at + size)]
        crossing = {net[:3] if size == 4 else net[:4] for net in nets}
        inside = [{b"\x0a\x63\x01", b"\x0a\x63\x02"}, {b"\xfd\x99\x00\x01", b"\xfd\x99\x00\x02"}]
        if crossing not in inside:
            return False  # neighbours finding each other
        to_server = at_client != outgoing
        (self.left if outgoing else self.came).append(Sent(to_server, octets))
        return True


class Sender:
    """Sends packets as they are into the gateway, from either side."""

    def __init__(self, router: Router) -> None:
        self.router = router
        addresses = router.run(router.gateway, lambda: {name: mac(name) for name in ("veth-c", "veth-s")})
        peers = {name: router.run(space, lambda: mac("eth0")) for name, space in self._spaces().items()}
        router.run(router.gateway, lambda: self._neighbours(peers))
        self._sockets = {}
        for name, space in self._spaces().items():
            made = router.run(space, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
            self._sockets[name == "veth-c"] = (made, addresses[name])

    def _spaces(self) -> dict[str, int]:
        return {"veth-c": self.router.client, "veth-s": self.router.server}

    @staticmethod
    def _neighbours(peers: dict[str, bytes]) -> None:
        with IPRoute() as ip:
            for place, name in enumerate(("veth-c", "veth-s")):
                for version in (4, 6):
                    ip.neigh(
                        "add",
                        dst=SILENT[version][place],
                        lladdr=peers[name].hex(":"),
                        ifindex=ip.link_lookup(ifname=name)[0],
                        state=128,  # NUD_PERMANENT
                        family=socket.AF_INET if version == 4 else socket.AF_INET6,
                    )

    def send(self, packet: Sent) -> None:
        link, address = self._sockets[packet.to_server]
        protocol = ETH_P_IP if packet.octets[0] >> 4 == 4 else ETH_P_IPV6
        link.sendto(packet.octets, ("eth0", protocol, 0, 0, address))

    def close(self) -> None:
        for link, _ in self._sockets.values():
            link.close()


def mac(name: str) -> bytes:
    with IPRoute() as ip:
        return bytes.fromhex(ip.link("get", ifname=name)[0].get("address").replace(":", ""))
