"""Every condition of ``[on]``, with every legal value and none, in enforce, monitor and a dry run.

Each is met by real packets; what becomes of the packet, of the flow afterwards, and what
counts it, is read from the packets that leave. The kernel's own two are in
``tests/live/test_conditions_live.py``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from nfmailguard.engine import Engine, OperationKind
from nfmailguard.policy.model import CONDITIONS, Action, Concerns, FlowRule, Limits, Mode, On
from tests.support.conditions import PIX63, SCENES, Case, Met, Wire
from tests.support.wire import ACK, PSH, SYN

ACCEPT, REPLACE, DROP, EMIT = OperationKind.ACCEPT, OperationKind.REPLACE, OperationKind.DROP, OperationKind.EMIT
MODES = {"enforce": (Mode.ENFORCE, False), "monitor": (Mode.MONITOR, False), "dry run": (Mode.ENFORCE, True)}


def condition_of(scene: Callable[[Case], Met]) -> str:
    """The longest setting's name that the scene's begins with."""
    return max((name for name in CONDITIONS if scene.__name__.startswith(name)), key=len)


def parameters(condition: str, scene: Callable[[Case], Met] | None = None) -> list[ParameterSet]:
    """Every legal value, and none, in every mode."""
    found = []
    for action in (None, *CONDITIONS[condition].actions):
        on = On(**{condition: action}) if action else On()
        for mode_name, (mode, dry_run) in MODES.items():
            name = f"{scene.__name__ if scene else condition}-{action or 'default'}-{mode_name}"
            case = Case(on.action(condition, mode), mode, dry_run, on)
            found.append(pytest.param(*([scene, case] if scene else [case]), id=name))
    return found


def say_denied(wire: Wire) -> tuple[list[int], bytes]:
    """The client's next line: its operations, and what the server receives."""
    wire.received[True].clear()
    wire.isn[True] = wire.sent[True] - 1  # so that the server's ACKs go on from here
    return wire.client(b"EHLO after\r\n"), wire.received_by_server


def expected(wire: Wire, to_server: bool) -> int:
    """The sequence number that the receiver expects next."""
    return wire.isn[to_server] + 1 + len(wire.received[to_server])


def assert_counted_and_reset(wire: Wire, action: Action) -> None:
    """The flow's end is counted, and a reset tells both sides."""
    counters = wire.engine.counters()
    assert (counters["flows_dropped"], counters["flows_reset"]) == ((0, 1) if action is Action.RESET else (1, 0))
    if action is Action.RESET:
        to_server, to_client = wire.resets[-2:]
        assert (to_server.destination, to_client.destination) == (wire.server_end, wire.client_end)
        # What the receiver has room for is answered, and then hit; what lies elsewhere is ignored (RFC 5961 3.2).
        assert 0 <= to_server.seq - expected(wire, True) < 65535
        assert wire.isn[False] + 1 <= to_client.seq < expected(wire, False) + 65535


def assert_ended(wire: Wire, action: Action) -> None:
    """Nothing goes through any more; after a reset each side that still speaks is told what ends its connection."""
    for to_server in (True, False):
        told = len(wire.resets)
        after = wire.send(to_server, ACK | PSH, b"QUIT\r\n" if to_server else b"250 ok\r\n")
        if action is Action.DROP:
            assert after == [DROP]
        else:
            assert after == [DROP, EMIT]
            assert wire.resets[told].seq == expected(wire, not to_server)


@pytest.mark.parametrize(
    ("scene", "case"), [case for scene in SCENES for case in parameters(condition_of(scene), scene)]
)
def test_what_is_set_is_what_happens(scene: Callable[[Case], Met], case: Case) -> None:
    spec = CONDITIONS[condition_of(scene)]
    wire, kinds, goes_on, read, followed = scene(case)
    unknown = condition_of(scene).startswith("midstream")  # of no flow: only its sender is told
    assert wire.engine.counters()[spec.counter] == 1
    if spec.finding:
        assert [found.name for found in wire.findings if found.name == spec.finding] == [spec.finding]

    # The packet.
    if not case.applied:
        assert kinds == [ACCEPT]
    elif case.action is Action.PASS:
        assert kinds[0] in (ACCEPT, REPLACE)
        assert set(kinds[1:]) <= {DROP}  # what the flow held; TCP repeats it
    elif case.action is Action.DROP:
        assert set(kinds) == {DROP}
    else:
        assert DROP in kinds
        assert kinds[-2:] == ([DROP, EMIT] if unknown else [EMIT, EMIT])

    # The flow.
    if case.applied and (
        case.action is Action.RESET or (case.action is Action.DROP and spec.concerns is Concerns.FLOW)
    ):
        if not unknown:
            assert_counted_and_reset(wire, case.action)
        assert_ended(wire, case.action)
        return
    assert wire.resets == []
    goes_on()
    kinds, received = say_denied(wire)
    denied = wire.engine.counters()["finding.command.denied"]
    if not case.applied:
        assert (kinds, received, denied) == ([ACCEPT], b"EHLO after\r\n", followed)
    elif case.action is Action.PASS and not read:
        assert (kinds, received, denied) == ([ACCEPT], b"EHLO after\r\n", 0)
    else:
        assert (kinds, received, denied) == ([REPLACE], b"XXXX after\r\n", 1)


def accepted(wire: Wire) -> Wire:
    """With a command of its client's accepted: it gives way to nobody."""
    wire.client(b"HELO a\r\n")
    wire.server(b"250 ok\r\n")
    return wire


@pytest.mark.parametrize("case", parameters("flow_limit"))
def test_a_full_table_refuses_passes_or_resets_a_new_flow(case: Case) -> None:
    old = accepted(case.greeted(flows=1))
    new = old.beside(40001)
    kinds = new.send(True, SYN)
    assert old.engine.counters()["finding.flow.limit"] == old.engine.counters()["flows_refused"] == 1
    new.sent[True] += 1
    if not case.applied or case.action is Action.PASS:
        assert kinds == [ACCEPT]
        assert say_denied(new) == ([ACCEPT], b"EHLO after\r\n")
    else:
        assert kinds == [DROP, EMIT] if case.action is Action.RESET else kinds == [DROP]
        assert say_denied(new)[1] == b""
    if case.applied and case.action is Action.RESET:
        refusal = new.resets[0]
        # RFC 9293 3.10.7.1: a SYN to a port where nobody listens.
        assert (refusal.destination, refusal.seq, refusal.ack) == (new.client_end, 0, 1001)
    # The flow that was there goes on.
    old.now, old.next_id = new.now, new.next_id
    assert say_denied(old)[1] == (b"XXXX after\r\n" if case.applied else b"EHLO after\r\n")
    # And with its end there is room.
    old.close()
    old.carry_out(old.engine.expire(old.now + 3600 * 10**9))
    old.now += 3600 * 10**9
    again = old.beside(40002)
    assert again.send(True, SYN) == [ACCEPT]
    assert again.engine.counters()["flows_now"] == 1


def test_a_refused_flow_is_refused_under_its_own_rule() -> None:
    enforced = FlowRule(Mode.ENFORCE, PIX63, source=(ip_network("10.0.1.3"),))
    old = Wire(Engine([enforced, FlowRule(Mode.MONITOR, PIX63)], limits=Limits(flows=1)))
    old.server(b"220 mail\r\n")
    accepted(old)
    assert old.beside(40001).send(True, SYN) == [DROP]


def short_of_memory(mode: Mode, on: On, memory: int) -> dict[str, int]:
    """Greetings that nobody acknowledges take what there is; then lines come in two packets. The counters then."""
    first = Wire(Engine([FlowRule(mode, PIX63)], on=on, limits=Limits(memory=memory)))
    wires = [first.beside(port) for port in range(40001, 40006)]
    for wire in wires:
        wire.open = first.open  # a held packet of one may be answered when another has ended its flow

    def send(wire: Wire, to_server: bool, flags: int, payload: bytes = b"") -> None:
        first.now = wire.now = first.now + 1000
        wire.next_id = first.next_id
        wire.received[False].clear()  # nothing of it is acknowledged
        wire.send(to_server, flags, payload)
        wire.sent[to_server] += len(payload) + bool(flags & SYN)
        first.next_id = wire.next_id

    for wire in wires:
        for to_server, flags in ((True, SYN), (False, SYN | ACK), (True, ACK)):
            send(wire, to_server, flags)
        send(wire, False, ACK | PSH, b"220 mail\r\n")
    for part in (b"MA", b"IL x\r\n") * 3:
        first.now += 2 * 10**9
        for wire in wires:
            send(wire, True, ACK | PSH, part)
    return first.engine.counters()


#: Half of it is for what five flows keep: a page of 2,048 octets for each direction, and a line.
MEMORY = range(16_000, 42_000, 400)


def test_monitor_stops_nothing_however_short_memory_is() -> None:
    for memory in MEMORY:
        counters = short_of_memory(Mode.MONITOR, On(), memory)
        assert counters["dropped"] == counters["emitted"] == 0, memory


@pytest.mark.parametrize("action", CONDITIONS["memory_limit"].actions)
def test_no_flow_falls_to_short_memory_untold(action: Action) -> None:
    fell = 0
    for memory in MEMORY:
        counters = short_of_memory(Mode.ENFORCE, On(memory_limit=action), memory)
        ended = counters["flows_passed"], counters["flows_dropped"], counters["flows_reset"]
        told = counters["finding.stream.memory_limit"]
        assert ended == tuple(told * (action is each) for each in (Action.PASS, Action.DROP, Action.RESET)), memory
        fell += told
    assert fell > 20


#: So many packets are held that the list of their answers has to grow, and the machine has no memory left for it.
NO_MEMORY_FOR_ANSWERS = """if 1:
    import resource, sys
    from ipaddress import ip_network
    from nfmailguard.engine import Engine
    from nfmailguard.policy.model import FlowRule, Limits, Mode, On, Action
    from tests.support.conditions import PIX63
    from tests.support.dialogue import Dialogue
    from tests.support.wire import ACK, End, build
    rules = [FlowRule(Mode.ENFORCE, PIX63, source=(ip_network("10.0.1.2"),)), FlowRule(Mode(sys.argv[1]), PIX63)]
    many = 10_000                                                             # one sender may have half
    limits = Limits(held_packets=many, held_per_flow=many, held_per_source=many)
    engine = Engine(rules, on=On(internal_error=Action(sys.argv[2]) if sys.argv[2:] else None), limits=limits)
    talk = Dialogue(engine)
    talk.server(b"220 mail\\r\\n")
    ends, seq, ack = (talk.client_end, talk.server_end), talk.sent[True], talk.sent[False]
    packets = [build(*ends, seq + 2 * n, ack, ACK, b"x") for n in range(1, 5000)]
    stranger = build(End("10.0.1.9", 40000), End("10.0.2.2", 26), 1, 1, ACK)   # of a port that nobody inspects
    held = iter(packets)
    for packet in held:
        assert engine.process(packet, 10**10, id=2) == []
        if engine.counters()["held_now"] == 4096 - 48:                        # the list has been doubled to this
            break
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used, used))
    assert engine.process(next(held), 10**10, id=2) == []                      # room for 4,096: still enough
    [(kind, packet_id, _, _)] = engine.process(stranger, 10**10, id=77)
    print(kind, packet_id, engine.counters()["internal_errors"])
"""


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer itself needs the memory that RLIMIT_AS takes away",
)
@pytest.mark.parametrize("action", [None, *CONDITIONS["internal_error"].actions])
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR])
def test_without_memory_to_answer_in_the_packet_is_answered_all_the_same(mode: Mode, action: Action | None) -> None:
    """Of the last rule; in a dry run nothing is held, and the list never grows."""
    command = [sys.executable, "-c", NO_MEMORY_FOR_ANSWERS, mode, *([action] if action else [])]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    dropped = mode is Mode.ENFORCE and On(internal_error=action).action("internal_error", mode) is Action.DROP
    assert (done.stdout, done.stderr) == (f"{DROP if dropped else ACCEPT} 77 1\n", "")


def test_each_condition_is_met_somewhere() -> None:
    here = {condition_of(scene) for scene in SCENES} | {"flow_limit", "internal_error"}
    live = (Path(__file__).parents[1] / "live" / "test_conditions_live.py").read_text()
    assert here | set(re.findall(r'option\("(\w+)"', live)) >= set(CONDITIONS)
    assert list(CONDITIONS) == list(On.__struct_fields__)
