"""Every condition of ``[on]``, with every legal value and none, in enforce, monitor and a dry run.

Each is met by real packets; what becomes of the packet, of the flow afterwards, and what
counts it, is read from the packets that leave. The kernel's own two are in
``tests/live/test_conditions_live.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from nfmailguard.engine import Engine, OperationKind
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import CONDITIONS, Action, Concerns, FlowRule, Limits, Mode, On
from tests.support.dialogue import Dialogue
from tests.support.wire import ACK, PSH, SYN, Segment, build

ACCEPT, REPLACE, DROP, EMIT = OperationKind.ACCEPT, OperationKind.REPLACE, OperationKind.DROP, OperationKind.EMIT
PIX63 = load_profile("pix63")
KERNEL = {"queue_full", "no_listener"}
CLIENT_SIDE, SERVER_SIDE, ELSEWHERE = 1, 2, 3
MODES = {"enforce": (Mode.ENFORCE, False), "monitor": (Mode.MONITOR, False), "dry run": (Mode.ENFORCE, True)}


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
    ``follows``: where nothing is stopped, the flow is still read.
    """

    wire: Wire
    kinds: list[int]
    goes_on: Callable[[], object] = lambda: None
    follows: bool = False


def memory_limit(case: Case) -> Met:
    wire = case.greeted(memory=40_000)
    wire.client(b"HELO a\r\n")
    line = b"250-" + bytes(996).replace(b"\0", b"x") + b"\r\n"
    for _ in range(60):  # the client acknowledges nothing
        kinds = wire.server(line)
        if wire.engine.counters()["finding.stream.memory_limit"]:
            break
    return Met(wire, kinds, lambda: wire.server(b"250 ok\r\n"), follows=True)


def pending_limit_in_a_message(case: Case) -> Met:
    wire = case.in_message(pending_segments=2)
    text = b"one\r\ntwo\r\nsix\r\nten\r\n"
    start = wire.sent[True]
    for at in (5, 10, 15):
        # Each behind a gap of its own: 5 octets of every 10.
        kinds = wire.send(True, ACK | PSH, text[at : at + 4], seq=start + at)

    def close_the_gaps() -> None:
        wire.received[True].clear()  # what went ahead was noted as it passed, not as it is read
        wire.client(text)
        wire.client(b".\r\n")
        wire.server(b"250 queued\r\n")
        assert wire.received_by_server == text + b".\r\n"

    return Met(wire, kinds, close_the_gaps)


def pending_limit_among_commands(case: Case) -> Met:
    wire = case.greeted(held_per_flow=1, pending_segments=1)
    lines = [b"NOOP 1\r\n", b"NOOP 2\r\n", b"NOOP 3\r\n"]
    start = wire.sent[True]
    wire.send(True, ACK | PSH, lines[1], seq=start + 9)
    kinds = wire.send(True, ACK | PSH, lines[2], seq=start + 27)

    def close_the_gap() -> None:
        wire.client(lines[0])
        wire.client(b"\n")

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
    return Met(wire, wire.repeat(b"QUIT\r\n"), lambda: wire.server(b"250 ok\r\n"), follows=True)


def conflict_ahead_of_a_gap(case: Case) -> Met:
    wire = case.in_message()
    start = wire.sent[True]
    wire.send(True, ACK | PSH, b"two\r\n", seq=start + 5)
    kinds = wire.send(True, ACK | PSH, b"TWO\r\n", seq=start + 5)

    def close_the_gap() -> None:
        wire.received[True].clear()
        wire.client(b"one\r\ntwo\r\n.\r\n")
        wire.server(b"250 queued\r\n")

    return Met(wire, kinds, close_the_gap, follows=True)


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
    if kinds == [DROP]:
        return Met(wire, kinds, lambda: (wire.repeat(b"NOOP\r\n"), wire.server(b"250 ok\r\n")), follows=True)
    return Met(wire, kinds, lambda: wire.server(b"250 ok\r\n"), follows=True)


def unknown_flow(case: Case, startup: float) -> Met:
    other = Wire(case.engine(startup=startup))  # begins at the engine's first packet
    wire = Wire.__new__(Wire)
    wire.__dict__.update(other.__dict__)
    wire.client_end = type(other.client_end)("10.0.1.3", 40001)
    return Met(wire, wire.client(b"NOOP\r\n"))


def midstream(case: Case) -> Met:
    return unknown_flow(case, 0.0)


def midstream_at_start(case: Case) -> Met:
    return unknown_flow(case, 60.0)


SCENES = [
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


def condition_of(scene: Callable[[Case], Met]) -> str:
    """The longest setting's name that the scene's begins with."""
    return max((name for name in CONDITIONS if scene.__name__.startswith(name)), key=len)


def cases(scenes: list[Callable[[Case], Met]]) -> list[object]:
    found = []
    for scene in scenes:
        spec = CONDITIONS[condition_of(scene)]
        for action in (None, *spec.actions):
            for mode_name, (mode, dry_run) in MODES.items():
                on = On(**{spec.name: action}) if action else On()
                case = Case(on.action(spec.name, mode), mode, dry_run, on)
                found.append(pytest.param(scene, case, id=f"{scene.__name__}-{action or 'default'}-{mode_name}"))
    return found


def says_something_denied(wire: Wire) -> tuple[list[int], bytes]:
    """The client's next line, and what the server receives of it."""
    wire.received[True].clear()
    wire.isn[True] = wire.sent[True] - 1  # so that the server's ACKs go on from here
    return wire.client(b"EHLO after\r\n"), wire.received_by_server


def last_reset(wire: Wire) -> Segment:
    return wire.resets[-1]


@pytest.mark.parametrize(("scene", "case"), cases(SCENES))
def test_what_is_set_is_what_happens(scene: Callable[[Case], Met], case: Case) -> None:
    spec = CONDITIONS[condition_of(scene)]
    wire, kinds, goes_on, follows = scene(case)
    counters = wire.engine.counters()
    assert counters[spec.counter] == 1
    if spec.finding:
        assert [found.name for found in wire.findings if found.name == spec.finding] == [spec.finding]
    ends = case.applied and (
        case.action is Action.RESET or (case.action is Action.DROP and spec.concerns is Concerns.FLOW)
    )

    # The packet.
    if not case.applied:
        assert kinds == [ACCEPT]
        assert wire.resets == []
    elif case.action is Action.PASS:
        assert kinds in ([ACCEPT], [REPLACE])
        assert wire.resets == []
    elif case.action is Action.DROP:
        assert set(kinds) == {DROP}
        assert wire.resets == []
    else:
        assert kinds[:1] == [DROP]
        assert kinds[-2:] == [EMIT, EMIT]

    # The flow.
    if ends:
        assert (counters["flows_dropped"], counters["flows_reset"]) == (
            (0, 1) if case.action is Action.RESET else (1, 0)
        )
        for to_server in (True, False):
            told = len(wire.resets)
            after = wire.send(to_server, ACK | PSH, b"QUIT\r\n" if to_server else b"250 ok\r\n")
            if case.action is Action.DROP:
                assert after == [DROP]
            else:
                assert after == [DROP, EMIT]
                # RFC 5961 3.2: only a RST with exactly the number the receiver expects ends its connection.
                heard = wire.isn[not to_server] + 1 + len(wire.received[not to_server])
                assert last_reset(wire).seq == heard
                assert len(wire.resets) == told + 1
        return
    assert counters["flows_dropped"] == counters["flows_reset"] == 0
    goes_on()
    kinds, received = says_something_denied(wire)
    denied = wire.engine.counters()["finding.command.denied"]
    if not case.applied:
        assert (kinds, received) == ([ACCEPT], b"EHLO after\r\n")
        assert denied == follows
    elif case.action is Action.PASS and not follows:
        assert (kinds, received, denied) == ([ACCEPT], b"EHLO after\r\n", 0)
    else:
        assert (kinds, received, denied) == ([REPLACE], b"XXXX after\r\n", 1)
