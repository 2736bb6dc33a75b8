"""The adversary: whoever sits on one side of the gateway, and makes packets up.

Promises: besides what every network does, the ways round an inspection that the
literature knows (Ptacek and Newsham 1998; Handley, Paxson and Kreibich 2001), with
octets that do harm if they get through. Does not know what is right.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.stream.endpoint import Endpoint
from tests.stream.invariant_checker import InvariantChecker, Violation
from tests.stream.network import FAIR, SECOND, Action, Network
from tests.stream.packets import (
    ACK,
    AUTHENTICATION,
    FIN,
    MD5,
    ODD_OPTIONS,
    OLD_TIMESTAMPS,
    PSH,
    RST,
    SYN,
    URG,
    Segment,
)
from tests.stream.peers import Below

EVIL = {
    True: (
        b"\r\nEXPN root\r\nEHLO evil\r\nSTARTTLS\r\n.\r\n",
        b"\r\n.\r\nEXPN root\r\nEHLO evil\r\nSTARTTLS\r\n",
        b"\n.\nEHLO evil\r\nEXPN root\r\nSTARTTLS\r\n",
        b"DATA\r\n.\r\nEHLO evil\r\nEXPN root\r\n",
    ),
    False: (
        b"\r\n250-STARTTLS\r\n250 CHUNKING\r\n500 x\r\n220 go\r\n",
        b"354 go\r\n250-STARTTLS\r\n250 CHUNKING\r\n",
    ),
}


class Adversary(Network):
    """A network that forges."""

    def __init__(self, below: Below, checker: InvariantChecker, ends: tuple[Endpoint, Endpoint]) -> None:
        super().__init__(below, checker, ends)
        self.wedged = not checker.apply  # what only follows stops no RST

    def table(self) -> list[Action]:
        return [action for action, weight in (*FAIR, *FOUL) for _ in range(weight)]

    def forged(self, to_server: bool, start: int, size: int) -> bytes:
        end = self.ends[to_server]
        true = bytes(end.said[max(0, start) : max(0, start + size)]).ljust(size, b"\r")
        evil = EVIL[to_server][self.below(len(EVIL[to_server]))]
        kind = self.below(5)
        if kind == 0:
            return (evil * 4)[:size]
        if kind == 1:
            return evil[2 : 2 + size].ljust(size, b"\n")
        if kind == 2:
            place = self.below(size)
            return true[:place] + bytes([true[place] ^ 0x20]) + true[place + 1 :]
        return true.swapcase() if kind == 3 else bytes(size)

    # Octets.

    def contradict(self) -> None:
        """Other octets than the sender's own, over what was sent or ahead of it."""
        to_server = self.side()
        start, size = self.span(to_server)
        if start >= 0:
            self.contradicted = self.wedged = True
            text = self.forged(to_server, start, size)
            if not to_server and start + size > self.checker.reassembly.sides[to_server].next:
                # Who speaks first in the server's name has spoken for it: nobody can know that it does not read on.
                text = text.replace(b"354", b"454").replace(b"220", b"250")
            self.send(to_server, start, text)

    def keep_alive(self) -> None:
        """RFC 1122 4.2.3.6: an octet of garbage in front of the next one, or none at all."""
        to_server = self.side()
        end = self.ends[to_server]
        start = (end.sent, end.una)[self.below(2)] - 1
        self.contradicted = True
        self.send(to_server, start, (b"\0", b"", b"\n", b"X")[self.below(4)], flags=ACK)

    def overshoot(self) -> None:
        """Behind the window, or half a number space ahead: what no receiver has room for."""
        to_server = self.side()
        far = (1, 3, 1000, 70000, 2**30, 2**31 - 2**17)[self.below(6)]
        size = 1 + self.below(40)
        self.contradicted = self.wedged = True
        self.send(to_server, self.ends[to_server].edge + far, self.forged(to_server, 0, size))

    def corrupt(self) -> None:
        """A wrong checksum: what no receiver takes must not be believed."""
        to_server = self.side()
        start, size = self.span(to_server)
        text = self.forged(to_server, start, size)
        self.send(to_server, start, text, spoil=1 + self.below(65533), believable=False)

    def mangle(self) -> None:
        """Cut on the way to us, a fragment, or lengths that do not add up."""
        to_server = self.side()
        end, track = self.ends[to_server], self.checker.tracks[to_server]
        place = self.checker.reassembly.sides[to_server].next
        text = self.forged(to_server, place, 20)
        packet = track.build(end.seq(place), end.ack(), ACK | PSH, text)
        kind = self.below(4)
        length = len(packet)
        if kind == 0:
            packet = packet[: track.at + self.below(39)]
        elif kind == 1:
            packet = packet[: track.at + 12] + b"\xf0" + packet[track.at + 13 :]
        elif kind == 2:
            at, size = (2, length) if track.family == 4 else (4, length - 40)
            packet = packet[:at] + (size + 8).to_bytes(2) + packet[at + 2 :]
        elif track.family == 4:
            packet = packet[:6] + b"\x20\x00" + packet[8:]
        else:
            packet = packet[:6] + b"\x2c" + packet[7:]
        seen = Segment(0, 0, 0, 0, text)
        self.checker.give(to_server, packet, place, believable=False, seen=seen, length=length)
        self.carry()

    # Headers.

    def refused(self) -> None:
        """What its receiver drops unread: a key nobody agreed on, or a timestamp of long ago."""
        to_server = self.side()
        start, size = self.span(to_server)
        text = self.forged(to_server, start, size) if self.below(2) else b""
        flags = (ACK | PSH, ACK | PSH, ACK | PSH, FIN | ACK, RST, SYN | ACK * (not to_server))[self.below(6)]
        options = (MD5, AUTHENTICATION)[self.below(2)]
        if self.ends[to_server].agreed is not None and not flags & (RST | SYN) and self.below(2):
            options = OLD_TIMESTAMPS
        elif self.options and self.below(2):
            options = self.options + options
        self.send(to_server, start, text, flags=flags, believable=False, options=options)

    def odd_option(self) -> None:
        """The next octets with an option nobody knows, or of a length that cannot be right."""
        to_server = self.side()
        end = self.ends[to_server]
        text = bytes(end.said[end.sent : min(end.sent + 1 + self.below(60), end.edge)])
        odd = ODD_OPTIONS[self.below(len(ODD_OPTIONS))]
        self.send(to_server, end.sent, text, options=self.options + odd)

    def probe(self) -> None:
        """One octet into a window that is closed."""
        to_server = self.side()
        end = self.ends[to_server]
        other = self.ends[not to_server]
        self.send(not to_server, other.sent, flags=ACK, window=0)
        self.send(to_server, end.sent, bytes(end.said[end.sent : end.sent + 1]), flags=ACK)

    def lie(self) -> None:
        """Acknowledges what was never sent, or, by a FIN that was lost, what was not received."""
        to_server = self.side()
        if self.below(4) < 3:
            return
        self.wedged = True
        ahead = (1, 2, 40, 2**20, 2**31 - 2**20)[self.below(5)]
        self.checker.lied |= ahead == 1  # a FIN may have left that its receiver has not got
        place = self.checker.reassembly.sides[not to_server].next + ahead
        self.send(to_server, self.ends[to_server].sent, flags=ACK, ack=self.ends[to_server].peer_base + place)

    def finish_early(self) -> None:
        """A FIN in the middle, before or behind what was said."""
        to_server = self.side()
        start, size = self.span(to_server)
        start = max(0, start)
        self.wedged = True
        self.contradicted |= not self.checker.apply  # octets behind a FIN pass there, and no receiver takes them
        self.judged &= self.checker.holds or not self.checker.apply
        text = bytes(self.ends[to_server].said[start : start + size]) if self.below(2) else b""
        self.send(to_server, start, text, flags=FIN | ACK)

    def odd_flags(self) -> None:
        """What no TCP sends; some take its octets all the same."""
        to_server = self.side()
        flags = (0, PSH, FIN, URG, SYN | FIN, SYN | RST | ACK, SYN | FIN | ACK)[self.below(7)]
        place = self.checker.reassembly.sides[to_server].next
        self.send(to_server, place, self.forged(to_server, place, 12), flags=flags, believable=False)

    def urge(self) -> None:
        to_server = self.side()
        end = self.ends[to_server]
        text = bytes(end.said[end.sent : min(end.sent + 1 + self.below(20), end.edge)])
        self.send(to_server, end.sent, text, flags=ACK | PSH | URG, urgent=self.below(5))

    # The connection.

    def synchronise(self) -> None:
        """The handshake's packets once more, or a SYN that begins another connection; with octets, at times."""
        to_server = self.side()
        flags = (SYN if to_server else SYN | ACK) if self.below(6) < 5 else (SYN | ACK if to_server else SYN)
        start = (-1, -1, -2, 5, 100000)[self.below(5)]
        text = b"EHLO x\r\n"[: self.below(3) * 4]
        self.renewed |= self.checker.ended and flags == SYN
        self.send(to_server, start, text, flags=flags, believable=False, options=self.offers[to_server])

    def blind_reset(self) -> None:
        """A RST that its receiver does not take: beside the next octet; with octets, at times."""
        to_server = self.side()
        start = self.ends[to_server].sent + (1, -1, 1000, -1000, 2**30)[self.below(5)]
        if start != self.ends[not to_server].have:
            self.wedged |= start > self.ends[not to_server].have  # delayed behind the gateway, it may be taken yet
            text = EVIL[to_server][0] * self.below(2)
            self.send(to_server, start, text, flags=RST | ACK, believable=False)

    def own_reset(self) -> None:
        """A RST that its receiver takes: at its own number, which need not be the gateway's."""
        if self.below(4) < 3:
            return
        to_server = self.side()
        receiver = self.ends[not to_server]
        self.wedged = True
        self.send(to_server, receiver.have + receiver.first.ended, flags=RST | ACK * self.below(2), believable=False)

    def lost_reset(self, to_server: bool) -> None:
        """A RST that would end the connection, did it not die behind the gateway."""
        end, track = self.ends[to_server], self.checker.tracks[to_server]
        place = self.checker.reassembly.sides[to_server].next
        self.checker.give(to_server, track.build(end.seq(place), 0, RST), place, believable=False)
        self.checker.out.clear()

    def begin_again(self) -> None:
        """Makes the gateway take the connection for closed, and begins another over it, speaking for both ends."""
        if self.below(3) < 2:
            return
        self.wedged = self.contradicted = self.checker.lied = True
        kind = self.below(3)
        if kind == 0:
            self.lost_reset(True)
        elif kind == 1:
            self.checker.expire(3601 * SECOND)
            self.carry()
        client, place = self.ends[True], self.checker.reassembly.sides[True].next
        fair, self.fair = self.fair, True
        back = self.ends[False].seq(self.ends[True].have)
        at = place
        self.send(True, place - 1, flags=SYN, ack=0, believable=False, options=self.offers[True])
        self.speak_for_server(b"", back - 1, client.seq(place), SYN | ACK)
        for said, reply in ((b"", b"220 x\r\n"), (b"DATA\r\n", b"354 x\r\n"), (b"EXPN root\r\nEHLO evil\r\n", b"")):
            if said:
                self.send(True, at, said, ack=back)
                at += len(said)
            if reply:
                self.speak_for_server(reply, back, client.seq(at), ACK | PSH)
                back = (back + len(reply)) % 2**32
        self.fair = fair

    def speak_for_server(self, text: bytes, seq: int, ack: int, flags: int) -> None:
        """The server's address, from the client's side; of what the gateway lets through nothing reaches an end."""
        packet = self.checker.tracks[False].build(seq % 2**32, ack, flags, text)
        left = self.checker.give(False, packet, 0, believable=False, interface=1)
        self.checker.out.clear()
        if self.checker.apply and left and not self.checker.passed:
            raise Violation(2, f"the client speaks for the server: {text!r}, flags {flags:#x}")

    def sneak_in(self) -> None:
        """A packet with the other side's address, from this side."""
        to_server = self.side()
        end = self.ends[to_server]
        place = self.checker.reassembly.sides[to_server].next
        text = (self.forged(to_server, place, 1 + self.below(40)), b"354 go\r\n", b"")[self.below(3)]
        self.contradicted = True
        left = self.send(
            to_server,
            place,
            text,
            ack=end.peer_base + self.checker.reassembly.sides[not to_server].next,
            interface=2 if to_server else 1,
            believable=not self.checker.apply,
        )
        if self.checker.apply and not self.checker.over and left:
            raise Violation(2, "a packet from the wrong side passes")

    # The rest.

    def murmur(self) -> None:
        """The server says something unasked."""
        self.wedged = True
        self.ends[False].said += self.server.murmur()
        self.onward(False)

    def sleep(self) -> None:
        """Longer than a flow is remembered."""
        if self.below(4) == 3:
            self.wedged = True
            self.checker.expire(3601 * SECOND)
            self.carry()


FOUL: tuple[tuple[Callable[[Adversary], object], int], ...] = (
    (Adversary.contradict, 12),
    (Adversary.keep_alive, 3),
    (Adversary.overshoot, 2),
    (Adversary.corrupt, 3),
    (Adversary.mangle, 3),
    (Adversary.refused, 4),
    (Adversary.odd_option, 2),
    (Adversary.probe, 2),
    (Adversary.lie, 1),
    (Adversary.finish_early, 1),
    (Adversary.odd_flags, 2),
    (Adversary.urge, 3),
    (Adversary.synchronise, 2),
    (Adversary.blind_reset, 2),
    (Adversary.own_reset, 2),
    (Adversary.begin_again, 1),
    (Adversary.sneak_in, 3),
    (Adversary.murmur, 2),
    (Adversary.sleep, 1),
)
