"""Memory under floods and unacknowledged streams; `make test-memory` is the same with a million flows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nfmailguard.cext.engine import FLOW_BYTES
from nfmailguard.engine import flows_at_once
from nfmailguard.policy.model import Limits
from tests.memory.flood import ACK, DROP, HOGS, PSH, Group, Load, Template

MEMORY = 4_000_000


def filled(hogs: int) -> tuple[Load, Group]:
    """Memory of which so many flows have taken what they could get, and a group of 10 others."""
    load = Load(flows_at_once(Limits(cookies=0, flows=10**6, memory=MEMORY)), MEMORY)
    taking, others = Group(range(hogs)), Group(range(hogs, hogs + 10))
    assert load.open(range(hogs + 10)) == 0
    filling = load.fill(taking)
    while not next(filling):
        pass
    return load, others


def test_20000_flows_two_floods_and_full_memory() -> None:
    command = [sys.executable, "-m", "tests.memory.flood", "--flows", "20000"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize("hogs", [1, 2, HOGS])
def test_nobody_has_more_than_is_left_for_the_others(hogs: int) -> None:
    load, others = filled(hogs)
    streams = load.engine.counters()["memory_now"] - (hogs + 10) * FLOW_BYTES
    # Each of n takes one part of n + 2 of the streams' half, but for a packet: it leaves free what it has, and
    # again what its source has.
    assert streams == pytest.approx(MEMORY / 2 * hogs / (hogs + 2), abs=hogs * 20_000)
    assert load.exchange(others) + load.mail(others) == 0


def test_who_has_nothing_yet_gets_a_share_of_full_memory() -> None:
    load, others = filled(HOGS)
    lines = Template(False, PSH | ACK, (b"250-" + b"x" * 994 + b"\r\n") * 16)
    command = Template(True, PSH | ACK, b"HELO a\r\n")
    load.process(command, others.flows[0], others.client, others.server)
    assert load.process(lines, others.flows[0], others.server, others.client + command.length)[0][0] != DROP


def test_streams_do_not_take_the_flows_half() -> None:
    load, _ = filled(HOGS)
    assert load.open(range(HOGS + 10, load.flows)) == 0
    counters = load.engine.counters()
    assert (counters["flows_now"], counters["finding.flow.limit"]) == (load.flows, 0)
    assert counters["memory_now"] <= MEMORY


def test_flows_do_not_take_the_streams_half() -> None:
    load = Load(10**6, MEMORY)
    room = flows_at_once(Limits(cookies=0, flows=10**6, memory=MEMORY))
    assert load.open(range(room)) == 0
    assert load.flood(100) == (0, 100)
    assert load.exchange(every := Group(range(room))) == 0
    for at in range(0, room, 100):
        assert load.mail(Group(every.flows[at : at + 100], every)) == 0
    assert load.engine.counters()["memory_now"] <= MEMORY
