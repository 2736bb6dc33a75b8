"""The flow table: who gives way, where a flow is kept, how one is ended (docs/streams.md)."""

from __future__ import annotations

from collections import Counter

import pytest

from nfmailguard.policy.model import Action, Limits, On, Policy
from tests.rules.gateway import ACCEPT, DROP, EMIT, REPLACE, RESET, Connection, Gateway
from tests.rules.siphash import siphash_2_4
from tests.support.wire import ACK, FIN, PSH, RST, SYN

families = pytest.mark.parametrize("family", [4, 6])
SERVER, CLIENT = True, False


def opening(gateway: Gateway, count: int, first: int = 1024, family: int = 4) -> list[Connection]:
    """Connections that never get further than their SYN."""
    connections = [Connection(gateway, family, port=first + n, shake=False) for n in range(count)]
    for connection in connections:
        assert connection.send(True, SYN) == [ACCEPT]
        connection.sent[True] += 1
    return connections


@families
def test_embryonic_first_when_the_table_is_full_and_never_one_that_is_open(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=4))
    opened = [Connection(gateway, family, port=40000 + n).greeted() for n in range(2)]
    embryos = opening(gateway, 2, family=family)
    flood = opening(gateway, 50, first=2000, family=family)
    assert gateway.count("flows_now") == 4
    assert gateway.count("flows_evicted") == 50
    assert all(connection.client(b"EXPN\r\n") == [REPLACE] for connection in opened)
    # The oldest went first.
    assert flood[-1].send(False, SYN | ACK) == [ACCEPT]
    assert embryos[0].send(False, SYN | ACK) != [ACCEPT]


def test_embryonic_first_and_the_oldest_of_them() -> None:
    gateway = Gateway(limits=Limits(flows=3))
    old, middle, young = opening(gateway, 3)
    Connection(gateway, port=40000, shake=False).send(True, SYN)
    assert middle.send(False, SYN | ACK) == young.send(False, SYN | ACK) == [ACCEPT]
    assert old.send(False, SYN | ACK) != [ACCEPT]


@families
def test_embryonic_first_but_for_those_that_have_ended(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=2))
    embryo = opening(gateway, 1, family=family)[0]
    Connection(gateway, family, port=40000).greeted().close()
    opening(gateway, 1, first=3000, family=family)
    assert gateway.count("flows_evicted") == 1
    assert embryo.send(False, SYN | ACK) == [ACCEPT]


@pytest.mark.parametrize(
    ("action", "kinds"),
    [(None, [DROP]), (Action.PASS, [ACCEPT]), (Action.DROP, [DROP]), (Action.RESET, [DROP, EMIT])],
)
def test_embryonic_first_and_without_one_what_on_flow_limit_says(action: Action | None, kinds: list[int]) -> None:
    gateway = Gateway(limits=Limits(flows=2), on=On(flow_limit=action))
    opened = [Connection(gateway, port=40000 + n).greeted() for n in range(2)]
    late = Connection(gateway, port=50000, shake=False)
    assert late.send(True, SYN) == kinds
    assert gateway.names[-1] == "flow.limit"
    assert gateway.count("flows_refused") == 1
    assert all(connection.client(b"EXPN\r\n") == [REPLACE] for connection in opened)


def test_embryonic_first_by_time_too() -> None:
    gateway = Gateway(limits=Limits(embryonic=10, startup=1, idle=100, closing=20))
    opened = Connection(gateway, port=40000).greeted()
    opening(gateway, 3)
    gateway.wait(11)
    assert gateway.count("flows_now") == 1
    opened.close()
    gateway.wait(21)
    assert gateway.count("flows_now") == 0


@families
def test_no_self_eviction_by_time_while_we_start(family: int) -> None:
    gateway = Gateway(limits=Limits(startup=60, embryonic=1, idle=10, closing=1))
    embryo = opening(gateway, 1, family=family)[0]
    connection = Connection(gateway, family).greeted()
    gateway.wait(50)
    # Forgotten now, each would look like one that was open before us, and pass.
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    assert embryo.send(True, payload=b"EXPN\r\n") == RESET
    gateway.wait(20)
    assert connection.client(b"VRFY\r\n") != [ACCEPT]
    gateway.wait(11)
    assert gateway.count("flows_now") == 0
    assert connection.client(b"EXPN\r\n") == RESET  # flow.midstream


@families
def test_no_self_eviction_into_the_time_of_the_start(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=2, startup=60))
    early = Connection(gateway, family, port=39000, shake=False)
    assert early.send(True, payload=b"EXPN\r\n") == [ACCEPT]
    victim = opening(gateway, 1, family=family)[0]
    opening(gateway, 1, first=3000, family=family)
    assert gateway.count("flows_evicted") == 1
    # Its handshake goes on beside us, and now it speaks: it is none that was open before us.
    gateway.wait(31)
    assert victim.send(True, payload=b"EXPN\r\n", ack=5001)[0] == DROP
    assert victim.names[-1] in ("flow.midstream", "flow.limit")


def passed(gateway: Gateway, family: int = 4) -> Connection:
    """A connection that is not looked at any more: TLS has begun."""
    connection = Connection(gateway, family).greeted()
    connection.client(b"STARTTLS\r\n")
    connection.server(b"220 go\r\n")
    assert connection.client(b"\x16\x03\x01hello") == [ACCEPT]
    assert gateway.count("flows_passed") == 1
    return connection


@families
@pytest.mark.parametrize("how", ["fins", "rst"])
def test_passed_flows_end_and_do_not_stay(family: int, how: str) -> None:
    gateway = Gateway(Policy("all"), limits=Limits(startup=1, closing=10))
    connection = passed(gateway, family)
    connection.server(b"tls tls")
    connection.client(b"tls tls")
    wrong = connection.sent[True] + 5
    assert connection.send(True, RST, seq=wrong) == [DROP]
    if how == "fins":
        assert connection.send(True, FIN | ACK) == [ACCEPT]
    gateway.wait(11)
    assert gateway.count("flows_now") == 1
    assert connection.send(how == "rst", RST if how == "rst" else FIN | ACK) == [ACCEPT]
    gateway.wait(11)
    assert gateway.count("flows_now") == 0


def test_passed_flows_end_by_a_rst_at_what_the_server_has_acknowledged() -> None:
    connection = passed(Gateway(Policy("all")))
    connection.send(False, ACK)
    place = connection.sent[True]
    assert connection.client(b"that never arrives") == [ACCEPT]
    assert connection.send(True, RST, seq=place) == [ACCEPT]
    assert connection.client(b"tls tls") == [DROP, EMIT]


def test_passed_flows_end_by_any_rst_where_their_packets_go_by_unseen() -> None:
    gateway = Gateway(Policy("all"), offload=True)
    connection = passed(gateway)
    assert connection.send(True, RST, seq=connection.sent[True] + 100_000) == [ACCEPT]  # conntrack has checked it
    assert connection.client(b"tls tls") == [DROP, EMIT]


@families
def test_passed_flows_end_by_no_syn(family: int) -> None:
    gateway = Gateway(Policy("all"))
    connection = passed(gateway, family)
    assert connection.send(True, SYN, seq=77_000) == [ACCEPT]  # anybody may have sent it
    assert gateway.count("flows_opened") == 1
    assert connection.client(b"tls EXPN\r\n") == [ACCEPT]
    assert connection.send(False, SYN | ACK, seq=88_000, ack=77_001) == [ACCEPT]
    assert gateway.count("flows_opened") == 2


def chains(key: bytes, flows: list[tuple[bytes, int, bytes, int]], buckets: int) -> Counter[int]:
    """How many flows the buckets hold, by the bucket, as SipHash-2-4 of the key spreads them."""
    places = Counter[int]()
    for client, client_port, server, server_port in flows:
        octets = client.ljust(16, b"\0") + server.ljust(16, b"\0")
        octets += client_port.to_bytes(2, "little") + server_port.to_bytes(2, "little")
        octets += bytes([4 if len(client) == 4 else 6, 0, 0, 0])
        places[siphash_2_4(key, octets) % buckets] += 1
    return places


def test_keyed_by_siphash_2_4_as_its_authors_print_it() -> None:
    key = bytes(range(16))  # Aumasson and Bernstein, SipHash, appendix A
    assert siphash_2_4(key, bytes(range(15))) == 0xA129CA6149BE45E5
    assert siphash_2_4(key, b"") == 0x726FDB47DD0E0E31


@families
@pytest.mark.parametrize("key", [bytes(16), bytes(range(16)), bytes(range(100, 116))])
def test_keyed_are_the_buckets(family: int, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_bytes", lambda size: key[:size])
    gateway = Gateway(limits=Limits(flows=1024))
    connections = opening(gateway, 200, family=family)
    flows = [(c.client_end.packed, c.client_end.port, c.server_end.packed, c.server_end.port) for c in connections]
    assert gateway.engine.chains() == chains(key, flows, 1024)


def test_keyed_with_another_key_for_each_engine() -> None:
    spread = []
    for _ in range(2):
        gateway = Gateway(limits=Limits(flows=1024))
        opening(gateway, 100)
        spread.append(gateway.engine.chains())
    assert sum(spread[0].values()) == sum(spread[1].values()) == 100
    assert spread[0] != spread[1]


@families
def test_reset_reaches_both_sides_with_the_numbers_they_expect(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.client(b"NOOP a\r\n")
    connection.server(b"250 ok\r\n")  # the client has not acknowledged this yet
    connection.send(True, payload=b"NOOP b\r\n", ack=connection.sent[False] - 8, lost=True)  # nor the server this
    assert connection.send(True, payload=b"NOOP c\r\n", at=40, ack=connection.sent[False] - 8) == []
    expected = connection.sent[True] + 8, connection.sent[False] - 8
    assert connection.send(False, ACK, ack=connection.sent[True] + 1000) == [DROP, *RESET]
    to_server, to_client = connection.emitted
    assert connection.emitted_to_server == [True, False]
    assert (to_server.source, to_server.destination) == (connection.client_end, connection.server_end)
    assert (to_server.seq, to_server.flags) == (expected[0], RST | ACK)
    assert (to_client.source, to_client.destination) == (connection.server_end, connection.client_end)
    assert (to_client.seq, to_client.flags) == (expected[1], RST | ACK)


@families
def test_reset_reaches_whoever_still_sends(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.send(False, ACK, ack=connection.sent[True] + 1000)
    connection.emitted.clear()
    connection.emitted_to_server.clear()
    # The RST got lost, or missed: each packet is dropped and answered with the number its sender says it expects.
    assert connection.send(True, payload=b"NOOP\r\n", ack=4711) == [DROP, EMIT]
    assert connection.send(False, ACK, ack=4712) == [DROP, EMIT]  # a challenge ACK (RFC 5961 3.2)
    assert connection.send(True, ACK | FIN, ack=4713) == [DROP, EMIT]
    assert [segment.seq for segment in connection.emitted] == [4711, 4712, 4713]
    assert connection.emitted_to_server == [CLIENT, SERVER, CLIENT]
    assert connection.send(True, RST) == [DROP]
    assert connection.server_reads == b""


def test_reset_reaches_a_held_packet_too() -> None:
    connection = Connection().greeted()
    assert connection.send(True, payload=b"NOOP\r\n", at=6) == []
    assert connection.send(True, payload=b"NOOP\r\n", at=12) == []
    assert sorted(connection.send(False, ACK, ack=connection.sent[True] + 1000)) == [DROP, DROP, DROP, EMIT, EMIT]
    assert connection.send(True, ACK | PSH, b"NOOP\r\n") == [DROP, EMIT]
