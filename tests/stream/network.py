"""The network: two ends, a gateway between, and all that honest networks do to packets.

Promises: it loses, delays, repeats, cuts and reorders, and never makes an octet up.
Every choice is made by ``below``, where 0 is the ordinary one: a run whose choices
shrink becomes an ordinary one. Does not know what is right; checker and machine do.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.stream.endpoint import Endpoint
from tests.stream.invariant_checker import InvariantChecker, Violation
from tests.stream.packets import ACK, PSH, RST, SYN, Segment
from tests.stream.peers import Below, Client, Server

SECOND = 1_000_000_000
CHECKSUM_PARTIAL, GSO = 1, 2


class Network:
    """Both ends, what talks over them, and the gateway between; ``ends[to_server]`` sends that way."""

    def __init__(self, below: Below, checker: InvariantChecker, ends: tuple[Endpoint, Endpoint]) -> None:
        self.below = below
        self.checker = checker
        self.ends = ends
        self.client = Client(below)
        self.server = Server(below, every_reading=checker.apply)
        self.fair = True  # nothing is lost behind the gateway
        self.bag: list[tuple[bool, Segment]] = []
        self.history: list[tuple[bool, bytes, int]] = []
        self.contradicted = False  #: other octets than the ends' own have been sent
        self.wedged = False  #: an end may wait for ever, and be right to
        self.judged = True  #: what was decided can be told from the verdicts
        self.renewed = False  #: a SYN came behind a reset of ours: the ports are another connection's now
        self.options = b""
        self.offers = b"", b""  # what the SYNs carry, by direction
        self.depth = 0
        self.actions = self.table()

    def table(self) -> list[Action]:
        """What can happen next, each as often as it is likely."""
        return [action for action, weight in FAIR for _ in range(weight)]

    # Sending and delivering.

    def send(
        self,
        to_server: bool,
        start: int,
        payload: bytes = b"",
        flags: int = ACK | PSH,
        *,
        ack: int | None = None,
        window: int | None = None,
        urgent: int = 0,
        spoil: int = 0,
        interface: int = 0,
        queued: int = 0,
        believable: bool = True,
        options: bytes | None = None,
    ) -> bool:
        """One packet, through the gateway and on; whether it left."""
        end = self.ends[to_server]
        packet = self.checker.tracks[to_server].build(
            end.seq(start),
            end.ack() if ack is None else ack % 2**32,
            flags,
            payload,
            window=end.window(scaled=not flags & SYN) if window is None else window,
            urgent=urgent,
            spoil=spoil,
            options=self.options if options is None else options,
        )
        end.sent = max(end.sent, min(start + len(payload), len(end.said)))
        if believable and not flags & (SYN | RST):
            self.history.append((to_server, packet, start))
        left = self.checker.give(to_server, packet, start, believable=believable, interface=interface, flags=queued)
        self.carry()
        return left

    def carry(self) -> None:
        """What has left the gateway: on to its receiver, into the bag, or gone."""
        while self.checker.out:
            out, self.checker.out = self.checker.out, []
            for to_server, segment in out:
                what = 0 if self.fair else self.below(10)
                if what < 6 or what == 9:
                    self.deliver(to_server, segment)
                if what in (6, 7, 9):
                    self.bag.append((to_server, segment))

    def deliver(self, to_server: bool, segment: Segment) -> None:
        end = self.ends[not to_server]
        before = end.have
        if end.receive(segment):
            self.compare(to_server, before)
            if to_server:
                self.ends[False].said += self.server.hear(end.first.stream)
            else:
                self.client.hear(end.first.stream)
        if end.size == 65535:
            end.open_window()
        if end.owes_ack and self.depth < 2 and (self.fair or self.below(3) < 2):
            end.owes_ack = False
            self.depth += 1  # ends that have been led apart would go on for ever
            self.send(not to_server, self.ends[not to_server].sent, flags=ACK)
            self.depth -= 1

    def compare(self, to_server: bool, before: int) -> None:
        """Invariant 2: both receivers have the same, and it is what left the gateway in order."""
        if not self.checker.apply or self.checker.over or self.checker.lied:
            return
        end = self.ends[not to_server]
        first, last = end.first.stream[before:], end.last.stream[before:]
        if first != last:
            raise Violation(2, f"from {before} on one receiver has {bytes(first)!r}, another {bytes(last)!r}")
        if first != self.checker.left[to_server][before : end.have]:
            raise Violation(2, f"from {before} on a receiver has {bytes(first)!r}, which was not decided")

    # What happens next.

    def step(self) -> None:
        self.actions[self.below(len(self.actions))](self)

    def side(self) -> bool:
        return self.below(2) == 0

    def onward(self, to_server: bool | None = None, size: int = 0) -> None:
        """The next octets in order, as many as the segment takes; who has none left says more."""
        to_server = self.side() if to_server is None else to_server
        end = self.ends[to_server]
        if end.sent >= len(end.said):
            if to_server:
                end.said += self.client.speak()
            elif end.una < end.sent:
                return self.again(to_server)
        size = size or (1460, 1460, 40, 7, 3, 2, 1, 0)[self.below(8)]
        stop = min(end.sent + (size or self.sore_place(end)), len(end.said), end.edge)
        self.send(to_server, end.sent, bytes(end.said[end.sent : stop]))
        return None

    def sore_place(self, end: Endpoint) -> int:
        """How far it is to behind one of the next octets that mean something."""
        text = end.said[end.sent : end.sent + 60]
        places = [place for place, octet in enumerate(text, start=1) if octet in b"\r\n. "]
        return places[self.below(len(places))] if places else 1

    def again(self, to_server: bool | None = None) -> None:
        """What has not been acknowledged, cut another way."""
        to_server = self.side() if to_server is None else to_server
        end = self.ends[to_server]
        size = (1460, 80, 13, 5, 1)[self.below(5)]
        self.send(to_server, end.una, bytes(end.said[end.una : min(end.una + size, end.sent)]))

    def tiny(self) -> None:
        to_server = self.side()
        end = self.ends[to_server]
        for place in range(end.sent, min(end.sent + 1 + self.below(8), len(end.said), end.edge)):
            self.send(to_server, place, bytes(end.said[place : place + 1]))

    def lose_before(self) -> None:
        """A segment that never comes as far as the gateway."""
        end = self.ends[self.side()]
        end.sent = min(end.sent + (40, 6, 1)[self.below(3)], len(end.said), end.edge)

    def span(self, to_server: bool) -> tuple[int, int]:
        """Somewhere about where things happen: (start, size)."""
        end = self.ends[to_server]
        marks = (self.checker.reassembly.sides[to_server].next, end.una, end.sent, len(end.said), 0)
        start = marks[self.below(5)] + (0, 1, 2, 5, 17, 40, -1, -2, -3, -9)[self.below(10)]
        return start, (1, 2, 3, 4, 6, 9, 14, 30, 60)[self.below(9)]

    def anywhere(self) -> None:
        """True octets out of order, over what was sent before."""
        to_server = self.side()
        end = self.ends[to_server]
        start, size = self.span(to_server)
        start = max(0, min(start, len(end.said) - 1, end.edge - 1))
        self.send(to_server, start, bytes(end.said[start : min(start + size, end.edge)]))

    def replay(self) -> None:
        """A packet of long ago, to the octet."""
        if self.history:
            to_server, packet, start = self.history[-1 - self.below(min(40, len(self.history)))]
            self.checker.give(to_server, packet, start)
            self.carry()

    def acknowledge(self) -> None:
        """An ACK of now, of before, of a part, or one more of the same."""
        to_server = self.side()
        end = self.ends[to_server]
        back = (0, 1, 5, 30)[self.below(4)]
        ack = (end.peer_base + max(0, end.have - back)) % 2**32
        for _ in range(1 + self.below(3)):
            self.send(to_server, end.sent, flags=ACK, ack=ack)

    def hand_over(self) -> None:
        """What was delayed arrives, in any order, or does not."""
        if self.bag:
            to_server, segment = self.bag.pop(self.below(len(self.bag)))
            if self.below(8) < 7:
                self.deliver(to_server, segment)

    def offload(self) -> None:
        """A super-packet whose checksum is not there yet."""
        to_server = self.side()
        end = self.ends[to_server]
        start = (end.sent, end.una)[self.below(2)]
        text = bytes(end.said[start : min(start + 60000, end.edge)])
        self.send(to_server, start, text, spoil=1, queued=CHECKSUM_PARTIAL | GSO)

    def pass_time(self) -> None:
        seconds = (0.2, 1.0, 31.0)[self.below(3)]
        self.checker.expire(int(seconds * SECOND))
        self.carry()

    def resize(self) -> None:
        """A receiver whose application has not read for a while reads."""
        to_server = self.side()
        self.ends[to_server].open_window()
        self.send(to_server, self.ends[to_server].sent, flags=ACK)


Action = Callable[[Network], object]
FAIR: tuple[tuple[Action, int], ...] = (
    (Network.onward, 40),
    (Network.again, 8),
    (Network.tiny, 4),
    (Network.lose_before, 8),
    (Network.anywhere, 12),
    (Network.replay, 5),
    (Network.acknowledge, 4),
    (Network.hand_over, 16),
    (Network.offload, 3),
    (Network.pass_time, 5),
    (Network.resize, 3),
)
