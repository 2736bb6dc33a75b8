"""Connections one after another over the same ports, before servers that are kernels.

Promises: the adversary of ``exhaustive`` with everything drawn: what a segment says and carries, where it
lies, what it acknowledges, where it dies; so that what no list of events has may happen, too. A run ends in
a Violation when a server's application reads a denied verb, a client sees a greeting as the server wrote it,
or the gateway breaks its word (invariants 1, 3, 6). Does not know what the gateway believes.

    python -m tests.stream.ports [--deliveries 200000] [--profile pix63] [--seed 0] [--first]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from tests.exhaustive.search import COOKIES, NEAR, harness
from tests.stream.invariant_checker import ACCEPT, DROP, EMIT, Violation
from tests.stream.packets import ACK, FIN, PSH, RST, SYN, Segment, Track, options_of
from tests.stream.peers import Below

SECOND = 1_000_000_000
ROUND = 2**32 * 64
ISN = 0x10000000
PROFILES = ("pix63", "asa", "asa-tls")
GREETING = b"ESMTP"
#: Read from its middle, or as text that is none, each of them holds a denied verb.
EVIL = (b"NOOP EXPN root\r\nEXPN root\r\n", b"\r\nEXPN root\r\n", b"EXPN root\r\n", b"\r\n.\r\nEXPN root\r\n")
GOOD = (b"NOOP\r\n", b"DATA\r\n", b"text of a message\r\n", b"\r\n.\r\n", b"RSET\r\n", b"x", b"\x16\x03\x01")
MAIL = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
STARTTLS = b"EHLO x\r\nSTARTTLS\r\n"

NEW, OLD = 1000, 10  # timestamps: of all segments, and of one that fails PAWS
OPTIONS = {
    "MD5": bytes([1, 1, 19, 18]) + bytes(16),
    "AO": bytes([29, 16]) + bytes(14),
    "unknown": bytes([253, 4, 0, 0]),
    "cut short": bytes([1, 1, 254, 40]),
    "of no length": bytes([1, 1, 254, 0]),
}
NAMES = tuple(OPTIONS)


def timestamps(value: int) -> bytes:
    return bytes([1, 1, 8, 10]) + value.to_bytes(4) + bytes([0, 0, 0, 1])


@dataclass
class PortTotals:
    runs: int = 0
    deliveries: int = 0
    connections: int = 0


PORT_TOTALS = PortTotals()
_ENGINES: dict[str, tuple[Engine, list[int]]] = {}


def _engine(profile: str) -> tuple[Engine, list[int]]:
    if profile not in _ENGINES:
        rule = FlowRule(Mode.ENFORCE, load_profile(profile))
        _ENGINES[profile] = Engine([rule], limits=Limits(flows=4, memory=1 << 20, startup=0.0), records=False), [SECOND]
    return _ENGINES[profile]


def forget_engines() -> None:
    """A run has broken off: whatever it left behind is nobody's business."""
    _ENGINES.clear()


@dataclass
class Ports:
    """``below`` chooses everything, 0 the ordinary; ``run`` raises Violation."""

    below: Below
    profile: str | None = None
    server: int | None = None
    steps: int = 40

    trace: list[str] = field(default_factory=list)

    def run(self) -> None:
        below = self.below
        self.name = self.profile or PROFILES[below(len(PROFILES))]
        self.model = self.server if self.server is not None else below(NEAR + 1)
        self.engine, self.clock = _engine(self.name)
        self.tracks = Track(4, False), Track(4, True)
        self.peer: Any = harness().peer.Peer(self.model, self.name == "pix63")
        self.stamped = below(4) < 3
        self.reach = ISN + 1  # where the gateway has got to, as far as can be told from what passes
        self.seen = ISN  # what the server has said, as far as it came through
        self.numbers = [ISN + 1]  # of the client's, for coming back to
        self.cookies: list[tuple[int, int]] = []
        self.history: list[bytes] = []
        self.open: dict[int, tuple[bool, bytes, bool]] = {}
        self.next_id = 0
        self.edge: int | None = None
        try:
            self.begin(below(6))
            for _ in range(below(self.steps) + self.steps // 4):
                self.step()
            self.end()
        except Violation as violation:
            forget_engines()
            violation.add_note(f"{self.name}, server {self.model}\n" + "\n".join(self.trace))
            raise
        except BaseException:
            forget_engines()
            raise
        PORT_TOTALS.runs += 1

    def begin(self, how: int) -> None:
        """An ordinary beginning, as far as it goes."""
        if how == 5:
            return
        self.say(SYN, ISN, ack=0)
        self.say(ACK, ISN + 1)
        if how in (0, 1):
            self.say(ACK | PSH, self.reach, MAIL)
        elif how in (2, 3) and self.name == "asa-tls":
            self.say(ACK | PSH, self.reach, STARTTLS)
            self.say(ACK | PSH, self.reach, b"\x16\x03\x01")

    def end(self) -> None:
        """Nothing is left behind."""
        self.clock[0] += 1
        self.settle(self.engine.finish(self.clock[0]))
        if self.open:
            raise Violation(1, f"{len(self.open)} packets never get a verdict")
        self.engine.expire(self.clock[0])
        counters = self.engine.core_counters()[0]
        left = {name: counters[name] for name in ("memory_now", "held_now", "flows_now") if counters[name]}
        if left:
            raise Violation(6, f"left behind: {left}")

    # Packets.

    def say(
        self,
        flags: int,
        seq: int,
        payload: bytes = b"",
        *,
        ack: int | None = None,
        option: str = "",
        stamp: int | None = NEW,
        lost: bool = False,
    ) -> None:
        """A segment of the client's, and all that it brings about."""
        ack = self.acknowledges() if ack is None else ack % 2**32
        window = 65535 if self.edge is None else max(0, min(65535, (self.edge - ack + 2**31) % 2**32 - 2**31))
        carried = timestamps(stamp) if stamp is not None and self.stamped else b""
        carried += OPTIONS[option] if option else b""
        packet = self.tracks[True].build(seq % 2**32, ack, flags, payload, window=window, options=carried)
        self.history.append(packet)
        end = (seq + len(payload) + bool(flags & SYN)) % 2**32
        if end not in self.numbers:
            self.numbers.append(end)
        self.give(True, packet, lost=lost, note=option + (" old" if stamp == OLD else "" if stamp else " bare"))

    def give(self, to_server: bool, packet: bytes, *, lost: bool = False, note: str = "") -> None:
        own = self.next_id = self.next_id + 1
        self.clock[0] += 1000
        PORT_TOTALS.deliveries += 1
        self.open[own] = to_server, packet, lost
        segment = self.tracks[to_server].read(packet)
        here = 1 if to_server else 2
        operations = self.engine.process(packet, self.clock[0], id=own, in_interface=here, out_interface=3 - here)
        self.trace.append(
            f"{'C' if to_server else '  S'} {self.shown(to_server, segment)} {note}{' lost' if lost else ''}"
            f" -> {[('accept', 'replace', 'drop', 'emit')[kind] for kind, *_ in operations]}"
        )
        self.settle(operations)

    def shown(self, to_server: bool, segment: Segment) -> str:
        flags = "".join(name for bit, name in enumerate("FSRPA") if segment.flags >> bit & 1)
        seq, ack = segment.seq, segment.ack
        return f"{flags} seq {seq:#x} ack {ack:#x} window {segment.window} {segment.payload!r}"

    def settle(self, operations: list[tuple[int, int, bytes | None, bool]]) -> None:
        for kind, own, data, way in operations:
            if kind == EMIT:
                assert data is not None
                if wrong := self.tracks[way].wrong_with(data):
                    raise Violation(3, f"emitted: {wrong}")
                self.arrive(way, data)
                continue
            if own not in self.open:
                raise Violation(1, f"a second verdict for packet {own}")
            to_server, packet, lost = self.open.pop(own)
            if kind == DROP:
                continue
            if kind != ACCEPT:
                assert data is not None
                if wrong := self.tracks[to_server].wrong_with(data):
                    raise Violation(3, f"{wrong} of {data.hex()}")
                packet = data
            if not lost:
                self.arrive(to_server, packet)
            if to_server:
                self.passed(packet)

    def passed(self, packet: bytes) -> None:
        """How far the gateway must have got, if it believes what it lets through."""
        segment = self.tracks[True].read(packet)
        end = (segment.seq + len(segment.payload)) % 2**32
        if segment.flags & SYN:
            self.reach = (segment.seq + 1) % 2**32
        elif segment.payload and 0 < (end - self.reach) % 2**32 < 2**20:
            self.reach = end

    def arrive(self, to_server: bool, packet: bytes) -> None:
        segment = self.tracks[to_server].read(packet)
        if not to_server:
            self.client_gets(segment)
            return
        option, stamp = options_of(packet, 20)
        self.carry(self.peer.receive(*segment[:4], segment.payload, stamp, option))

    def carry(self, segments: list[tuple[int, int, int, int, bytes, int | None]]) -> None:
        for seq, ack, flags, window, payload, stamp in segments:
            options = timestamps(stamp) if stamp is not None else b""
            self.give(False, self.tracks[False].build(seq, ack, flags, payload, window=window, options=options))
        if self.peer.fault:
            raise Violation(2, "a server reads a denied verb as a command")

    def client_gets(self, segment: Segment) -> None:
        if segment.flags & SYN:
            PORT_TOTALS.connections += 1
            self.seen = segment.seq
            if self.model >= COOKIES:
                self.cookies.append(((segment.ack - 1) % 2**32, segment.seq))
        end = (segment.seq + len(segment.payload) + bool(segment.flags & (SYN | FIN))) % 2**32
        if 0 < (end - self.seen) % 2**32 < 2**20:
            self.seen = end
        if GREETING in segment.payload:
            raise Violation(2, f"a client sees {segment.payload!r}")

    # Choices.

    def one_of(self, *choices: Any) -> Any:
        return choices[self.below(len(choices))]

    def acknowledges(self) -> int:
        return self.peer.sends if self.peer.connected and (self.peer.sends - self.seen) % 2**32 > 2**31 else self.seen

    def place(self) -> int:
        """Where things happen: the gateway's number, the server's, or one of before, or beside."""
        at = (self.reach, self.reach, self.peer.expects or self.reach, self.one_of(*self.numbers[-12:]))[self.below(4)]
        return int(at) + (self.one_of(1, -1, 3, -3, 1000, 2**24) if self.below(6) == 5 else 0)

    def text(self, seq: int) -> bytes:
        evil = self.one_of(*EVIL) if self.below(3) < 2 else self.one_of(*GOOD)
        filler = (self.reach - seq) % 2**32
        if filler < 1000 and self.below(2):
            return b"." * filler + (evil if self.below(2) else b"")
        return bytes(evil)

    def traits(self) -> dict[str, Any]:
        """What makes a receiver drop a segment, or a network lose it; mostly nothing."""
        kind = self.below(12)
        if kind < 6:
            return {}
        if kind < 8:
            return {"lost": True}
        if kind < 10:
            return {"option": NAMES[self.below(2)]}
        return self.one_of({"option": self.one_of(*NAMES)}, {"stamp": OLD}, {"stamp": None})

    def acked(self) -> int | None:
        return self.one_of(None, None, None, self.peer.sends, self.peer.unacknowledged, self.seen + 1)

    # What happens next.

    def step(self) -> None:
        STEPS[self.below(len(STEPS))](self)

    def data(self) -> None:
        seq = self.place()
        self.say(ACK | PSH, seq, self.text(seq), ack=self.acked(), **self.traits())

    def onward(self) -> None:
        """What an honest client would say next."""
        self.say(ACK | PSH, self.reach, self.one_of(*GOOD, MAIL, *EVIL))

    def acknowledge(self) -> None:
        self.say(ACK, self.place(), ack=self.acked(), **self.traits())

    def syn(self) -> None:
        self.say(SYN, self.one_of(ISN, ISN, self.reach - 1, ISN + 2048), ack=0, **self.traits())

    def connect(self) -> None:
        """A SYN, and the ACK that answers what comes back."""
        isn = self.one_of(ISN, ISN, self.reach - 1, ISN + 2048)
        self.say(SYN, isn, ack=0)
        self.say(ACK, isn + 1, ack=self.one_of(None, self.peer.sends))

    def reset(self) -> None:
        seq = self.one_of(self.peer.expects or self.reach, self.reach, self.place())
        self.say(RST | self.one_of(0, ACK), seq, **self.traits())

    def finish(self) -> None:
        self.say(FIN | ACK, self.place(), self.one_of(b"", b"", b"x"), ack=self.acked(), **self.traits())

    def cookie(self) -> None:
        """A bare ACK with a cookie, for one of the client's numbers: S grows with X."""
        if not self.cookies:
            return
        isn, number = self.cookies[self.one_of(0, -1, self.below(len(self.cookies)))]
        start = self.one_of(self.reach, self.peer.expects or self.reach, isn + 1, isn + 1 + self.seen - number - 1)
        at = start if self.below(5) < 4 else self.place()
        shift = self.one_of(0, 0, 0, 1, 2, 3)  # of another MSS
        text = self.one_of(b"", b"", *EVIL)
        self.say(ACK, at + shift, text, ack=number + at - isn, **(self.traits() if self.below(4) == 3 else {}))

    def pass_time(self) -> None:
        nanoseconds = self.one_of(SECOND, 51 * SECOND, 61 * SECOND, 118 * SECOND, ROUND, 3700 * SECOND)
        left = nanoseconds
        while left > 0:
            part = min(left, 25 * SECOND if nanoseconds < ROUND else left)
            left -= part
            self.clock[0] += part
            self.trace.append(f"{part / SECOND:g} s")
            self.settle(self.engine.expire(self.clock[0]))
            self.carry(self.peer.wait(part))

    def server_acts(self) -> None:
        self.carry(self.one_of(self.peer.hang_up, self.peer.hang_up, self.peer.abort, self.peer.repeat)())

    def window(self) -> None:
        """Closed, but for a byte or none; or opened again."""
        self.edge = None if self.edge is not None else (self.acknowledges() + self.below(2)) % 2**32
        self.say(ACK, self.reach)

    def replay(self) -> None:
        """A packet of long ago, of another connection maybe."""
        if self.history:
            packet = self.history[self.below(len(self.history))]
            self.give(True, packet, lost=self.below(4) == 3, note="again")


STEPS: tuple[Callable[[Ports], None], ...] = tuple(
    action
    for action, weight in (
        (Ports.onward, 4),
        (Ports.data, 8),
        (Ports.acknowledge, 3),
        (Ports.syn, 2),
        (Ports.connect, 3),
        (Ports.reset, 4),
        (Ports.finish, 2),
        (Ports.cookie, 4),
        (Ports.pass_time, 3),
        (Ports.server_acts, 2),
        (Ports.window, 1),
        (Ports.replay, 2),
    )
    for _ in range(weight)
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deliveries", type=int, default=200_000)
    parser.add_argument("--profile", choices=PROFILES)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; each next one has the next")
    parser.add_argument("--first", action="store_true", help="until there is a difference")
    options = parser.parse_args()
    began, seed, found = time.monotonic(), options.seed, 0
    while PORT_TOTALS.deliveries < options.deliveries and not (options.first and found):
        choose = random.Random(seed).random
        try:
            Ports(lambda n, choose=choose: int(choose() * n), options.profile).run()  # type: ignore[misc]
        except Violation as violation:
            found += 1
            _say(f"{violation}, after {PORT_TOTALS.deliveries:,} deliveries, seed {seed}")
            _say("\n".join(violation.__notes__) + "\n")
        seed += 1
    _say(
        f"connections over the same ports: {PORT_TOTALS.deliveries:,} deliveries, {found} differences"
        f" ({PORT_TOTALS.runs:,} runs, {PORT_TOTALS.connections:,} connections; {time.monotonic() - began:.0f} s)"
    )
    return 1 if found else 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
