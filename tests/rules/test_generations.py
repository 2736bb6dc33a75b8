"""Rules that are replaced while flows are open (docs/streams.md): who comes under which, and when they are freed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from nfmailguard.events.eve import EveWriter
from nfmailguard.policy.model import Action, FlowRule, Limits, Mode, On, Policy
from tests.rules.gateway import ACCEPT, DROP, EMIT, REPLACE, Connection, Gateway, profile
from tests.support.wire import ACK, RST, SYN

families = pytest.mark.parametrize("family", [4, 6])
RULE = 3  # of a record
RULES = 64  # of a generation


def also(policy: str, *verbs: str, name: str = "also") -> Policy:
    known = profile(policy)
    commands = structs.replace(known.commands, allow=(*known.commands.allow, *verbs))
    return structs.replace(known, name=name, commands=commands)


def another(gateway: Gateway, number: int, family: int = 4) -> Connection:
    return Connection(gateway, family, port=40000 + number).greeted()


def ends(connection: Connection) -> None:
    assert connection.send(False, RST, seq=connection.has(False)) == [ACCEPT]
    connection.gateway.now += 3600 * 1_000_000_000
    for engine in (connection.gateway.engine, connection.gateway.watching, connection.gateway.dry):
        engine.expire(connection.gateway.now)


def settle(gateway: Gateway) -> list[list[tuple[int, int]]]:
    """Two looks at what is in use, a batch apart; (number, flows) of each engine's, the latest first."""
    engines = (gateway.engine, gateway.watching, gateway.dry)
    for engine in engines:
        for _ in range(2):
            while engine.drain():
                pass
            engine.take_up(gateway.now)
            engine.free_unused()
    return [engine.generations() for engine in engines]


@families
def test_rules_of_begin_stay_until_the_flow_ends(family: int) -> None:
    gateway = Gateway("pix63")
    old = another(gateway, 0, family)
    assert old.client_reads == b"220 **********\r\n"
    gateway.reload("asa")
    new = another(gateway, 1, family)
    assert new.client(b"EHLO a.example\r\n") == [ACCEPT]
    gateway.reload("pix63")
    assert old.client(b"EHLO a.example\r\n") == [REPLACE]
    assert old.server_reads == b"XXXX a.example\r\n"
    assert new.server(b"250-mail\r\n250-CHUNKING\r\n250 8BITMIME\r\n") == [REPLACE]
    assert new.client_reads.endswith(b"250-mail\r\n250-XXXXXXXA\r\n250 8BITMIME\r\n")
    assert another(gateway, 2, family).client(b"EHLO a.example\r\n") == [REPLACE]


@families
def test_rules_of_begin_hold_from_the_syn_on(family: int) -> None:
    gateway = Gateway("pix63")
    connection = Connection(gateway, family, shake=False)
    assert connection.send(True, SYN) == [ACCEPT]
    connection.sent[True] += 1
    gateway.reload("asa")
    assert connection.send(False, SYN | ACK) == [ACCEPT]
    connection.sent[False] += 1
    assert connection.send(True, ACK) == [ACCEPT]
    connection.greeted()
    assert connection.client(b"EHLO a.example\r\n") == [REPLACE]
    assert connection.server_reads == b"XXXX a.example\r\n"


def test_rules_of_begin_hold_in_the_midst_of_a_line() -> None:
    gateway = Gateway("asa")
    connection = another(gateway, 0)
    assert connection.client(b"EH") == [ACCEPT]
    gateway.reload("pix63")
    assert connection.client(b"LO a.example\r\n") == [ACCEPT]
    assert connection.server_reads == b"EHLO a.example\r\n"


def test_rules_of_begin_hold_for_a_packet_that_waits() -> None:
    gateway = Gateway("pix63")
    connection = another(gateway, 0)
    place = connection.mark
    assert connection.send(True, payload=b"EHLO b\r\n", at=place + 6) == []
    gateway.reload("asa")
    assert connection.send(True, payload=b"NOOP\r\n", at=place) == [ACCEPT, REPLACE]
    assert connection.server_reads == b"NOOP\r\nXXXX b\r\n"


def test_rules_of_begin_keep_their_verbs() -> None:
    # Behind the grammar's own, both get the same number.
    gateway = Gateway(also("pix63", "ZULU"))
    connection = another(gateway, 0)
    gateway.reload(also("pix63", "ALFA"))
    assert connection.client(b"ZULU\r\n") == [ACCEPT]
    assert connection.server(b"250 yes\r\n") == [ACCEPT]
    assert connection.client(b"ALFA\r\n") == [REPLACE]
    new = another(gateway, 1)
    assert new.client(b"ALFA\r\n") == [ACCEPT]
    assert new.server(b"250 yes\r\n") == [ACCEPT]
    assert new.client(b"ZULU\r\n") == [REPLACE]


def test_rules_of_begin_are_a_flow_s_whose_server_answers_another_syn() -> None:
    gateway = Gateway("pix63")
    connection = another(gateway, 0)
    gateway.reload("asa")
    # Where nothing may be changed the SYN passes, and the server's answer begins another flow in its place.
    connection.begin((7000, 9000))
    for to_server, flags in ((True, SYN), (False, SYN | ACK)):
        connection.send(to_server, flags)
        connection.sent[to_server] += 1
    assert [flows for _, flows in gateway.watching.generations()] == [0, 1]
    connection.gateway.now += 3600 * 1_000_000_000
    gateway.watching.expire(gateway.now)
    assert [flows for _, flows in gateway.watching.generations()] == [0, 0]


class Kept:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, lines: list[bytes]) -> None:
        self.lines += lines


def told(generations: dict[int, list[FlowRule]], records: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    sink = Kept()
    writer = EveWriter(generations[0], sink)
    for number, rules in generations.items():
        writer.learn(number, rules)
    writer.write(records)
    return [json.loads(line) for line in sink.lines]


def test_rules_of_begin_are_what_records_name() -> None:
    gateway = Gateway("pix63")
    old = another(gateway, 0)
    number = gateway.reload(also("asa", "ALFA", name="later"))
    new = another(gateway, 1)
    for connection in (old, new):
        connection.client(b"TURN\r\n")
        connection.server(b"500 no\r\n")
    rules = {0: [FlowRule(Mode.ENFORCE, profile("pix63"))], number: [FlowRule(Mode.ENFORCE, profile("asa"))]}
    rules[number][0] = FlowRule(Mode.ENFORCE, also("asa", "ALFA", name="later"))
    events = told(rules, gateway.records)
    named = {
        (event["src_port"], event["mailguard"]["profile"], event["mailguard"]["verb"])
        for event in events
        if event["event_type"] == "mailguard" and event["mailguard"]["finding"] == "command.denied"
    }
    assert named == {(40000, "pix63", "TURN"), (40001, "later", "TURN")}
    for connection in (old, new):
        ends(connection)
    gateway.records += gateway.engine.drain()
    by_port = {record[6]: record[RULE] for record in gateway.records if record[0] == 5}
    assert by_port == {40000: 0, 40001: number}
    assert number == RULES


def test_rules_of_begin_are_freed_when_no_flow_is_under_them() -> None:
    gateway = Gateway("pix63")
    old = another(gateway, 0)
    gateway.reload("asa")
    new = another(gateway, 1)
    assert settle(gateway) == [[(1, 1), (0, 1)]] * 3
    ends(old)
    assert settle(gateway) == [[(1, 0)]] * 3  # `new` has timed out as well
    # Their number is the next ones'.
    assert gateway.reload("pix63") == 0
    assert settle(gateway) == [[(0, 0)]] * 3
    assert new.gateway is gateway


def test_rules_of_begin_are_freed_only_a_batch_later_and_when_their_records_are_read() -> None:
    gateway = Gateway("pix63")
    engine = gateway.engine
    old = another(gateway, 0)
    gateway.reload("asa")
    engine.take_up(gateway.now)
    gateway.now += 3600 * 1_000_000_000
    engine.expire(gateway.now)  # its end is recorded, and not read
    assert old.gateway is gateway
    for _ in range(3):
        engine.take_up(gateway.now)
        engine.free_unused()
        assert engine.generations() == [(1, 0), (0, 0)]
    assert {record[RULE] for record in engine.drain()} == {0}
    engine.free_unused()
    assert engine.generations() == [(1, 0)]
    gateway.reload("pix63")
    assert not engine.taken_up
    engine.take_up(gateway.now)
    assert engine.taken_up
    engine.free_unused()
    engine.free_unused()
    assert engine.generations() == [(0, 0), (1, 0)]  # no batch has begun since: it may still be read
    engine.take_up(gateway.now)
    engine.free_unused()
    assert engine.generations() == [(0, 0)]


def test_rules_of_begin_that_nobody_took_up_are_freed() -> None:
    gateway = Gateway("pix63")
    for policy in ("asa", "pix63", "asa"):
        gateway.reload(policy)
    assert [number for number, _ in gateway.engine.generations()] == [3, 2, 1, 0]
    assert settle(gateway) == [[(3, 0)]] * 3
    assert another(gateway, 0).client(b"EHLO a\r\n") == [ACCEPT]


def test_rules_of_begin_are_so_many_at_once() -> None:
    gateway = Gateway("pix63")
    flows = []
    for number in range(255):
        flows.append(another(gateway, number))
        gateway.reload("asa" if number % 2 else "pix63", limits=Limits(cookies=0, pending_segments=1000 + number))
    flows.append(another(gateway, 255))
    another_one = Limits(cookies=0, pending_segments=5000)
    with pytest.raises(ValueError, match="255 older rules"):
        gateway.reload("asa", limits=another_one)
    assert [flows[number].client(b"EHLO a\r\n") for number in (0, 1, 254)] == [[REPLACE], [REPLACE], [ACCEPT]]
    ends(flows[0])
    settle(gateway)
    gateway.reload("asa", limits=another_one)
    assert another(gateway, 256).client(b"EHLO a\r\n") == [ACCEPT]


def test_rules_of_begin_that_come_again_are_those_that_were() -> None:
    gateway = Gateway("pix63")
    flows = [another(gateway, 0)]
    assert gateway.reload("asa") == RULES
    flows.append(another(gateway, 1))
    assert gateway.reload("pix63") == 0
    flows.append(another(gateway, 2))
    assert settle(gateway) == [[(0, 2), (1, 1)]] * 3
    # Not where they have another name, which records give, nor where somebody is to begin anew with them.
    assert gateway.reload(also("asa", name="another")) == 2 * RULES
    flows.append(another(gateway, 3))
    assert gateway.reload("pix63", begins_anew=True) == 3 * RULES
    flows.append(another(gateway, 4))
    assert gateway.reload("asa") == RULES
    flows.append(another(gateway, 5))
    assert settle(gateway) == [[(1, 2), (3, 1), (2, 1), (0, 2)]] * 3
    told = [flow.client(b"EHLO a\r\n") for flow in flows]
    assert told == [[REPLACE], [ACCEPT], [REPLACE], [ACCEPT], [REPLACE], [ACCEPT]]


def test_rules_of_begin_say_whether_connections_are_told_apart() -> None:
    # Marks come with enforcing: whoever was open before has none, and keeps its connection all the same.
    gateway = Gateway("pix63", apart=False)
    old = another(gateway, 0)
    gateway.reload("pix63", apart=True)
    assert old.send(True, payload=b"HELO a\r\n", connection=0x60000001) == [ACCEPT]
    new = Connection(gateway, port=40001)
    assert new.send(True, payload=b"HELO a\r\n", connection=0x60000001) == [DROP]


def test_rules_of_begin_leave_those_before_alone_where_others_are_wrong() -> None:
    gateway = Gateway("pix63")
    rule = FlowRule(Mode.ENFORCE, profile("asa"))
    with pytest.raises(ValueError, match="65 rules"):
        gateway.engine.prepare([rule] * 65)
    with pytest.raises(ValueError, match="has 1 to"):
        gateway.engine.prepare([FlowRule(Mode.ENFORCE, also("asa", "V" * 40))])
    with pytest.raises(OSError, match="no interface"):
        gateway.engine.prepare([FlowRule(Mode.ENFORCE, profile("asa"), interface="no such one"), rule])
    with pytest.raises(ValueError, match="memory cannot shrink"):
        gateway.engine.prepare([rule], limits=Limits(memory=Limits().memory // 2))
    assert gateway.engine.generations() == [(0, 0)]
    assert another(gateway, 0).client(b"EHLO a\r\n") == [REPLACE]


def test_limits_of_now_hold_for_every_flow() -> None:
    gateway = Gateway("pix63", limits=Limits(cookies=0, startup=0))
    connection = another(gateway, 0)
    assert connection.client(b"HELO a\r\n") == [ACCEPT]
    assert connection.server(b"250 mail\r\n") == [ACCEPT]
    gateway.reload("pix63", limits=Limits(cookies=0, idle=2))
    gateway.engine.expire(gateway.now + 1_000_000_000)
    assert gateway.count("flows_now") == 1
    gateway.engine.expire(gateway.now + 3_000_000_000)
    assert gateway.count("flows_now") == 0


def test_limits_of_now_hold_for_packets_that_wait() -> None:
    gateway = Gateway("pix63")
    connection = another(gateway, 0)
    gateway.reload("pix63", limits=Limits(cookies=0, held_per_flow=1), on=On(pending_limit=Action.DROP))
    place = connection.mark
    assert connection.send(True, payload=b"NOOP\r\n", at=place + 6) == []
    assert connection.send(True, payload=b"NOOP\r\n", at=place + 12) == [DROP]


def test_limits_of_now_say_which_ports_are_inspected() -> None:
    gateway = Gateway("pix63", ports=(25, 26))
    gateway.reload("pix63", ports=(26,))
    connection = Connection(gateway, shake=False)
    assert connection.send(True, SYN) == [ACCEPT]
    assert gateway.count("not_inspected") == 1
    assert gateway.count("flows_now") == 0


def test_open_at_a_reload_is_what_a_start_finds_open() -> None:
    # More is inspected from now on: who talks there already is let go on, for so long as after a start.
    limits = Limits(cookies=0, startup=10)
    gateway = Gateway("pix63", limits=limits)
    another(gateway, 9)
    gateway.now += 60 * 1_000_000_000
    stranger = Connection(gateway, shake=False)
    assert stranger.send(True, ACK, b"RCPT TO:<a@b.example>\r\n") == [DROP, EMIT]
    gateway.reload("asa", limits=limits)
    stranger = Connection(gateway, port=40001, shake=False)
    assert stranger.send(True, ACK, b"RCPT TO:<a@b.example>\r\n") == [DROP, EMIT]
    gateway.reload("pix63", limits=limits, begins_anew=True)
    stranger = Connection(gateway, port=40002, shake=False)
    assert stranger.send(True, ACK, b"RCPT TO:<a@b.example>\r\n") == [ACCEPT]
    gateway.now += 11 * 1_000_000_000
    stranger = Connection(gateway, port=40003, shake=False)
    assert stranger.send(True, ACK, b"RCPT TO:<a@b.example>\r\n") == [DROP, EMIT]


def test_open_at_a_reload_is_known_though_its_rules_are_replaced_at_once() -> None:
    limits = Limits(cookies=0, startup=10)
    gateway = Gateway("pix63", limits=limits)
    another(gateway, 9)
    gateway.now += 60 * 1_000_000_000
    gateway.reload("pix63", limits=limits, begins_anew=True)
    gateway.reload("pix63", limits=limits)
    stranger = Connection(gateway, shake=False)
    assert stranger.send(True, ACK, b"RCPT TO:<a@b.example>\r\n") == [ACCEPT]
