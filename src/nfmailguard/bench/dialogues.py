"""Generated traffic for measuring: whole connections as IPv4 packets with checksums.

Promises: the same packets every time; each connection begins with its SYN and ends with both FINs, so that it can be
replayed. Does not know who is measured.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nfmailguard.queues.checksums import internet_checksum

__all__ = ["Packet", "Side", "captures", "octets", "prose", "rounds", "write_pcap"]

#: A packet: its bytes from the IP header on, and whether it goes to the server.
Packet = tuple[bytes, bool]

FIN, SYN, PSH, ACK = 0x01, 0x02, 0x08, 0x10
SERVER, PORT = 0x0A190202, 25
CLIENT_ISN, SERVER_ISN = 1000, 5000
#: Bytes of a sender's super-packet (GSO), and of each of its twenty segments.
SUPER, SEGMENT = 28_960, 1448
SESSIONS = 2000

GREETING = (False, b"220 mail2.example.com ESMTP\r\n")
ENVELOPE = (
    (True, b"HELO client.example.net\r\n"),
    (False, b"250 mail2.example.com\r\n"),
    (True, b"MAIL FROM:<a@example.net>\r\n"),
    (False, b"250 ok\r\n"),
    (True, b"RCPT TO:<b@example.com>\r\n"),
    (False, b"250 ok\r\n"),
    (True, b"DATA\r\n"),
    (False, b"354 go\r\n"),
)
END = ((False, b"250 queued\r\n"), (True, b"QUIT\r\n"), (False, b"221 bye\r\n"))


def prose(size: int) -> bytes:
    """Message text with a header: lines of words, a full stop now and then, none at a line's beginning."""
    chance = random.Random(1)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randint(1, 10))) for _ in range(1000)]
    words += [word + b"." for word in words[:90]]
    head = b"From: a@example.net\r\nTo: b@example.com\r\nSubject: bulk\r\n\r\n"
    block = b"".join(b" ".join(chance.choices(words, k=12)) + b"\r\n" for _ in range(1000))
    text = (head + block * (size // len(block) + 1))[: max(size - 2, len(head))]
    return text.removesuffix(b"\r") + b"\r\n"


class Side:
    """One connection; builds both sides' packets and keeps track of both sides' sequence numbers."""

    def __init__(self, client: int = 0, port: int = 0) -> None:
        self._client = (client, port)
        self._seq = {True: CLIENT_ISN, False: SERVER_ISN}

    def packet(self, to_server: bool, flags: int, payload: bytes = b"") -> Packet:
        """The next packet of a side."""
        ends = (self._client, (SERVER, PORT)) if to_server else ((SERVER, PORT), self._client)
        (source, sport), (destination, dport) = ends
        seq, ack = self._seq[to_server], self._seq[not to_server] if flags & ACK else 0
        tcp = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 65535, 0, 0) + payload
        pseudo = struct.pack("!IIHH", source, destination, 6, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", internet_checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0, source, destination)
        self._seq[to_server] += len(payload) + bool(flags & (SYN | FIN))
        return ip[:10] + struct.pack("!H", internet_checksum(ip)) + ip[12:] + tcp, to_server

    def opening(self) -> list[Packet]:
        """The handshake."""
        return [self.packet(True, SYN), self.packet(False, SYN | ACK), self.packet(True, ACK)]

    def closing(self) -> list[Packet]:
        """Both FINs."""
        return [self.packet(True, FIN | ACK), self.packet(False, FIN | ACK), self.packet(True, ACK)]

    def says(self, lines: Iterable[tuple[bool, bytes]], cut: int = 1 << 16) -> Iterator[Packet]:
        """The given lines in packets of at most ``cut`` bytes."""
        for to_server, octets in lines:
            for at in range(0, len(octets), cut):
                yield self.packet(to_server, PSH | ACK, octets[at : at + cut])


def _session(number: int, lines: Sequence[tuple[bool, bytes]], cut: int = 1 << 16) -> list[Packet]:
    side = Side(0xC6120000 + number, 40_000)
    return [*side.opening(), *side.says([GREETING, *lines], cut), *side.closing()]


def _sessions(lines: Sequence[tuple[bool, bytes]], count: int, cut: int = 1 << 16) -> list[Packet]:
    return [packet for number in range(count) for packet in _session(number, lines, cut)]


def mails(count: int, size: int, cut: int = SEGMENT) -> list[Packet]:
    """So many connections with one mail of so many bytes each."""
    return _sessions([*ENVELOPE, (True, prose(size) + b".\r\n"), *END], count, cut)


def _bulk(swapped: bool = False) -> list[Packet]:
    side = Side(0xC6120000, 40_000)
    text = prose(12_000_000)
    packets = [*side.opening(), *side.says([GREETING, *ENVELOPE])]
    parts = [text[at : at + SUPER] for at in range(0, len(text), SUPER)]
    for first in range(0, len(parts), 2):
        # Packets are sent in pairs, each pair acknowledged; with `swapped` the second packet of a pair comes first.
        pair = [side.packet(True, ACK, part) for part in parts[first : first + 2]]
        packets += [*(reversed(pair) if swapped else pair), side.packet(False, ACK)]
    return [*packets, *side.says([(True, b".\r\n"), *END]), *side.closing()]


def _refused(verb: bytes) -> list[Packet]:
    command = (True, verb + b" someone\r\n")
    return _sessions([*ENVELOPE[:2], *[command, (False, b"250 ok\r\n")] * 40, *END[1:]], SESSIONS // 4)


def captures() -> dict[str, list[Packet]]:
    """The captures of ``bench engine``, by name."""
    return {
        "commands": mails(SESSIONS, 1200, 1 << 16),
        "bulk": _bulk(),
        "allowed in every packet": _refused(b"NOOP"),
        "denied in every packet": _refused(b"EXPN"),
        "octet by octet": mails(SESSIONS // 40, 1200, 1),
        "out of order": _bulk(swapped=True),
    }


def rounds(count: int) -> tuple[list[Packet], list[list[Packet]]]:
    """For ``Drill.spread``: how a connection opens, and ``count`` commands with reply and ACK."""
    side = Side()
    opening = [*side.opening(), *side.says([GREETING]), side.packet(True, ACK)]
    turns = [[*side.says([(True, b"NOOP\r\n"), (False, b"250 ok\r\n")]), side.packet(True, ACK)] for _ in range(count)]
    return opening, turns


def octets(packets: Sequence[Packet]) -> int:
    return sum(len(packet) for packet, _ in packets)


def write_pcap(packets: Sequence[Packet], path: Path) -> None:
    """Writes a capture of raw IP, with one packet per microsecond."""
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 101))
        for number, (packet, _) in enumerate(packets):
            seconds, micro = divmod(1_700_000_000_000_000 + number, 1_000_000)
            file.write(struct.pack("=IIII", seconds, micro, len(packet), len(packet)))
            file.write(packet)
