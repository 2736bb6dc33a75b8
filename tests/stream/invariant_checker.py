"""The gateway under test, with a check of everything that goes in and comes out.

Promises: invariants 1, 3, 5, 6 and 8 are checked at every packet, and of invariant 2
what can be said without any receiver: no two copies of an octet that leave differ, and
none leaves that has not been decided. A Violation names the invariant. Does not know
what the octets mean, nor who sent them.
"""

from __future__ import annotations

from typing import NamedTuple

from nfmailguard.engine import Engine
from tests.stream.packets import ACK, FIN, RST, SYN, URG, Segment, Track
from tests.stream.reassembly_model import ReassemblyModel

ACCEPT, REPLACE, DROP, EMIT = range(4)
FLOWS = 4  #: the engine's cap
_KINDS = ("accept", "replace", "drop", "emit")


class Violation(AssertionError):  # noqa: N818, it names what was violated
    """An invariant of the design does not hold."""

    def __init__(self, invariant: int, what: str) -> None:
        super().__init__(f"invariant {invariant}: {what}")
        self.invariant = invariant


class Given(NamedTuple):
    """A packet as it was given."""

    to_server: bool
    packet: bytes
    segment: Segment
    start: int
    believable: bool


class InvariantChecker:
    """One flow through ``engine``; ``out`` holds what has left and is on its way: (to_server, segment)."""

    def __init__(
        self, engine: Engine, tracks: tuple[Track, Track], bases: tuple[int, int], *, apply: bool, memory: int, now: int
    ) -> None:
        self.engine = engine
        self.tracks = tracks
        self.bases = bases  # sequence numbers of both streams' first octets
        self.apply = apply
        self.holds = apply  #: the client's octets wait where they cannot be decided
        self.memory = memory
        self.now = now
        self.open: dict[int, Given] = {}
        self.out: list[tuple[bool, Segment]] = []
        self.reassembly = ReassemblyModel(apply=apply)
        self.left = [bytearray(), bytearray()]
        self.ahead: list[dict[int, int]] = [{}, {}]
        self.acked = [0, 0]
        self.fins = [2**32, 2**32]  # where streams ended
        self.next_id = 0
        self.ended = False  # the gateway has ended the flow, or what came behind it
        self.cut_short = False  # it has ended it while it inspected it
        self.over = False  # it does not follow it any more, or has forgotten it
        self.forgotten = False
        self.reborn = False  # the same ports are used again
        self.passed = False  # it is not looked at any more
        self.lied = False  # an end has acknowledged what it does not have
        self.first = self.last = engine.core_counters()[0]
        self.given = 0
        self.server_has_sent = 0  # bytes, however often
        self.trace: list[tuple[object, ...]] = []

    def story(self) -> str:
        """What was given, in order, and what became of it."""
        lines = []
        for entry in self.trace:
            if len(entry) == 1:
                lines.append(f"time passes: {entry[0]} ns")
                continue
            to_server, start, segment, verdicts, note = entry
            acked = (segment.ack - self.bases[not to_server] + 2**31) % 2**32 - 2**31  # type: ignore[attr-defined]
            lines.append(
                f"{'C' if to_server else '  S'} {start:5} ack {acked:5} {segment.flags:#04x} {segment.payload!r}"  # type: ignore[attr-defined]
                f" {note} -> {verdicts}"
            )
        return "\n".join(lines)

    def give(
        self,
        to_server: bool,
        packet: bytes,
        start: int,
        *,
        believable: bool = True,
        interface: int = 0,
        flags: int = 0,
        length: int = 0,
        seen: Segment | None = None,
    ) -> bool:
        """Gives it a packet whose payload begins at ``start`` of the stream; whether it has left.

        ``believable``: it is an ordinary segment of the connection, whose octets count. ``seen``
        is what it would say, where it cannot be read; ``length`` its own, where it is cut.
        """
        own = self.next_id = self.next_id + 1
        self.now += 1000
        self.given += 1
        segment = seen or self.tracks[to_server].read(packet)
        self.server_has_sent += len(segment.payload) * (not to_server)
        self.open[own] = Given(to_server, packet, segment, start, believable)
        came_in = interface or (1 if to_server else 2)
        operations = self.engine.process(
            packet, self.now, id=own, length=length, in_interface=came_in, out_interface=3 - came_in, flags=flags
        )
        note = "" if believable else "(not to be believed)"
        shown = [(_KINDS[kind], packet_id) for kind, packet_id, _, _ in operations]
        self.trace.append((to_server, start, segment, f"{own}: {shown}", note))
        return self.settle(operations, own)

    def expire(self, nanoseconds: int) -> None:
        """Time passes."""
        self.now += nanoseconds
        self.trace.append((nanoseconds,))
        self.settle(self.engine.expire(self.now), 0)

    def finish(self) -> None:
        """The engine stops."""
        self.over = True
        self.settle(self.engine.finish(self.now), 0)

    def settle(self, operations: list[tuple[int, int, bytes | None, bool]], own: int) -> bool:
        """InvariantChecker what a call has done; whether packet ``own``, the one it was given, has left."""
        given = self.open.get(own)
        leaving, verdicts = self.answers(operations)
        if given is not None and not self.apply and own not in verdicts:
            raise Violation(5, f"held {given.segment}")
        before, self.last = self.last, self.engine.core_counters()[0]
        self.count(before)
        ends = sum(self.last[name] - before[name] for name in ("flows_reset", "flows_dropped")) > 0
        closed = self.last.get("drop.closed", 0) > before.get(
            "drop.closed", 0
        )  # by what TCP says, of which the model knows nothing
        told = given is not None and given.segment.flags & RST and verdicts.get(own) is not None
        if self.last["flows_opened"] > self.first["flows_opened"] + 1:
            self.reborn = self.over = True
        if given is not None and (given.believable or (given.segment.flags & SYN and verdicts.get(own) is not None)):
            self.note_ack(given.to_server, given.segment)
        if not self.over and not self.ended:
            if given is not None and given.believable:
                octets = given.segment.payload
                self.reassembly.given(given.to_server, own, given.start, octets, verdicts, ended=ends and self.apply)
            else:
                self.reassembly.forget(verdicts)
        self.passed |= self.last["flows_passed"] > before["flows_passed"]
        self.over |= self.passed
        for answered, segment in leaving:
            self.leave(answered, segment, ending=ends)
        self.ended |= ends or (bool(told) and self.holds and not self.over)
        self.cut_short |= ends and not closed and not self.over
        self.forgotten |= self.last["flows_now"] == 0
        self.over |= self.forgotten
        return verdicts.get(own) is not None

    def answers(
        self, operations: list[tuple[int, int, bytes | None, bool]]
    ) -> tuple[list[tuple[Given, Segment]], dict[int, bytes | None]]:
        """What leaves, and what every answered packet's payload has become, None where it was dropped."""
        verdicts: dict[int, bytes | None] = {}
        leaving: list[tuple[Given, Segment]] = []
        for kind, packet_id, data, to_server in operations:
            if kind == EMIT:
                assert data is not None
                self.emitted(to_server, data)
                continue
            answered = self.open.pop(packet_id, None)
            if answered is None:
                raise Violation(1, f"a second verdict for packet {packet_id}")
            if kind == DROP:
                if not self.apply:
                    raise Violation(5, f"dropped {answered.segment}")
                verdicts[packet_id] = None
                continue
            segment = answered.segment if data is None else self.changed(answered, data)
            verdicts[packet_id] = segment.payload
            leaving.append((answered, segment))
        return leaving, verdicts

    def emitted(self, to_server: bool, data: bytes) -> None:
        """A packet of the gateway's own: a RST, to be taken like any other."""
        track = self.tracks[to_server]
        if wrong := track.wrong_with(data):
            raise Violation(3, f"emitted: {wrong}")
        segment = track.read(data)
        if not self.apply or not segment.flags & RST or segment.payload:
            raise Violation(5 if not self.apply else 2, f"emitted {segment}")
        self.out.append((to_server, segment))

    def changed(self, given: Given, data: bytes) -> Segment:
        """Invariant 3: a replaced packet is the same one, never longer, with right checksums."""
        if not self.apply:
            raise Violation(5, f"replaced {given.packet.hex()}")
        track = self.tracks[given.to_server]
        if wrong := track.wrong_with(data):
            raise Violation(3, f"{wrong} of {data.hex()}")
        segment = track.read(data)
        at = track.at
        if given.to_server and given.segment.flags & (SYN | ACK) == SYN and segment.flags == ACK:
            # A SYN on an open flow asks the server whether it has the connection, with an old number.
            if segment.payload or len(data) - at > 60:
                raise Violation(3, f"{given.segment} became {segment}")
            return segment
        # What could be a SYN cookie of the client's lies a little aside: a bare ACK is ahead, others are less.
        ahead = (segment.seq - given.segment.seq) % 2**32
        less = (given.segment.ack - segment.ack) % 2**32
        if data[at : at + 4] != given.packet[at : at + 4] or len(data) > len(given.packet):
            raise Violation(3, f"{given.segment} became {segment}")
        if max(ahead, less) > 96 * given.to_server or (
            ahead and (less or given.segment.payload or given.segment.flags & FIN)
        ):
            raise Violation(3, f"{given.segment} became {segment}")
        if segment.flags & ~given.segment.flags or (
            segment.window > given.segment.window and not self.may_widen(given, segment)
        ):
            raise Violation(3, f"{given.segment} became {segment}")
        return segment

    def may_widen(self, given: Given, segment: Segment) -> bool:
        """A client's window, in the midst of a text: to no more than a reply's line behind all the server has said."""
        return self.apply and given.to_server and segment.window <= self.server_has_sent + 512

    def leave(self, given: Given, segment: Segment, *, ending: bool) -> None:
        to_server = given.to_server
        self.out.append((to_server, segment))
        if (
            segment.payload
            and self.apply
            and (self.forgotten or self.ended)
            and not self.reborn
            and not segment.flags & RST
        ):
            raise Violation(2, f"octets of a flow that has ended leave: {segment}")
        if not self.apply or self.over:
            return
        if segment.flags & FIN and given.believable:
            end = given.start + len(segment.payload)
            if end == self.reassembly.sides[to_server].next:  # in its turn: who gets it reads nothing more
                self.fins[to_server] = min(self.fins[to_server], end)
        if not segment.payload:
            return
        if segment.flags & URG:
            raise Violation(2, f"urgent data leaves: {segment}")
        if not given.believable:
            if not self.holds and (segment.option or segment.stamp is not None):
                return  # its receiver refuses it; who restores refuses nothing
            raise Violation(2, f"octets nobody should believe leave: {segment}")
        self.octets(to_server, given.start, segment.payload)
        if len(self.left[to_server]) > self.fins[to_server] and (self.holds or not to_server):
            raise Violation(2, f"octets leave behind the FIN at {self.fins[to_server]}")
        if len(self.left[to_server]) > self.reassembly.sides[to_server].next and not ending:
            raise Violation(
                2, f"octets from {self.reassembly.sides[to_server].next} on can be read and are not decided"
            )

    def note_ack(self, to_server: bool, segment: Segment) -> None:
        # What was acknowledged through the gateway need not be put back any more.
        other = not to_server
        acked = segment.ack - self.bases[other]
        acked = (acked + 2**31) % 2**32 - 2**31
        if segment.flags & ACK and acked > self.acked[other]:
            self.acked[other] = min(acked, len(self.left[other]))

    def octets(self, to_server: bool, start: int, payload: bytes) -> None:
        """Invariant 2, without any luck of a receiver's: every copy of an octet that leaves is the same."""
        left, ahead = self.left[to_server], self.ahead[to_server]
        have = len(left)
        if start < have:
            acked = self.acked[to_server]
            for place, octet in enumerate(payload[: have - start], start=start):
                if place >= 0 and octet != left[place] and (place >= acked or octet):
                    raise Violation(2, f"octet {place} left as {left[place : place + 1]!r} and as {bytes([octet])!r}")
            payload = payload[have - start :]
            start = have
        if ahead or start > have:
            for place, octet in enumerate(payload, start=start):
                if ahead.setdefault(place, octet) != octet:
                    raise Violation(
                        2, f"octet {place} left early as {bytes([ahead[place]])!r}, then {bytes([octet])!r}"
                    )
            while len(left) in ahead:
                left.append(ahead.pop(len(left)))
        else:
            left += payload

    def count(self, before: dict[str, int]) -> None:
        """Invariants 6, 7 and 8: the counters of the core agree with ours."""
        counters = self.last
        answered = counters["accepted"] + counters["replaced"] + counters["dropped"]
        if counters["packets"] != answered + counters["held_now"]:
            raise Violation(8, f"{counters['packets']} packets, {answered} answered, {counters['held_now']} held")
        if counters["packets"] - self.first["packets"] != self.given or counters["held_now"] != len(self.open):
            raise Violation(8, f"{self.given} given, {len(self.open)} open; the core: {counters}")
        if counters["dropped"] != before["dropped"]:
            reasons = sum(counters[name] for name in counters if name.startswith("drop."))
            if reasons != counters["dropped"]:
                raise Violation(8, f"{counters['dropped']} packets dropped, {reasons} with a reason")
        if counters["memory_now"] > self.memory or counters["flows_now"] > FLOWS:
            raise Violation(
                6, f"{counters['memory_now']} octets of {self.memory}, {counters['flows_now']} flows of {FLOWS}"
            )
        if counters["internal_errors"] or counters["records_lost"]:
            raise Violation(
                7, f"{counters['internal_errors']} internal errors, {counters['records_lost']} records lost"
            )


__all__ = ["ACCEPT", "DROP", "EMIT", "REPLACE", "Given", "InvariantChecker", "Violation"]
