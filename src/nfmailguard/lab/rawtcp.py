"""A TCP endpoint without a kernel: the caller chooses every byte of every packet.

Promises: what ``Link`` reads is what the interface received, and no kernel answers for the endpoint, because its
address belongs to no host. Each packet sent carries a tag of its own (the IPv4 identification, the IPv6 flow label)
that a router keeps, so the packet can be recognised after a router. Does not know SMTP, and never retransmits by
itself.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["ACK", "FIN", "PSH", "RST", "SYN", "URG", "Ends", "Link", "RawTcp", "Seen", "Sent", "build", "parse"]

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
MODULUS = 1 << 32
MTU = 1500
ETH_P_ALL, ETH_P_IPV4, ETH_P_IPV6 = 3, 0x0800, 0x86DD
SO_RCVBUFFORCE = 33
PACKET_OUTGOING = 4
MOST_PATIENCE = 5.0  # Seconds to keep trying to send while the machine has no buffer for a frame.
#: Matches the TCP timestamp option as Linux writes it; the group is the sender's timestamp.
TIMESTAMP = re.compile(rb"\x08\x0a(.{4})", re.DOTALL)
COMPLETE_REPLY = re.compile(rb"(?:^|\n)\d{3}(?: [^\n]*)?\r?\n$")


class Ends(NamedTuple):
    """The addresses of both ends of a connection, and the ports; ours first."""

    source: str
    destination: str
    port: int
    destination_port: int = 25

    @property
    def family(self) -> int:
        return ipaddress.ip_address(self.source).version

    def turned(self) -> Ends:
        """The same as seen from the other end."""
        return Ends(self.destination, self.source, self.destination_port, self.port)


class Seen(NamedTuple):
    """One TCP packet as it was on a link."""

    tag: int
    ends: Ends
    seq: int
    ack: int
    flags: int
    window: int
    payload: bytes
    options: bytes = b""
    outgoing: bool = False


def _transport(packet: bytes) -> tuple[int, int]:
    # Returns the protocol and the offset after IPv6's extension headers (RFC 8200 4); a fragment has no protocol here.
    kind, at = packet[6], 40
    while kind in (0, 43, 60) and at + 2 <= len(packet):
        kind, at = packet[at], at + 8 * (packet[at + 1] + 1)
    return kind, at


def parse(packet: bytes, *, outgoing: bool = False) -> Seen | None:
    """``packet`` (it begins with the IP header) as TCP; None if it is no TCP packet, a fragment, or truncated."""
    if len(packet) < 40:
        return None
    if packet[0] >> 4 == 4:
        tag, length = struct.unpack_from("!H", packet, 4)[0], struct.unpack_from("!H", packet, 2)[0]
        kind, at = packet[9], (packet[0] & 15) * 4
        if struct.unpack_from("!H", packet, 6)[0] & 0x3FFF:
            return None
        source, destination = socket.inet_ntop(2, packet[12:16]), socket.inet_ntop(2, packet[16:20])
    else:
        tag = struct.unpack_from("!I", packet)[0] & 0xFFFFF
        length = 40 + struct.unpack_from("!H", packet, 4)[0]
        kind, at = _transport(packet)
        source = socket.inet_ntop(socket.AF_INET6, packet[8:24])
        destination = socket.inet_ntop(socket.AF_INET6, packet[24:40])
    if kind != socket.IPPROTO_TCP or len(packet) < at + 20 or length > len(packet):
        return None
    port, other, seq, ack, offset, flags, window = struct.unpack_from("!HHIIBBH", packet, at)
    data = at + (offset >> 4) * 4
    payload, options = packet[data:length], packet[at + 20 : data]
    return Seen(tag, Ends(source, destination, port, other), seq, ack, flags, window, payload, options, outgoing)


def build(
    ends: Ends,
    tag: int,
    payload: bytes = b"",
    *,
    ttl: int = 64,
    ip_options: Any = None,
    extensions: Any = None,
    **fields: Any,
) -> Any:
    """A scapy packet. ``fields`` are scapy's of the TCP header: flags, seq, ack, window, urgptr, chksum, options...

    ``extensions``: a scapy layer (or several) between IPv6 and TCP. ``ip_options``: IPv4's.
    """
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6

    tcp = TCP(sport=ends.port, dport=ends.destination_port, **fields)
    packet: Any
    if ends.family == 4:
        packet = IP(src=ends.source, dst=ends.destination, ttl=ttl, id=tag, options=ip_options or [])
    else:
        packet = IPv6(src=ends.source, dst=ends.destination, hlim=ttl, fl=tag)
        packet = packet / extensions if extensions is not None else packet
    return packet / tcp / payload if payload else packet / tcp


class Link:
    """One interface of this network namespace, used below the kernel's IP layer; made inside the namespace.

    ``router``: the hardware address everything is sent to. Without it, it only listens.
    """

    def __init__(self, interface: str, router: str | None = None) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        # A receive buffer larger than the system's limit needs privilege; without it the default is used.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)
        own: bytes = self._socket.getsockname()[4]
        self._header = bytes.fromhex((router or "00" * 6).replace(":", "")) + own
        self._tag = 0
        #: Packets sent with a forged source address, as (tag, sequence number): when they come back they are not taken
        #: for the peer's.
        self.forged: set[tuple[int, int]] = set()
        self.connections: dict[int, RawTcp] = {}

    def next_tag(self) -> int:
        """A number that no packet of this link had before (among the last 65,535)."""
        self._tag = self._tag % 0xFFFF + 1
        return self._tag

    def send(self, packet: bytes, trailer: bytes = b"") -> None:
        """Sends an IP packet as it is, padded to Ethernet's minimum and followed by ``trailer``."""
        kind = ETH_P_IPV4 if packet[0] >> 4 == 4 else ETH_P_IPV6
        frame = self._header + struct.pack("!H", kind) + packet + trailer
        patience = time.monotonic() + MOST_PATIENCE
        while True:
            try:
                self._socket.send(frame)
            except OSError as error:
                # The device's queue is full on a busy machine: the frame was not sent, so it is tried again.
                if error.errno not in (errno.ENOBUFS, errno.EAGAIN) or time.monotonic() > patience:
                    raise
                time.sleep(0.001)
            else:
                return

    def read(self, timeout: float = 0.0) -> Iterator[Seen]:
        """The TCP packets since the last call; waits up to ``timeout`` seconds for a first one."""
        if timeout and not select.select([self._socket], [], [], timeout)[0]:
            return
        while True:
            try:
                frame, where = self._socket.recvfrom(1 << 17)
            except BlockingIOError:
                return
            seen = parse(frame[14:], outgoing=where[2] == PACKET_OUTGOING)
            if seen is not None:
                yield seen

    def dispatch(self, timeout: float) -> bool:
        """Passes incoming packets to the connections; False when nothing came within ``timeout`` seconds."""
        came = False
        for seen in self.read(timeout):
            connection = self.connections.get(seen.ends.destination_port)
            if seen.outgoing or (seen.tag, seen.seq) in self.forged:
                continue
            if connection is not None and seen.ends.destination == connection.ends.source:
                came = True
                connection.arrived(seen)
        return came

    def close(self) -> None:
        self._socket.close()


class Sent(NamedTuple):
    """A segment that was sent: its place, its payload, and the packet (None: no whole TCP packet)."""

    place: int
    payload: bytes
    packet: Seen | None


@dataclass
class RawTcp:
    """One connection. Positions in its stream (``at``, ``here``) count bytes from 0, after the SYN.

    ``here`` is where the next byte goes. ``timestamps``: every segment carries the option of RFC 7323. ``window`` is
    what we advertise. ``acknowledges``: ``read`` acknowledges what has come; otherwise the caller decides.
    """

    link: Link
    ends: Ends
    isn: int = 1_000_000
    timestamps: bool = False
    window: int = 65535
    acknowledges: bool = True
    here: int = 0
    peer_next: int = 0
    acknowledged: int = 0
    clock: int = 5_000_000
    #: The peer's latest TCP timestamp value, to be echoed.
    peer_clock: int = 0
    established: bool = False
    reset: bool = False
    #: The peer's FIN has arrived in order: it will send no more data.
    peer_closed: bool = False
    text: bytes = b""
    #: heard: all bytes that arrived in order. heard_last: the byte that arrived last at each stream position, as a
    #: retransmission may carry other data.
    heard: bytearray = field(default_factory=bytearray)
    heard_last: dict[int, int] = field(default_factory=dict)
    peer_isn: int = 0
    #: The TCP options of the peer's SYN, as they arrived.
    peer_options: bytes = b""
    #: The segments sent, by the tag in their IP header.
    sent: dict[int, Sent] = field(default_factory=dict)
    #: Stream position -> the byte last sent there.
    latest: dict[int, int] = field(default_factory=dict)
    resets_sent: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.link.connections[self.ends.port] = self

    # Section: sending segments.

    def sequence(self, at: int) -> int:
        """The sequence number of a position."""
        return (self.isn + 1 + at) % MODULUS

    def segment(self, payload: bytes = b"", at: int | None = None, flags: int = PSH | ACK, **fields: Any) -> Any:
        """A scapy packet at a position; nothing is sent. ``fields``: those of ``build``."""
        options = list(fields.pop("options", ()))
        if self.timestamps and not any(name == "Timestamp" for name, *_ in options):
            options += [("NOP", None), ("NOP", None), ("Timestamp", (self.clock, self.peer_clock))]
        given = {
            "seq": self.sequence(self.here if at is None else at),
            "ack": self.peer_next,
            "window": self.window,
            "options": options,
            **fields,
        }
        return build(self.ends, self.link.next_tag(), payload, flags=flags, **given)

    def put(self, payload: bytes = b"", at: int | None = None, flags: int = PSH | ACK, **fields: Any) -> None:
        """Sends one segment, at ``here`` unless ``at`` is given; afterwards ``here`` is after the
        farthest byte sent.
        """
        place = self.here if at is None else at
        packet = self.segment(payload, place, flags, **fields)
        self.note(packet, payload, place, flags)
        self.link.send(bytes(packet))

    def stray(self, payload: bytes = b"", at: int | None = None, flags: int = PSH | ACK, **fields: Any) -> None:
        """Sends a segment that is not recorded as sent: it does not affect ``here`` and ``put_again``."""
        place = self.here if at is None else at
        packet = self.segment(payload, place, flags, **fields)
        self.sent[self.tag_of(packet)] = Sent(place, payload, parse(bytes(packet)))
        if flags & RST:
            self.resets_sent.add(self.sequence(place))
        self.link.send(bytes(packet))

    def tag_of(self, packet: Any) -> int:
        """The tag of a packet that ``segment`` made."""
        return int(packet.id if self.ends.family == 4 else packet.fl)

    def note(self, packet: Any, payload: bytes, at: int, flags: int = PSH | ACK) -> None:
        """Records a packet that the caller sends itself, as ``put`` does with its own."""
        self.sent[self.tag_of(packet)] = Sent(at, payload, parse(bytes(packet)))
        if payload:
            self.latest.update(zip(range(at, at + len(payload)), payload, strict=True))
        self.here = max(self.here, at + len(payload))
        self.clock += 1
        if flags & RST:
            self.resets_sent.add(self.sequence(at))

    def put_each(self, payload: bytes, size: int = 1, *, backwards: bool = False, **fields: Any) -> None:
        """Sends ``payload`` from ``here`` on in segments of ``size`` bytes, in order or in reverse order."""
        start = self.here
        places = range(0, len(payload), size)
        for place in reversed(places) if backwards else places:
            self.put(payload[place : place + size], start + place, **fields)

    def put_again(self) -> bool:
        """Retransmits what the peer has not acknowledged, each byte as it was sent last; False: there was nothing."""
        start = (self.acknowledged - self.isn - 1) % MODULUS if self.established else 0
        octets = bytearray()
        for place in range(start, self.here):
            if place not in self.latest or len(octets) >= MTU - 200:
                break
            octets.append(self.latest[place])
        if octets:
            self.put(bytes(octets), start)
        return bool(octets)

    # Section: receiving segments.

    def arrived(self, seen: Seen) -> None:
        """Processes one packet from the peer."""
        if self.timestamps and (stamp := TIMESTAMP.search(seen.options)):
            self.peer_clock = int.from_bytes(stamp[1], "big")
        if seen.flags & RST:
            self.reset = True
            return
        if seen.flags & SYN:
            if not self.established:
                self.peer_isn, self.peer_options = seen.seq, seen.options
                self.peer_next = (seen.seq + 1) % MODULUS
                self.acknowledged = seen.ack
                self.established = True
            return
        if self.established and (seen.ack - self.acknowledged) % MODULUS < MODULUS // 2:
            self.acknowledged = seen.ack
        place = (seen.seq - self.peer_isn - 1) % MODULUS
        self.heard_last.update(zip(range(place, place + len(seen.payload)), seen.payload, strict=True))
        old = (self.peer_next - seen.seq) % MODULUS
        if old <= len(seen.payload) and (seen.payload or seen.flags & FIN):
            fresh = seen.payload[old:]
            self.text += fresh
            self.heard += fresh
            self.peer_closed |= bool(seen.flags & FIN)
            self.peer_next = (self.peer_next + len(fresh) + bool(seen.flags & FIN)) % MODULUS
        if self.acknowledges and (seen.payload or seen.flags & FIN):
            self.put(flags=ACK)

    def connect(self, payload: bytes = b"", *, timeout: float = 1.0, **fields: Any) -> bool:
        """Performs the handshake; whether it was answered within ``timeout`` seconds. ``payload`` and ``fields``: the
        SYN's.
        """
        self.put_syn(payload, **fields)
        self.wait(lambda: self.established or self.reset, timeout)
        if self.established:
            self.put(flags=ACK)
        return self.established

    def put_syn(
        self, payload: bytes = b"", *, options: Sequence[tuple[Any, ...]] = (), flags: int = SYN, **fields: Any
    ) -> None:
        """Sends a SYN, whose sequence number is one before the first position, with ``payload`` after it."""
        packet = self.segment(payload, -1, flags, options=[("MSS", 1460), *options], **fields)
        self.note(packet, payload, 0)
        self.link.send(bytes(packet))

    def wait(self, until: Callable[[], object], timeout: float) -> bool:
        """Takes packets until ``until()`` is true; False when ``timeout`` seconds pass first."""
        deadline = time.monotonic() + timeout
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.link.dispatch(left)
        return True

    def read(self, timeout: float = 0.5) -> bytes:
        """What the peer sent since the last ``read``: up to the end of a reply, a reset, or ``timeout`` seconds."""
        self.wait(lambda: COMPLETE_REPLY.search(self.text) or self.reset, timeout)
        said, self.text = self.text, b""
        return said

    def say(self, line: bytes, timeout: float = 0.5) -> bytes:
        """Sends bytes at ``here`` and reads a reply."""
        self.put(line)
        return self.read(timeout)
