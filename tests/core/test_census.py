"""A census of the flow table: every flow once, while others come and go, and not more of them at once than asked."""

from __future__ import annotations

import pytest

from nfmailguard.cext.census import FlowCensus
from nfmailguard.policy.model import Limits
from tests.rules.gateway import Connection, Gateway
from tests.support.wire import SYN

ID, RULE, CLIENT, PORT, SERVER, SERVER_PORT, STATE = range(7)
BYTES, PACKETS, HELD, AHEAD, OUTSTANDING, WAITING, VERB = range(12, 19)


def listed(gateway: Gateway, capacity: int = 64, **wanted: object) -> tuple[list[tuple], int]:  # type: ignore[type-arg]
    """What a census tells, and in how many slices."""
    census, found, slices = FlowCensus(gateway.engine, capacity), [], 0
    while not census.ended:
        census.ask()
        assert not census.filled
        gateway.engine.take_up(gateway.now)
        assert census.filled
        one = census.take(**wanted)  # type: ignore[arg-type]
        assert len(one) <= capacity
        found += one
        slices += 1
    return found, slices


@pytest.mark.parametrize("capacity", [64, 65, 100, 4096])
def test_every_flow_is_told_once(capacity: int) -> None:
    gateway = Gateway("pix63", limits=Limits(cookies=0, flows=600))
    for number in range(500):
        Connection(gateway, port=1024 + number, shake=False).send(True, SYN)
    found, slices = listed(gateway, capacity)
    assert sorted(flow[PORT] for flow in found) == [1024 + number for number in range(500)]
    assert len({flow[ID] for flow in found}) == 500
    assert slices >= 500 // capacity


def test_those_that_stay_are_told_once_while_others_come_and_go() -> None:
    gateway = Gateway("pix63", limits=Limits(cookies=0, flows=10_000, startup=0, embryonic=60))
    for number in range(1000):
        Connection(gateway, port=1024 + number, shake=False).send(True, SYN)
    census, found = FlowCensus(gateway.engine, 64), []
    number = 0
    while not census.ended:
        number += 1
        census.ask()
        Connection(gateway, port=20000 + number, shake=False).send(True, SYN)  # its packet begins the batch
        assert census.filled
        found += census.take()
    ports = [flow[PORT] for flow in found if flow[PORT] < 20000]
    assert sorted(ports) == [1024 + number for number in range(1000)]


def test_what_is_told_of_a_flow() -> None:
    gateway = Gateway("pix63")
    connection = Connection(gateway, port=40001).greeted()
    connection.client(b"DATA\r\n")
    gateway.reload("asa")
    connection.send(True, payload=b"x\r\n", at=connection.mark + 40)
    Connection(gateway, family=6, port=40002).greeted()
    (old, new), _ = (sorted(listed(gateway)[0], key=lambda flow: flow[PORT]), 0)
    assert (old[CLIENT], old[SERVER], old[SERVER_PORT]) == (bytes([10, 0, 1, 2]), bytes([10, 0, 2, 2]), 25)
    assert (old[RULE], new[RULE]) == (0, 64)
    assert (old[HELD], old[OUTSTANDING], old[WAITING]) == (1, 1, True)
    assert (new[HELD], new[OUTSTANDING], new[WAITING], len(new[CLIENT])) == (0, 0, False, 16)
    assert old[PACKETS] == (2, 5)
    assert [flow[PORT] for flow in listed(gateway, networks=[(bytes([10, 0, 0, 0]), 8)])[0]] == [40001]
    assert [flow[PORT] for flow in listed(gateway, networks=[(bytes(16), 0)])[0]] == [40002]
    assert listed(gateway, networks=[(bytes([10, 0, 1, 3]), 32)])[0] == []
    assert len(listed(gateway, state=old[STATE])[0]) + len(listed(gateway, state=5)[0]) == 2


def test_who_asks_and_goes_takes_nothing_along() -> None:
    gateway = Gateway("pix63")
    Connection(gateway).greeted()
    census = FlowCensus(gateway.engine, 8)
    census.ask()
    with pytest.raises(RuntimeError):
        FlowCensus(gateway.engine, 8).ask()
    del census
    gateway.engine.take_up(gateway.now)
    assert len(listed(gateway)[0]) == 1
