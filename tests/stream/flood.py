"""Floods from few sources and from many, and honest mail among them that has to arrive.

Promises: what one peer makes the gateway keep takes nothing from another: whoever asks for a connection in
the midst of a flood gets one, and its mail arrives, sent again where something of it was dropped, as TCP does.
The table is small, so that a run fills it many times over, and more than once between two segments of an honest
client's: reset before a command of its was accepted, it tries again a second later; never after that.
What nobody promises is left out: as many sources as there is room for, each with commands a server has
accepted. Does not know how the gateway shares the table out.

    python -m tests.stream.flood [--runs 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from tests.exhaustive.search import COOKIES, FRESH, harness
from tests.stream.invariant_checker import ACCEPT, DROP, EMIT, Violation
from tests.stream.packets import ACK, PSH, RST, SYN, Track, options_of
from tests.stream.peers import Below
from tests.stream.ports import NEW, OLD, OPTIONS, SECOND, timestamps

FLOWS, MEMORY = 64, 1 << 18
FEW = 3
HELO, COMMANDS = b"HELO x\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
MAIL = b"Subject: x\r\n\r\n" + b"All in good order.\r\n" * 200
#: Rounds of a second after which an honest client gives up. A server has five minutes to greet.
PATIENCE = 60
MOST_TRIES = 5


@dataclass
class FloodTotals:
    runs: int = 0
    deliveries: int = 0
    flows: int = 0
    mails: int = 0
    again: int = 0


FLOOD_TOTALS = FloodTotals()


@dataclass
class Connection:
    """A client's end, and the server's behind the gateway; ``source`` and ``port`` are the client's."""

    source: str
    port: int
    peer: Any
    tracks: tuple[Track, Track] = field(init=False)
    isn: int = 1000
    una: int = 0  # of `said`, what the server has acknowledged
    said: bytes = b""
    heard: bytearray = field(default_factory=bytearray)
    seen: int | None = None  # the next number of the server's; None before its SYN
    dead: bool = False
    began: int = 0

    def __post_init__(self) -> None:
        self.tracks = (
            Track(4, False, client=self.source, port=self.port),
            Track(4, True, client=self.source, port=self.port),
        )


@dataclass
class Flood:
    """``below`` chooses everything; ``run`` raises Violation when an honest mail does not arrive."""

    below: Below
    few: bool | None = None

    def run(self) -> None:
        below = self.below
        self.sources = FEW if (below(2) == 0 if self.few is None else self.few) else 60_000
        rule = FlowRule(Mode.ENFORCE, load_profile("pix63"))
        limits = Limits(flows=FLOWS, memory=MEMORY, startup=0.0)
        self.engine = Engine([rule], limits=limits, records=False)
        self.now = SECOND
        self.ids = 0
        self.open: dict[int, tuple[Connection, bool, bytes, bool]] = {}
        self.of_port: dict[tuple[bytes, bytes], Connection] = {}
        self.accepted = 0
        self.honest: list[Connection] = []
        kinds = [KINDS[below(len(KINDS))] for _ in range(1 + below(3))]
        honest = self.honest
        for step in range(FLOWS + below(6 * FLOWS)):
            kinds[below(len(kinds))](self)
            if step % 16 == 15 and len(honest) < 6:
                honest.append(self.connection(f"10.200.0.{len(honest) + 1}", 50_000 + 10 * step))
            for client in honest:
                if below(3) == 0:
                    self.advance(client)
            if below(40) == 39:
                self.wait(1 + below(20))
        for _ in range(PATIENCE):
            for _ in honest:
                kinds[below(len(kinds))](self)
            if all(self.done(client) for client in honest):
                break
            self.wait(1)
        for client in honest:
            if not self.done(client):
                names = [kind.__name__ for kind in kinds]
                raise Violation(
                    6,
                    f"an honest mail does not arrive among {names} from {self.sources} sources: acknowledged"
                    f" {client.una} of {len(client.said)}, heard {bytes(client.heard)!r}, reset {client.dead}",
                )
        FLOOD_TOTALS.runs += 1
        FLOOD_TOTALS.mails += len(honest)

    def done(self, client: Connection) -> bool:
        return b"250 queued" in client.heard

    # Connections.

    def connection(self, source: str, port: int, model: int = FRESH) -> Connection:
        made = Connection(source, port, harness().peer.Peer(model, True), began=self.now)
        self.of_port[made.tracks[True].addresses, port.to_bytes(2)] = made
        FLOOD_TOTALS.flows += 1
        return made

    def stranger(self) -> Connection:
        """A new connection of the flood's."""
        number = self.below(self.sources)
        return self.connection(
            f"10.{9 + number // 65536}.{number // 256 % 256}.{number % 256}", 1024 + self.below(60_000)
        )

    def give(
        self,
        client: Connection,
        to_server: bool,
        seq: int,
        ack: int,
        flags: int,
        payload: bytes = b"",
        *,
        options: bytes = b"",
        window: int = 65535,
        lost: bool = False,
    ) -> None:
        own = self.ids = self.ids + 1
        packet = client.tracks[to_server].build(
            seq % 2**32, ack % 2**32, flags, payload, window=window, options=options
        )
        self.open[own] = client, to_server, packet, lost
        self.now += 1000
        FLOOD_TOTALS.deliveries += 1
        here = 1 if to_server else 2
        self.settle(self.engine.process(packet, self.now, id=own, in_interface=here, out_interface=3 - here))

    def settle(self, operations: list[tuple[int, int, bytes | None, bool]]) -> None:
        for kind, own, data, way in operations:
            if kind == EMIT:
                assert data is not None
                self.emitted(data, way)
                continue
            if own not in self.open:
                raise Violation(1, f"a second verdict for packet {own}")
            client, to_server, packet, lost = self.open.pop(own)
            if kind == DROP or lost:
                continue
            self.arrive(client, to_server, packet if kind == ACCEPT else data or b"")

    def emitted(self, packet: bytes, to_server: bool) -> None:
        addresses, ports = packet[12:20], packet[20:24]
        key = (addresses, ports[:2]) if to_server else (addresses[4:] + addresses[:4], ports[2:])
        if client := self.of_port.get(key):
            self.arrive(client, to_server, packet)

    def arrive(self, client: Connection, to_server: bool, packet: bytes) -> None:
        segment = client.tracks[to_server].read(packet)
        if to_server:
            option, stamp = options_of(packet, 20)
            self.carry(client, client.peer.receive(*segment[:4], segment.payload, stamp, option))
            return
        if segment.flags & RST:
            client.dead = True
            return
        if segment.flags & SYN:
            client.seen = (segment.seq + 1) % 2**32
        if client.seen is None:
            return
        if segment.flags & ACK:
            client.una = max(client.una, min(len(client.said), (segment.ack - client.isn - 1) % 2**32))
        old = (client.seen - segment.seq) % 2**32
        if old < 2**31 and len(segment.payload) > old and not segment.flags & SYN:
            client.heard += segment.payload[old:]
            client.seen = (client.seen + len(segment.payload) - old) % 2**32

    def carry(self, client: Connection, segments: list[tuple[int, int, int, int, bytes, int | None]]) -> None:
        for seq, ack, flags, window, payload, stamp in segments:
            options = timestamps(stamp) if stamp is not None else b""
            self.give(client, False, seq, ack, flags, payload, window=window, options=options)

    def wait(self, seconds: int) -> None:
        """Time goes by; who is honest repeats what was not acknowledged."""
        for _ in range(seconds):
            self.now += SECOND
            self.settle(self.engine.expire(self.now))
            for client in [*list(self.of_port.values())[-40:], *self.honest]:
                self.carry(client, client.peer.wait(SECOND))
            for client in self.honest:
                self.advance(client)

    # The honest client: what it would say next, and again what was not acknowledged.

    def advance(self, client: Connection) -> None:
        if self.done(client):
            return
        if client.dead:
            if self.now - client.began < SECOND:
                return
            self.again(client)
        if client.seen is None:
            self.give(client, True, client.isn, 0, SYN, options=timestamps(NEW))
        if client.seen is None:
            return
        heard = client.heard.count(b"\n")
        said = (b"", HELO, HELO + COMMANDS, HELO + COMMANDS, HELO + COMMANDS, HELO + COMMANDS + MAIL + b".\r\n")
        client.said = said[min(heard, 5)]
        self.give(client, True, client.isn + 1 + client.una, client.seen, ACK, options=timestamps(NEW))
        for place in range(client.una, len(client.said), 1000):
            text = client.said[place : place + 1000]
            seq = client.isn + 1 + place
            self.give(client, True, seq, client.seen, ACK | PSH, text, options=timestamps(NEW))

    def again(self, client: Connection) -> None:
        """It has been reset, and connects once more."""
        if b"250" in client.heard or client.port % 10 == MOST_TRIES:
            raise Violation(6, f"an honest connection is reset, having heard {bytes(client.heard)!r}")
        FLOOD_TOTALS.again += 1
        new = self.connection(client.source, client.port + 1)
        client.__dict__.update(new.__dict__)
        self.of_port[client.tracks[True].addresses, client.port.to_bytes(2)] = client

    # What a flood is made of.

    def opens(self, client: Connection) -> bool:
        self.give(client, True, client.isn, 0, SYN, options=timestamps(NEW))
        return client.seen is not None

    def syns(self) -> None:
        self.opens(self.stranger())

    def tricked(self, **traits: Any) -> None:
        """The gateway sees an ACK and, at times, a command that the server never gets.

        Not every gateway lets it come to that: what gets through all the same counts as a command like any other.
        """
        if self.sources > FEW and self.accepted >= FLOWS // 2:
            return
        client = self.stranger()
        if self.opens(client):
            how = {"options": timestamps(NEW), **traits}
            self.give(client, True, client.isn + 1, client.seen or 0, ACK, **how)
            if self.below(2):
                self.give(client, True, client.isn + 1, client.seen or 0, ACK | PSH, HELO, **how)
            self.accepted += b"250" in client.heard

    def lost(self) -> None:
        self.tricked(lost=True)

    def signed(self) -> None:
        self.tricked(options=timestamps(NEW) + OPTIONS["MD5"])

    def old(self) -> None:
        self.tricked(options=timestamps(OLD))

    def idle(self) -> Connection | None:
        """A real connection that says nothing."""
        client = self.stranger()
        if not self.opens(client):
            return None
        for _ in range(2):  # the handshake's, and that of the greeting
            self.give(client, True, client.isn + 1, client.seen or 0, ACK, options=timestamps(NEW))
        return client

    def busy(self) -> None:
        """A real connection with an accepted command: of few sources only, others are promised nothing."""
        if self.sources > FEW and self.accepted >= FLOWS // 2:
            return
        client = self.idle()
        if client and client.heard:
            self.accepted += 1
            self.give(client, True, client.isn + 1, client.seen or 0, ACK | PSH, HELO, options=timestamps(NEW))
            self.give(client, True, client.isn + 1 + len(HELO), client.seen or 0, ACK, options=timestamps(NEW))

    def stalled(self) -> None:
        """Octets that the server never gets."""
        if self.sources > FEW and self.accepted >= FLOWS // 2:
            return
        client = self.idle()
        if client and client.heard:
            self.accepted += 1
            seq = client.isn + 1
            for text in (HELO, COMMANDS):
                self.give(client, True, seq, client.seen, ACK | PSH, text, options=timestamps(NEW))
                seq += len(text)
            for _ in range(4):
                self.give(client, True, seq, client.seen, ACK | PSH, b"x" * 1000, options=timestamps(NEW), lost=True)
                seq += 1000

    def cookies(self) -> None:
        """Connections that no SYN goes before: what they begin is nobody's."""
        client = self.connection("10.9.0.1", 1024 + self.below(60_000), COOKIES)
        self.give(client, True, client.isn + 1, self.below(2**31), ACK, options=timestamps(NEW))


KINDS: tuple[Callable[[Flood], object], ...] = (
    Flood.syns,
    Flood.lost,
    Flood.signed,
    Flood.old,
    Flood.idle,
    Flood.busy,
    Flood.stalled,
    Flood.cookies,
)


def seeds(first: int, runs: int) -> Iterator[tuple[int, Violation | None]]:
    """So many runs, each from the next seed, and what is wrong with it."""
    for seed in range(first, first + runs):
        choose = random.Random(seed).random
        try:
            Flood(lambda n, choose=choose: int(choose() * n)).run()  # type: ignore[misc]
        except Violation as violation:
            yield seed, violation
        else:
            yield seed, None


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; each next one has the next")
    options = parser.parse_args()
    wrong = 0
    for seed, violation in seeds(options.seed, options.runs):
        if violation:
            wrong += 1
            _say(f"seed {seed}: {violation}")
    totals = FLOOD_TOTALS
    _say(
        f"floods: {options.runs:,} runs, {totals.deliveries:,} deliveries of {totals.flows:,} connections,"
        f" {totals.mails:,} honest mails arrived, {totals.again:,} of them not at the first try;"
        f" {wrong} runs in which one did not"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
