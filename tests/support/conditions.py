"""Every condition of ``[on]`` that an Engine meets, met by real packets.

A scene brings a connection to the condition and says what its peers do next. Does not
know what is to happen then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from nfmailguard.engine import Engine, OperationKind
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Action, FlowRule, Limits, Mode, On
from tests.support.dialogue import Dialogue
from tests.support.wire import ACK, PSH, SYN, End, build

PIX63 = load_profile("pix63")
CLIENT_SIDE, SERVER_SIDE, ELSEWHERE = 1, 2, 3


class Wire(Dialogue):
    """A dialogue through a gateway with two interfaces, whose packets may be cut or come from elsewhere."""

    came_in_on = 0
    cut = 0

    def raw(self, to_server: bool, packet: bytes) -> list[int]:
        packet_id, self.next_id = self.next_id, self.next_id + 1
        self.now += 1000
        self.open[packet_id] = (to_server, packet)
        sides = (CLIENT_SIDE, SERVER_SIDE) if to_server else (SERVER_SIDE, CLIENT_SIDE)
        return self.carry_out(
            self.engine.process(
                packet[: self.cut or len(packet)],
                self.now,
                id=packet_id,
                length=len(packet),
                in_interface=self.came_in_on or sides[0],
                out_interface=sides[1],
            )
        )

    def beside(self, port: int) -> Wire:
        """Another client's connection, of which nothing has been sent, later than all of this one."""
        other = copy.copy(self)
        other.client_end = End("10.0.1.3", port)
        other.open, other.emitted, other.records = {}, [], []
        other.sent = dict(self.isn)
        other.received = {True: bytearray(), False: bytearray()}
        return other

    def ahead(self, octets: bytes, seq: int) -> list[int]:
        """The client sends what lies ahead of its turn: the server cannot read it yet."""
        received = len(self.received[True])
        kinds = self.send(True, ACK | PSH, octets, seq=seq)
        del self.received[True][received:]
        return kinds

    def repeat(self, octets: bytes) -> list[int]:
        """The client's last ``octets`` again."""
        return self.send(True, ACK | PSH, octets, seq=self.sent[True] - len(octets))


@dataclass
class Case:
    """One value of one setting in one mode."""

    action: Action
    mode: Mode
    dry_run: bool
    on: On

    @property
    def applied(self) -> bool:
        return self.mode is Mode.ENFORCE and not self.dry_run

    def engine(self, **limits: float) -> Engine:
        return Engine(
            [FlowRule(self.mode, PIX63)],
            on=self.on,
            dry_run=self.dry_run,
            limits=Limits(**limits),  # type: ignore[arg-type]
        )

    def greeted(self, **limits: float) -> Wire:
        wire = Wire(self.engine(**limits))
        wire.server(b"220 mail ESMTP\r\n")
        return wire

    def in_message(self, **limits: float) -> Wire:
        wire = self.greeted(**limits)
        for command in (b"HELO a\r\n", b"MAIL FROM:<a@a>\r\n", b"RCPT TO:<b@b>\r\n"):
            wire.client(command)
            wire.server(b"250 ok\r\n")
        wire.client(b"DATA\r\n")
        wire.server(b"354 go on\r\n")
        return wire


class Met(NamedTuple):
    """A condition that has just been met.

    ``kinds``: the operations of the packet that met it. ``goes_on``: what the peers do
    next on a flow that goes on, where there is anything left to say before a new line.
    Whether such a flow is still read: ``read`` under "pass", ``followed`` where nothing
    is stopped.
    """

    wire: Wire
    kinds: list[int]
    goes_on: Callable[[], object] = lambda: None
    read: bool = False
    followed: bool = False


def memory_limit(case: Case) -> Met:
    wire = case.greeted(memory=40_000)
    wire.client(b"HELO a\r\n")
    line = b"250-" + bytes(996).replace(b"\0", b"x") + b"\r\n"
    for _ in range(60):  # the client acknowledges nothing, for longer than limits.stalled
        wire.now += 3 * 10**9
        kinds = wire.server(line)
        if wire.engine.counters()["finding.stream.memory_limit"]:
            break
    return Met(wire, kinds, lambda: wire.server(b"250 ok\r\n"), followed=True)


def pending_limit_in_a_message(case: Case) -> Met:
    wire = case.in_message(pending_segments=2)
    text = b"one\r\ntwo\r\nsix\r\nten\r\n"
    start = wire.sent[True]
    for at in (5, 10, 15):
        # Each behind a gap of its own: 5 octets of every 10.
        kinds = wire.ahead(text[at : at + 4], start + at)

    def close_the_gaps() -> None:
        wire.received[True].clear()
        wire.client(text)
        wire.client(b".\r\n")
        wire.server(b"250 queued\r\n")
        assert wire.received_by_server == text + b".\r\n"

    return Met(wire, kinds, close_the_gaps)


def pending_limit_among_commands(case: Case) -> Met:
    wire = case.greeted(held_per_flow=1, pending_segments=1)
    lines = [b"NOOP 1\r\n", b"NOOP 2\r\n", b"NOOP 3\r\n"]
    start = wire.sent[True]
    wire.ahead(lines[1], start + 8)
    kinds = wire.ahead(lines[2], start + 16)

    def close_the_gap() -> None:
        wire.received[True].clear()
        wire.client(lines[0])
        wire.sent[True] += 8
        if case.applied and case.action is Action.DROP:
            assert wire.received_by_server == lines[0] + lines[1]
        wire.client(lines[2])

    return Met(wire, kinds, close_the_gap)


def gap(case: Case) -> Met:
    wire = case.greeted()
    wire.client(b"NOOP\r\n")
    ends = wire.server_end, wire.client_end
    kinds = wire.raw(False, build(*ends, wire.sent[False], wire.sent[True] + 100, ACK | PSH, b"250 ok\r\n"))
    return Met(wire, kinds)


def conflict(case: Case) -> Met:
    wire = case.greeted()
    wire.client(b"NOOP\r\n")
    wire.received[True].clear()  # lost behind the gateway
    return Met(wire, wire.repeat(b"QUIT\r\n"), lambda: wire.server(b"250 ok\r\n"), read=True, followed=True)


def conflict_ahead_of_a_gap(case: Case) -> Met:
    wire = case.in_message()
    start = wire.sent[True]
    wire.ahead(b"two\r\n", start + 5)
    kinds = wire.ahead(b"TWO\r\n", start + 5)

    def close_the_gap() -> None:
        wire.received[True].clear()
        wire.client(b"one\r\ntwo\r\n.\r\n")
        wire.server(b"250 queued\r\n")

    return Met(wire, kinds, close_the_gap, read=True, followed=True)


def truncated(case: Case) -> Met:
    wire = case.greeted()
    wire.cut = 44
    kinds = wire.client(b"NOOP " + b"x" * 100 + b"\r\n")
    wire.cut = 0

    def again_in_smaller_ones() -> None:
        if not wire.received_by_server:
            wire.sent[True] -= 107
            wire.client(b"NOOP " + b"x" * 100 + b"\r\n")
        wire.server(b"250 ok\r\n")

    return Met(wire, kinds, again_in_smaller_ones)


def not_smtp(case: Case) -> Met:
    wire = Wire(case.engine())
    return Met(wire, wire.server(b"SSH-2.0-OpenSSH\r\n"))


def asymmetric(case: Case) -> Met:
    class OneSided(Wire):
        def send(self, to_server: bool, flags: int, payload: bytes = b"", seq: int | None = None) -> list[int]:
            return [] if not to_server and flags & SYN else super().send(to_server, flags, payload, seq)

    wire = OneSided(case.engine())
    return Met(wire, wire.client(b"HELO a\r\n"))


def wrong_interface(case: Case) -> Met:
    wire = case.greeted()
    wire.came_in_on = ELSEWHERE
    kinds = wire.client(b"NOOP\r\n")
    wire.came_in_on = 0
    if kinds == [OperationKind.DROP]:
        return Met(
            wire, kinds, lambda: (wire.repeat(b"NOOP\r\n"), wire.server(b"250 ok\r\n")), read=True, followed=True
        )
    return Met(wire, kinds, lambda: wire.server(b"250 ok\r\n"), read=True, followed=True)


def unknown_flow(case: Case, startup: float) -> Met:
    wire = Wire(case.engine(startup=startup)).beside(40001)  # which begins with the engine's first packet
    wire.sent = {to_server: isn + 1 for to_server, isn in wire.isn.items()}
    return Met(wire, wire.client(b"NOOP\r\n"))


def midstream(case: Case) -> Met:
    return unknown_flow(case, 0.0)


def midstream_at_start(case: Case) -> Met:
    return unknown_flow(case, 60.0)


SCENES: list[Callable[[Case], Met]] = [
    memory_limit,
    pending_limit_in_a_message,
    pending_limit_among_commands,
    gap,
    conflict,
    conflict_ahead_of_a_gap,
    truncated,
    not_smtp,
    asymmetric,
    wrong_interface,
    midstream,
    midstream_at_start,
]
