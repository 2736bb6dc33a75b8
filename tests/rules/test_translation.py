"""Connections whose addresses are translated: which of conntrack's entries a packet is of (docs/streams.md).

Of two connections that differ in the address the client has asked for, or in the one the server sees, the gateway's
queue sees the same addresses and ports. The mark that our table puts on a packet tells them apart; a client's
address is translated behind the queue, so its SYN has none yet.
"""

from __future__ import annotations

import pytest

from nfmailguard.policy.model import Action, CommandPolicy, Policy
from nfmailguard.ruleset import Ruleset
from tests.rules.gateway import ACCEPT, DROP, REPLACE, RESET, Connection, Gateway
from tests.support.wire import ACK, FIN, RST, SYN

families = pytest.mark.parametrize("family", [4, 6])
OTHER = "packet.other_connection"


def translated(family: int = 4, first: int = 7, then: int = 7, gateway: Gateway | None = None) -> Connection:
    """Opened and greeted; ``first``: what is told of its SYN, ``then``: of all that follows."""
    connection = Connection(gateway, family, shake=False)
    assert connection.send(True, SYN, connection=first) == [ACCEPT]
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, connection=then) == [ACCEPT]
    connection.sent[False] += 1
    assert connection.send(True, ACK, connection=then) == [ACCEPT]
    assert connection.send(False, payload=b"220 mail ESMTP\r\n", connection=then) in ([ACCEPT], [REPLACE])
    connection.sent[False] += 16
    return connection


@families
@pytest.mark.parametrize("first", [7, 0])
@pytest.mark.parametrize("other", [8, 0])
def test_translated_packets_of_another_connection_have_no_place_in_the_flow(
    family: int, first: int, other: int
) -> None:
    connection = translated(family, first)
    for to_server in (True, False):
        for flags in (ACK, RST, FIN | ACK):
            assert connection.send(to_server, flags, connection=other) == [DROP]
        assert connection.send(to_server, payload=b"EXPN a\r\n", connection=other) == [DROP]
    assert connection.send(False, SYN | ACK, seq=9000, connection=other) == [DROP]
    assert set(connection.names) == {OTHER}
    assert connection.gateway.count("drop.connection") == connection.gateway.count(f"finding.{OTHER}") == 9
    # And its own are read as before.
    assert connection.send(True, payload=b"EXPN a\r\n", connection=7) == [REPLACE]
    assert connection.server_reads == b"XXXX a\r\n"


@families
def test_translated_flows_are_not_the_next_connections_either(family: int) -> None:
    connection = translated(family)
    for other in (8, 0):
        assert connection.send(True, SYN, seq=70_000, connection=other) == [DROP]
        assert connection.send(True, SYN, seq=1000, connection=other) == [DROP]
    assert connection.gateway.count("flows_opened") == 1
    assert connection.send(True, RST, connection=7) == [ACCEPT]
    # It has ended: the next one is whichever begins.
    connection.begin((70_000, 80_000))
    assert connection.send(True, SYN, connection=8) == [ACCEPT]
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, connection=7) == [DROP]
    assert connection.send(False, SYN | ACK, connection=8) == [ACCEPT]
    assert connection.gateway.count("flows_opened") == 2


@families
def test_translated_only_from_the_servers_answer_on(family: int) -> None:
    connection = Connection(family=family, shake=False)
    assert connection.send(True, SYN) == [ACCEPT]
    assert connection.send(True, SYN, connection=7) == [ACCEPT]  # repeated, with its entry known
    assert connection.send(False, SYN | ACK, connection=8) == [DROP]
    assert connection.send(True, SYN, connection=8) == [ACCEPT]  # the latest one counts
    assert connection.send(False, SYN | ACK, connection=7) == [DROP]
    assert connection.send(False, SYN | ACK, connection=8) == [ACCEPT]
    assert connection.send(True, SYN, connection=7) == [DROP]
    assert connection.send(True, SYN, connection=8) == [ACCEPT]
    assert connection.gateway.count("flows_opened") == 1


@families
def test_translated_flows_that_are_not_looked_at_any_more_keep_to_their_connection(family: int) -> None:
    connection = translated(family, gateway=Gateway("asa-tls"))
    for to_server, payload in (
        (True, b"EHLO a\r\n"),
        (False, b"250 STARTTLS\r\n"),
        (True, b"STARTTLS\r\n"),
        (False, b"220 go\r\n"),
        (True, b"\x16\x03\x01hello"),
    ):
        assert connection.send(to_server, payload=payload, connection=7) == [ACCEPT]
        connection.sent[to_server] += len(payload)
    assert connection.gateway.count("flows_passed") == 1
    assert connection.send(True, payload=b"EXPN a\r\n", connection=8) == [DROP]
    assert connection.send(True, payload=b"EXPN a\r\n", connection=7) == [ACCEPT]


def test_translated_flows_that_were_open_before_us_are_let_through_as_they_are() -> None:
    connection = Connection(shake=False)
    for told in (0, 7, 8):
        assert connection.send(True, payload=b"EXPN a\r\n", connection=told) == [ACCEPT]


@pytest.mark.parametrize(("action", "kinds"), [(Action.LOG, [ACCEPT]), (Action.DROP, [DROP]), (Action.RESET, RESET)])
def test_translated_or_what_the_profile_says(action: Action, kinds: list[int]) -> None:
    policy = Policy("p", commands=CommandPolicy(allow=("NOOP",)), actions={OTHER: action})
    connection = translated(gateway=Gateway(policy))
    assert connection.send(True, payload=b"NOOP\r\n", connection=8) == kinds
    assert connection.names == [OTHER]
    assert connection.gateway.watched_names.count(OTHER) == 1


def test_translated_packets_without_a_mark_get_one_of_their_own_connections() -> None:
    """Conntrack's first packet of a connection, if it is no SYN, gets one that no connection has."""
    lines = Ruleset(0, 0, [25], ["forward"], connections=True).render().splitlines()
    marking = [line.strip() for line in lines if "meta mark set" in line and "0x00006d67" not in line]
    translated = "meta mark 0x00000000 ct status snat,dnat "
    assert marking == [
        f"{translated}ct state new tcp flags & (syn | ack) != syn meta mark set 0x60000000",
        f"{translated}meta mark set ct id meta mark set meta mark & 0x6fffffff | 0x60000000",
    ]
