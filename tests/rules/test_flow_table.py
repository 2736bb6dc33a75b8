"""The flow table: who gives way, where a flow is kept, how one is ended (docs/streams.md)."""

from __future__ import annotations

from collections import Counter

import pytest

from nfmailguard.policy.model import Action, Limits, On, Policy
from tests.rules.gateway import ACCEPT, DROP, EMIT, REPLACE, RESET, Connection, Gateway
from tests.rules.siphash import siphash_2_4
from tests.support.wire import ACK, FIN, PSH, RST, SYN, parse

families = pytest.mark.parametrize("family", [4, 6])
SERVER, CLIENT = True, False
REFUSED = [DROP, EMIT]  # flow.midstream
INSIDE, OUTSIDE = 2, 3  # interfaces: the clients', the servers'


def opening(gateway: Gateway, count: int, first: int = 1024, family: int = 4) -> list[Connection]:
    """Connections that never get further than their SYN."""
    connections = [Connection(gateway, family, port=first + n, shake=False) for n in range(count)]
    for connection in connections:
        assert connection.send(True, SYN) == [ACCEPT]
        connection.sent[True] += 1
    return connections


def accepted(connection: Connection) -> Connection:
    """With a command of its client's accepted."""
    connection.greeted()
    assert connection.client(b"HELO a.example\r\n") == [ACCEPT]
    assert connection.server(b"250 ok\r\n") == [ACCEPT]
    assert connection.send(True, ACK) == [ACCEPT]
    return connection


def address(number: int, family: int = 4) -> str:
    """Of a client that shares its source with none of another number."""
    return f"10.7.{number >> 8}.{number & 255}" if family == 4 else f"fd00:7:{number:x}::9"


@families
def test_embryonic_first_when_the_table_is_full_and_never_one_with_an_accepted_command(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=4, flows_per_source=4))
    opened = [accepted(Connection(gateway, family, port=40000 + n)) for n in range(2)]
    embryos = opening(gateway, 2, family=family)
    flood = opening(gateway, 50, first=2000, family=family)
    assert gateway.count("flows_now") == 4
    assert gateway.count("flows_evicted") == gateway.count("flows_evicted_embryonic") == 50
    assert all(connection.client(b"EXPN\r\n") == [REPLACE] for connection in opened)
    # The oldest went first.
    assert flood[-1].send(False, SYN | ACK) == [ACCEPT]
    assert embryos[0].send(False, SYN | ACK) != [ACCEPT]


@families
def test_embryonic_first_then_who_waits_for_a_server_then_who_had_nothing_accepted(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=5, flows_per_source=100))
    had = accepted(Connection(gateway, family, port=40000))
    greeted = Connection(gateway, family, port=40001).greeted()
    waits = Connection(gateway, family, port=40002)
    embryo = opening(gateway, 1, family=family)[0]
    Connection(gateway, family, port=40003).greeted().close()
    for number, (reason, victim) in enumerate(
        [("ended", None), ("embryonic", embryo), ("unconfirmed", waits), ("greeted", greeted)]
    ):
        newcomer = Connection(gateway, family, port=50000 + number, shake=False)
        connection = victim in (waits, greeted)
        assert newcomer.send(True, SYN) == ([EMIT, EMIT, ACCEPT] if connection else [ACCEPT])
        assert gateway.count(f"flows_evicted_{reason}") == 1
        if victim is not None and connection:
            to_server, to_client = newcomer.emitted
            assert (to_server.source, to_server.flags) == (victim.client_end, RST | ACK)
            assert (to_client.destination, to_client.flags) == (victim.client_end, RST | ACK)
            assert to_server.seq == victim.sent[True]
        newcomer.sent[True] += 1
        assert newcomer.send(False, SYN | ACK) == [ACCEPT]
        newcomer.sent[False] += 1
        assert newcomer.send(True, ACK) == [ACCEPT]
        accepted(newcomer)
    assert gateway.count("flows_evicted") == 4
    assert Connection(gateway, family, port=51000, shake=False).send(True, SYN) == [DROP]
    assert had.client(b"EXPN\r\n") == [REPLACE]
    # What was pushed out goes nowhere uninspected.
    assert greeted.client(b"EXPN\r\n") != [ACCEPT]
    assert b"EXPN" not in greeted.server_reads


@families
def test_embryonic_first_then_who_waits_for_a_server_be_they_few(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=64))
    for number in range(62):
        accepted(Connection(gateway, family, client=address(number, family)))
    for number in range(62, 64):
        Connection(gateway, family, client=address(number, family))
    for number in range(100, 102):
        newcomer = Connection(gateway, family, client=address(number, family), shake=False)
        assert newcomer.send(True, SYN)[-1] == ACCEPT
    assert gateway.count("flows_evicted_unconfirmed") == 1
    assert gateway.count("flows_evicted_embryonic") == 1


@families
def test_embryonic_first_and_of_those_without_an_accepted_command_the_one_not_heard_of_for_longest(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=2, flows_per_source=9))
    first, second = (Connection(gateway, family, port=40000 + n).greeted() for n in range(2))
    gateway.wait(5)
    assert first.client(b"EXPN\r\n") == [REPLACE]
    Connection(gateway, family, port=50000, shake=False).send(True, SYN)
    assert first.server(b"500 no\r\n") == [ACCEPT]
    assert second.client(b"NOOP\r\n") != [ACCEPT]


@families
@pytest.mark.parametrize("to_server", [True, False])
def test_embryonic_first_but_nothing_that_goes_on_for_what_was_not_seen_to_begin(family: int, to_server: bool) -> None:
    gateway = Gateway(limits=Limits(flows=4, flows_per_source=4, startup=1), on=On(midstream=Action.PASS))
    for number in range(4):
        Connection(gateway, family, port=40000 + number).greeted()
    gateway.wait(2)
    for number in range(20):
        stranger = Connection(gateway, family, client=address(number, family), shake=False)
        assert stranger.send(to_server, ACK) == [DROP]
    assert gateway.count("flows_evicted") == 0


@families
def test_embryonic_first_but_what_was_open_before_us_takes_the_place_of_its_like(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=4, startup=60))
    for number in range(40):
        stranger = Connection(gateway, family, client=address(number, family), shake=False)
        assert stranger.send(True, ACK) == [ACCEPT]
    assert gateway.count("flows_now") == 4
    assert gateway.count("flows_evicted_one_sided") == 36
    # One that begins takes the place of one of them, and no other of them that of one that has begun.
    connection = Connection(gateway, family).greeted()
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    for number in range(2000, 2010):
        kinds = Connection(gateway, family, client=address(number, family), shake=False).send(True, ACK)
        assert kinds == [ACCEPT]
    assert connection.server(b"500 no\r\n") == [ACCEPT]
    full = Gateway(limits=Limits(flows=4, startup=60))
    for number in range(4):
        Connection(full, family, client=address(number, family)).greeted()
    assert Connection(full, family, client=address(4, family), shake=False).send(True, ACK) == [DROP]


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
    gateway = Gateway(limits=Limits(flows=2, flows_per_source=9), on=On(flow_limit=action))
    opened = [accepted(Connection(gateway, port=40000 + n)) for n in range(2)]
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
def test_server_confirms_a_flow_and_a_client_does_not(family: int) -> None:
    gateway = Gateway(limits=Limits(startup=1, greeting=300))
    silent = Connection(gateway, family, port=40000)
    spoken = Connection(gateway, family, port=40001).greeted()
    took = Connection(gateway, family, port=40002)
    took.client(b"HELO a.example\r\n")
    assert took.send(False, ACK) == [ACCEPT]
    for _ in range(29):
        gateway.wait(10)
        assert silent.send(True, ACK) == [ACCEPT]
        assert silent.send(False, ACK) == [ACCEPT]  # of nothing but the SYN
    assert gateway.count("flows_now") == 3
    gateway.wait(11)
    assert gateway.count("flows_now") == 2
    assert spoken.client(b"EXPN\r\n") == [REPLACE]
    assert took.server(b"220 late\r\n") in ([ACCEPT], [REPLACE])
    assert silent.client(b"EXPN\r\n") == REFUSED


@families
def test_young_flows_live_although_all_others_keep_the_table_full(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=64, embryonic=1e6, greeting=1e6))
    for number in range(64):
        Connection(gateway, family, client=address(number, family)).greeted()
    young = [Connection(gateway, family, client=address(100 + n, family), shake=False) for n in range(8)]
    for connection in young:  # each pushes out one that had nothing accepted, not the one before it
        assert connection.send(True, SYN) == [EMIT, EMIT, ACCEPT]
        connection.sent[True] += 1
    for connection in young:
        assert connection.send(False, SYN | ACK) == [ACCEPT]
        connection.sent[False] += 1
        assert connection.send(True, ACK) == [ACCEPT]
    # Their servers take their time; others come, and are greeted at once.
    for number in range(200, 230):
        other = Connection(gateway, family, client=address(number, family), shake=False)
        assert other.send(True, SYN) == [EMIT, EMIT, ACCEPT]
        other.sent[True] += 1
        other.send(False, SYN | ACK)
        other.sent[False] += 1
        other.send(True, ACK)
        other.greeted()
    assert [other.server(b"220 late\r\n") for other in young] == [[REPLACE]] * 8
    # Above its part a kind gives way to its own.
    flood = [Connection(gateway, family, port=1024 + n, shake=False) for n in range(100)]
    assert [flooding.send(True, SYN)[-1] for flooding in flood] == [ACCEPT] * 100
    assert gateway.count("flows_evicted_embryonic") >= 90
    flood[-8].sent[True] += 1
    assert flood[-8].send(False, SYN | ACK) == [ACCEPT]


def seen_from_both(gateway: Gateway, family: int, number: int, first: bool = True) -> Connection:
    """A connection that was open before us, of which each side has said something, ``first`` the client or not."""
    old = Connection(gateway, family, client=address(number, family), shake=False)
    for to_server in (first, not first):
        ways = {"in_interface": INSIDE, "out_interface": OUTSIDE}
        if not to_server:
            ways = {"in_interface": OUTSIDE, "out_interface": INSIDE}
        assert old.send(to_server, ACK, ack=old.sent[not to_server], **ways) == [ACCEPT]
    return old


@families
def test_one_sided_first_and_what_was_open_before_us_goes_on_beside_a_flood_of_the_start(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=64, startup=60, cookies=0))
    honest = [seen_from_both(gateway, family, number, number % 2 == 0) for number in range(40)]
    for number in range(1000, 2000):
        stranger = Connection(gateway, family, client=address(number, family), shake=False)
        way = {"in_interface": INSIDE, "out_interface": OUTSIDE}
        assert [stranger.send(True, ACK, **way) for _ in range(2)] == [[ACCEPT]] * 2
        # Nor does a word for the other side help that comes in on the same.
        assert stranger.send(False, ACK, **way) == [DROP]
    # Who comes now has an eighth of the table for the time that an answer takes.
    late = Connection(gateway, family, client=address(3000, family), shake=False)
    assert late.send(True, ACK, in_interface=INSIDE, out_interface=OUTSIDE) == [ACCEPT]
    for number in range(3001, 3008):
        Connection(gateway, family, client=address(number, family), shake=False).send(True, ACK)
    assert late.send(False, ACK, in_interface=OUTSIDE, out_interface=INSIDE) == [ACCEPT]
    for number in range(4000, 4100):
        begins = Connection(gateway, family, client=address(number, family), shake=False)
        assert begins.send(True, SYN) == [ACCEPT]
    assert gateway.count("flows_evicted_greeted") == 0
    gateway.wait(61)
    for old in (*honest, late):
        assert old.send(True, payload=b"mail", in_interface=INSIDE, out_interface=OUTSIDE) == [ACCEPT]
    assert late.send(False, ACK, in_interface=INSIDE) == [DROP]


@families
def test_one_sided_first_but_a_part_of_the_table_is_theirs(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=64, startup=60))
    for number in range(64):
        seen_from_both(gateway, family, number)
    # Of newcomers none pushes out the one before it.
    for number in range(100, 108):
        stranger = Connection(gateway, family, client=address(number, family), shake=False)
        assert stranger.send(True, ACK, in_interface=INSIDE, out_interface=OUTSIDE) == [ACCEPT]
    assert (gateway.count("flows_evicted_greeted"), gateway.count("flows_evicted_one_sided")) == (8, 0)
    for number in range(108, 120):
        stranger = Connection(gateway, family, client=address(number, family), shake=False)
        assert stranger.send(True, ACK, in_interface=INSIDE, out_interface=OUTSIDE) == [ACCEPT]
    assert (gateway.count("flows_evicted_greeted"), gateway.count("flows_evicted_one_sided")) == (9, 11)


def shaken(gateway: Gateway, client: str, port: int, family: int) -> bool:
    """Whether a connection of the client's opens."""
    connection = Connection(gateway, family, client=client, port=port, shake=False)
    if connection.send(True, SYN) != [ACCEPT]:
        return False
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK) == [ACCEPT]
    connection.sent[False] += 1
    return connection.send(True, ACK) == [ACCEPT]


@families
def test_flow_share_of_a_source_is_what_it_leaves_free(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=64))
    got = [sum(shaken(gateway, address(n, family), port, family) for port in range(1024, 1124)) for n in range(3)]
    assert got == [32, 16, 8]
    assert gateway.count("flows_evicted") == 0
    assert gateway.count("finding.flow.limit") == gateway.count("flows_refused_share") == 300 - 56
    assert [shaken(gateway, address(n, family), 2000, family) for n in range(10, 14)] == [True] * 4


@families
def test_flow_share_does_not_count_what_has_ended(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=64))
    for port in range(1024, 1224):
        connection = Connection(gateway, family, port=port)
        accepted(connection).close()
    assert gateway.count("flows_opened") == 200
    assert gateway.count("flows_opened_now") == gateway.count("flows_refused") == 0


@pytest.mark.parametrize(
    ("family", "same", "other"), [(4, "10.7.0.1", "10.7.0.2"), (6, "fd00:7::1:2:3:4", "fd00:7:0:1::1")]
)
def test_flow_share_is_of_an_address_or_an_ipv6_network(family: int, same: str, other: str) -> None:
    gateway = Gateway(limits=Limits(flows=64, flows_per_source=5))
    clients = ["10.7.0.1"] if family == 4 else [f"fd00:7::{n}" for n in range(1, 6)]
    for port in range(5):
        assert shaken(gateway, clients[port % len(clients)], 3000 + port, family)
    assert not shaken(gateway, same, 4000, family)
    assert shaken(gateway, other, 4000, family)


@families
def test_flow_share_holds_where_all_open_at_once(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=64))
    connections = opening(gateway, 60, family=family)
    for connection in connections:
        assert connection.send(False, SYN | ACK) == [ACCEPT]
        connection.sent[False] += 1
    kinds = [connection.send(True, ACK) for connection in connections]
    assert kinds == [[ACCEPT]] * 32 + [[ACCEPT, EMIT, EMIT]] * 28
    assert connections[0].server(b"220 mx\r\n") == [REPLACE]
    assert connections[-1].server(b"220 mx\r\n")[0] == DROP


@families
def test_flow_share_is_not_used_up_by_who_writes_anothers_address(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=64, startup=60, embryonic=1e6))
    for port in range(1024, 1056):
        assert Connection(gateway, family, port=port, shake=False).send(True, ACK) == [ACCEPT]
    opening(gateway, 60, first=2000, family=family)
    assert gateway.count("flows_opened_now") == 0
    assert Connection(gateway, family, port=5000).greeted().client(b"EXPN\r\n") == [REPLACE]


def test_flow_share_is_not_taken_by_strangers_who_meet_it_in_one_row() -> None:
    gateway = Gateway(limits=Limits(flows=131_072, flows_per_source=1))
    refused = sum(not shaken(gateway, f"10.{64 + (n >> 14)}.{n >> 7 & 127}.{n & 127}", 1024, 4) for n in range(6000))
    # Of 6,000 others some have one of its places each, with a chance of 1 in 11; both, with 1 in 130.
    assert refused < 40


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
    assert connection.client(b"EXPN\r\n") == REFUSED


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


@families
def test_no_self_eviction_by_a_source_that_has_its_share(family: int) -> None:
    gateway = Gateway(limits=Limits(startup=60, flows_per_source=2))
    victim = Connection(gateway, family, port=39000).greeted()
    victim.send(True, RST, lost=True)  # its server has the connection
    for port in (39001, 39002):
        Connection(gateway, family, port=port).greeted()
    assert victim.send(True, SYN, seq=77_000)[0] == DROP
    assert victim.send(True, payload=b"EXPN\r\n")[0] == DROP
    assert victim.server_reads == b""


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


def test_passed_flows_end_by_no_rst_where_their_packets_go_by_unseen() -> None:
    gateway = Gateway(Policy("all"), offload=True)
    connection = passed(gateway)
    assert connection.send(True, RST, seq=connection.sent[True] + 100_000) == [ACCEPT]  # its receiver knows the number
    assert connection.client(b"tls tls") == [ACCEPT]


def test_passed_flows_end_by_nothing_that_is_guessed() -> None:
    gateway = Gateway(Policy("all"))
    connection = passed(gateway)
    for wrong in (70_000, -70_000, 2**30):
        assert connection.send(False, FIN | ACK, seq=connection.sent[False] + wrong) == [ACCEPT]
        assert connection.send(False, ACK, ack=connection.sent[True] + abs(wrong)) == [ACCEPT]
    connection.send(False, FIN | ACK, seq=connection.sent[False] + 100)  # not in its turn
    assert connection.client(b"tls tls") == [ACCEPT]
    assert connection.send(True, RST) == [ACCEPT]
    assert connection.client(b"tls tls") == [DROP, EMIT]


def test_passed_flows_end_by_nothing_that_is_guessed_as_far_away_as_can_be() -> None:
    # Of -2^31 there is no positive number: it is not within a window.
    connection = passed(Gateway(Policy("all")))
    guess = connection.sent[True] + 5
    assert connection.send(False, ACK, seq=(connection.sent[False] + 2**31) % 2**32, ack=guess) == [ACCEPT]
    assert connection.send(True, RST, seq=guess) == [DROP]
    assert connection.client(b"tls tls") == [ACCEPT]


@families
@pytest.mark.parametrize("how", ["fins", "rst", "server's rst"])
@pytest.mark.parametrize("seen", ["before", "one direction"])
def test_passed_flows_end_where_no_window_was_seen(family: int, how: str, seen: str) -> None:
    gateway = Gateway(limits=Limits(startup=60, closing=10, cookies=0), on=On(asymmetric=Action.LOG))
    old = Connection(gateway, family, shake=False)
    if seen == "one direction":
        assert old.send(True, SYN) == [ACCEPT]
        old.sent[True] += 1
    assert old.client(b"a mail's text") == [ACCEPT]
    assert old.send(True, payload=b"and more, after a loss", at=300_000, lost=True) == [ACCEPT]
    old.sent[True] = old.isn[True] + 1 + 300_022
    if how == "fins":
        assert old.send(False, FIN | ACK, b"221 bye", ack=old.sent[True]) == [ACCEPT]
        assert old.send(True, FIN | ACK) == [ACCEPT]
    else:
        assert old.send(how == "rst", RST) == [ACCEPT]
    gateway.wait(61)
    assert gateway.count("flows_now") == 0


@families
def test_passed_flows_end_where_the_first_packet_seen_is_a_fin(family: int) -> None:
    gateway = Gateway(limits=Limits(startup=60, closing=10))
    old = Connection(gateway, family, shake=False)
    assert old.send(False, FIN | ACK, b"221 bye\r\n", ack=old.sent[True]) == [ACCEPT]
    assert old.send(True, FIN | ACK, ack=old.sent[False] + 10) == [ACCEPT]
    gateway.wait(61)
    assert gateway.count("flows_now") == 0


@families
def test_passed_flows_end_by_the_fin_of_the_last_packet_that_was_looked_at(family: int) -> None:
    gateway = Gateway(limits=Limits(startup=60, closing=10, cookies=0), on=On(asymmetric=Action.LOG))
    one = Connection(gateway, family, shake=False)
    assert one.send(True, SYN) == [ACCEPT]
    one.sent[True] += 1
    assert one.send(True, FIN | ACK, b"a mail's text") == [ACCEPT]  # nothing of the server's was seen: it passes
    assert one.send(False, FIN | ACK, b"221 bye", ack=one.sent[True]) == [ACCEPT]
    gateway.wait(61)
    assert gateway.count("flows_now") == 0


def test_passed_flows_end_by_nothing_that_is_guessed_where_no_window_was_seen() -> None:
    gateway = Gateway(limits=Limits(startup=60))
    old = Connection(gateway, shake=False)
    assert old.client(b"a mail's text") == [ACCEPT]
    for wrong in (2**21, -(2**21), 2**30):
        assert old.send(False, RST, seq=old.sent[False] + wrong) == [DROP]
        assert old.send(True, ACK, seq=old.sent[True] + wrong) == [ACCEPT]
    assert old.send(True, RST) == [ACCEPT]


@families
def test_passed_flows_end_by_no_syn(family: int) -> None:
    gateway = Gateway(Policy("all"))
    connection = passed(gateway, family)
    assert connection.send(True, SYN, seq=77_000) == [REPLACE]  # anybody may have sent it
    assert gateway.count("flows_opened") == 1
    assert connection.client(b"tls EXPN\r\n") == [ACCEPT]
    assert connection.send(False, SYN | ACK, seq=88_000, ack=77_001) == [DROP]
    assert connection.send(True, SYN, seq=77_000) == [REPLACE]
    assert connection.send(False, RST, seq=parse(connection.left[-1]).ack) == [ACCEPT]
    assert connection.send(True, SYN, seq=77_000) == [ACCEPT]
    assert gateway.count("flows_opened") == 2


def chains(key: bytes, flows: list[tuple[bytes, int, bytes, int]], buckets: int) -> Counter[int]:
    """How many flows the buckets hold, by the bucket, as SipHash-2-4 of the key spreads them."""
    places = Counter[int]()
    for client, client_port, server, server_port in flows:
        octets = client + server + client_port.to_bytes(2, "little") + server_port.to_bytes(2, "little") + bytes(4)
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
