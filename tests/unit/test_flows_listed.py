"""What a gateway tells of its flows: which, what of them, and how it looks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nfmailguard.errors import RefusedError
from nfmailguard.policy.model import FlowRule, Limits, Mode
from nfmailguard.reports import flows as report
from nfmailguard.service.flows import STATES, Wanted, listed
from nfmailguard.settings import network
from tests.rules.gateway import Connection, Gateway, profile
from tests.support.wire import ACK, RST, SYN


class Turned:
    """A driver whose loop is the test's."""

    def __init__(self, gateway: Gateway, *, turns: bool = True) -> None:
        self.gateway = gateway
        self.turns = turns

    @property
    def clock(self) -> int:
        return self.gateway.now

    def turn(self) -> None:
        if self.turns:
            self.gateway.engine.take_up(self.gateway.now)


def worker(gateway: Gateway, number: int = 0, *, turns: bool = True) -> Any:
    known = {0: (gateway.engine.rules, 0)}
    return SimpleNamespace(number=number, engine=gateway.engine, driver=Turned(gateway, turns=turns), known=known)


def test_the_oldest_are_told_first_and_of_how_many() -> None:
    gateway = Gateway("pix63")
    for number in range(20):
        Connection(gateway, port=1024 + number, shake=False).send(True, SYN)
        gateway.now += 1_000_000_000
    answer = listed([worker(gateway)], Wanted(limit=3))
    assert [flow["client_port"] for flow in answer["flows"]] == [1024, 1025, 1026]
    assert [round(flow["age"]) for flow in answer["flows"]] == [20, 19, 18]
    assert answer["of"] == 20
    assert listed([worker(gateway, 0), worker(gateway, 1)], Wanted(limit=100))["of"] == 40


def test_what_each_waits_for() -> None:
    gateway = Gateway("pix63")
    said: dict[int, str] = {}

    def one(port: int, waits_for: str, *, shake: bool = True) -> Connection:
        said[port] = waits_for
        return Connection(gateway, port=port, shake=shake)

    one(1, "the server's SYN and ACK", shake=False).send(True, SYN)
    half = one(2, "the client's ACK", shake=False)
    half.send(True, SYN)
    half.sent[True] += 1
    half.send(False, SYN | ACK)
    one(3, "the server's first word")
    one(4, "the client").greeted()
    one(5, "the reply to NOOP").greeted().client(b"NOOP\r\n")
    one(6, "the rest of a message").in_text()
    one(7, "the reply to DATA").greeted().client(b"DATA\r\n")
    held = one(8, "what stands before 1 held packets").greeted()
    held.send(True, payload=b"NOOP\r\n", at=held.mark + 6)
    over = one(9, "nothing, it has ended").greeted()
    over.send(False, RST, seq=over.has(False))
    flows = listed([worker(gateway)], Wanted())["flows"]
    assert {flow["client_port"]: flow["waits_for"] for flow in flows} == said


def test_flows_are_told_by_state_and_client() -> None:
    gateway = Gateway("pix63")
    Connection(gateway, port=1, client="10.0.1.9").greeted()
    Connection(gateway, port=2, client="10.0.1.9", shake=False).send(True, SYN)
    Connection(gateway, port=3, client="10.0.7.9").greeted()
    Connection(gateway, family=6, port=4).greeted()

    def ports(**arguments: object) -> set[int]:
        return {flow["client_port"] for flow in listed([worker(gateway)], Wanted.of(arguments))["flows"]}

    assert ports() == {1, 2, 3, 4}
    assert ports(client="10.0.1.0/24") == {1, 2}
    assert ports(client="10.0.1.9", state="embryonic") == {2}
    assert ports(client="fd00::/16") == {4}
    assert sum(len(ports(state=state)) for state in STATES) == 4


@pytest.mark.parametrize(
    "arguments",
    [{"limit": 0}, {"limit": 10_001}, {"limit": "9"}, {"limit": True}, {"state": "x"}, {"state": 1}, {"client": "x"}],
)
def test_what_cannot_be_asked_for_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(RefusedError, match=r"^flows: "):
        Wanted.of(arguments)
    assert Wanted.of({"client": "::ffff:10.0.0.1"}).client == network("10.0.0.1")


def test_a_loop_that_does_not_turn_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfmailguard.service.flows.PATIENCE", 0.05)
    gateway = Gateway("pix63")
    with pytest.raises(RefusedError, match="queue 7 does not turn"):
        listed([worker(gateway, 7, turns=False)], Wanted())
    assert listed([worker(gateway)], Wanted())["of"] == 0  # nobody asks any more


def test_whose_rules_a_flow_is_under() -> None:
    gateway = Gateway("pix63")
    Connection(gateway, port=1).greeted()
    first = gateway.reload("pix40", "asa")
    Connection(gateway, port=2).greeted()
    one = worker(gateway)
    one.known = {0: ((FlowRule(Mode.ENFORCE, profile("pix63")),), 0), first: (gateway.engine.rules, 1)}
    told = {
        flow["client_port"]: (flow["mode"], flow["profile"], flow["rule"]) for flow in listed([one], Wanted())["flows"]
    }
    assert told == {1: ("enforce", "pix63", None), 2: ("enforce", "pix40", 1)}


def test_how_it_looks() -> None:
    gateway = Gateway("pix63", limits=Limits(cookies=0))
    Connection(gateway, port=1025).greeted()
    Connection(gateway, family=6, port=1026, shake=False).send(True, SYN)
    gateway.now += 61_000_000_000
    lines = list(report.render(listed([worker(gateway)], Wanted())))
    assert lines[0].split() == ["AGE", "IDLE", "CLIENT", "SERVER", "STATE", "RULE", "PACKETS", "BYTES", "WAITS", "FOR"]
    assert lines[1].split()[8:10] == ["10.0.1.2:1025", "10.0.2.2:25"]
    assert lines[1].split()[10:14] == ["greeted", "enforce", "pix63", "3/2"]
    assert "[fd00:1::2]:1026  [fd00:2::2]:25  embryonic" in lines[2]
    assert lines[3:] == ["2 flows"]
    assert list(report.render(listed([worker(gateway)], Wanted(limit=1))))[-1] == "the 1 oldest of 2 flows"
    assert list(report.render({"flows": [], "of": 0})) == ["0 flows"]
