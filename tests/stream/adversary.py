"""The adversary: whoever sits on one side of the gateway, and makes packets up.

Promises: besides what every network does, each way round an inspection that the
literature knows (Ptacek and Newsham 1998; Handley, Paxson and Kreibich 2001), with
octets that do harm if they get through. Does not know what is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.stream.books import ACCEPT, DROP, Violation
from tests.stream.network import SECOND, Network
from tests.stream.packets import ACK, FIN, PSH, RST, SYN, URG

EVIL = {
    True: b"\r\nEXPN root\r\nEHLO evil\r\nSTARTTLS\r\n.\r\n",
    False: b"\r\n250-STARTTLS\r\n250 CHUNKING\r\n500 x\r\n220 go\r\n",
}


class Adversary(Network):
    """A network that forges."""

    def forged(self, to_server: bool, start: int, size: int) -> bytes:
        end = self.ends[to_server]
        true = bytes(end.said[max(0, start) : max(0, start + size)]).ljust(size, b"\r")
        kind = self.below(5)
        if kind == 0:
            return (EVIL[to_server] * 4)[:size]
        if kind == 1:
            return EVIL[to_server][2 : 2 + size].ljust(size, b"\n")
        if kind == 2:
            place = self.below(size)
            return true[:place] + bytes([true[place] ^ 0x20]) + true[place + 1 :]
        return true.swapcase() if kind == 3 else bytes(size)

    def contradict(self) -> None:
        """Other octets than the sender's own, over what was sent or ahead of it."""
        to_server = self.side()
        start, size = self.span(to_server)
        if start >= 0:
            self.contradicted = self.wedged = True
            self.send(to_server, start, self.forged(to_server, start, size))

    def keep_alive(self) -> None:
        """RFC 1122 4.2.3.6: an octet of garbage in front of the next one, or none at all."""
        to_server = self.side()
        end = self.ends[to_server]
        start = (end.sent, end.una)[self.below(2)] - 1
        self.contradicted = True
        self.send(to_server, start, (b"\0", b"", b"\n", b"X")[self.below(4)], flags=ACK)

    def probe(self) -> None:
        """One octet into a window that is closed."""
        to_server = self.side()
        end = self.ends[to_server]
        other = self.ends[not to_server]
        self.send(not to_server, other.sent, flags=ACK, window=0)
        self.send(to_server, end.sent, bytes(end.said[end.sent : end.sent + 1]), flags=ACK)

    def lie(self) -> None:
        """Acknowledges what was never sent."""
        to_server = self.side()
        self.wedged = True
        ahead = (1, 2, 40, 2**20, 2**31 - 5)[self.below(5)]
        place = self.books.believed.sides[not to_server].next + ahead
        self.send(to_server, self.ends[to_server].sent, flags=ACK, ack=self.ends[to_server].peer_base + place)

    def finish_early(self) -> None:
        """A FIN in the middle, before or behind what was said."""
        to_server = self.side()
        start, size = self.span(to_server)
        self.wedged = True
        text = bytes(self.ends[to_server].said[max(0, start) : max(0, start) + size]) if self.below(2) else b""
        self.send(to_server, max(0, start), text, flags=FIN | ACK)

    def blind_reset(self) -> None:
        """A RST with a sequence number that no receiver takes, or one that the server never gets."""
        to_server = self.side()
        end = self.ends[to_server]
        start = end.sent + (1, -1, 1000, -1000, 2**30, 0)[self.below(6)]
        fair, self.fair = self.fair, True
        if start in (self.ends[not to_server].have, end.sent):
            return self.lose_reset(to_server, start, fair)
        self.send(to_server, start, flags=RST | ACK, believable=False)
        self.fair = fair
        return None

    def lose_reset(self, to_server: bool, start: int, fair: bool) -> None:
        self.books.give(
            to_server, self.books.tracks[to_server].build(self.ends[to_server].seq(start), 0, RST), start, believable=False
        )
        self.books.out.clear()  # its time to live ran out behind the gateway
        self.fair = fair

    def synchronise(self) -> None:
        """The handshake's packets once more, or a SYN that begins another connection."""
        to_server = self.side()
        flags = SYN if to_server else SYN | ACK
        start = (-1, -1, -2, 5, 100000)[self.below(5)]
        self.send(to_server, start, b"EHLO x\r\n"[: self.below(3) * 4], flags=flags, believable=False)

    def urge(self) -> None:
        to_server = self.side()
        end = self.ends[to_server]
        text = bytes(end.said[end.sent : min(end.sent + 1 + self.below(20), end.edge)])
        self.send(to_server, end.sent, text, flags=ACK | PSH | URG, urgent=self.below(5))

    def sneak_in(self) -> None:
        """A packet with the other side's address, from this side."""
        to_server = self.side()
        end = self.ends[to_server]
        start, size = self.span(to_server)
        text = (self.forged(to_server, start, size), b"354 go\r\n", b"")[self.below(3)]
        self.contradicted = True
        place = self.books.believed.sides[to_server].next
        verdict = self.send(
            to_server,
            place,
            text,
            ack=end.peer_base + self.books.believed.sides[not to_server].next,
            interface=2 if to_server else 1,
            believable=not self.books.apply,
        )
        if self.books.apply and not self.books.over and verdict == ACCEPT:
            raise Violation(2, "a packet from the wrong side passes")

    def corrupt(self) -> None:
        """What no receiver takes must not be believed: a wrong checksum."""
        to_server = self.side()
        start, size = self.span(to_server)
        self.send(
            to_server, start, self.forged(to_server, start, size), spoil=1 + self.below(65533), believable=False
        )

    def murmur(self) -> None:
        """The server says something unasked."""
        self.wedged = True
        self.ends[False].said += self.server.murmur()
        self.onward(False)

    def sleep(self) -> None:
        """Longer than a flow is remembered."""
        if self.below(4) == 3:
            self.wedged = True
            self.books.expire(3601 * SECOND)
            self.carry()

