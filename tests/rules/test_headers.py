"""What a header is believed of: windows, probes and acknowledgements (docs/streams.md)."""

from __future__ import annotations

import pytest

from nfmailguard.policy.model import Action, On
from tests.rules.gateway import ACCEPT, DROP, REPLACE, RESET, Connection, Gateway
from tests.support.wire import ACK, FIN, RST, SYN

families = pytest.mark.parametrize("family", [4, 6])
SCALE_7 = b"\x01\x03\x03\x07"  # RFC 7323 2.2
WINDOW = 1000


def windowed(family: int, window: int = WINDOW, options: bytes = b"") -> Connection:
    """A connection whose sides have room for ``window`` octets, as all their packets say."""
    return begun(Connection(family=family, window=window, options=options))


def begun(connection: Connection) -> Connection:
    """Its server has begun to speak: the client may, too; the client has not got it yet."""
    connection.send(False, payload=b"2", lost=True)
    return connection


@families
def test_beyond_window_a_segment_is_dropped(family: int) -> None:
    connection = windowed(family)
    assert connection.send(True, payload=b"NOOP\r\n", at=WINDOW + 1) == [DROP]
    assert connection.send(True, ACK, at=WINDOW + 1) == [DROP]
    assert connection.send(True, FIN | ACK, at=WINDOW + 1) == [DROP]
    assert connection.gateway.count("beyond_window") == 3
    assert connection.send(True, payload=b"NOOP\r\n", at=WINDOW - 1) == []  # held: there is room for its beginning
    # The client's window counts for the server.
    assert connection.send(False, payload=b"220 x\r\n", at=WINDOW + 1) == [DROP]


@families
def test_beyond_window_scaled_as_both_syns_offered(family: int) -> None:
    connection = Connection(family=family, window=WINDOW, options=SCALE_7)
    # In a SYN a window is never scaled; the client's ACK is: its window is the server's limit.
    assert connection.send(False, SYN | ACK, seq=5000, options=SCALE_7) == [ACCEPT]
    assert connection.send(True, ACK, at=WINDOW + 1) == [DROP]
    assert connection.send(False, payload=b"220 x\r\n", at=(WINDOW << 7) + 1) == [DROP]
    assert connection.send(False, payload=b"220 x\r\n", at=WINDOW << 7) == []
    begun(connection)
    assert connection.send(True, payload=b"NOOP\r\n", at=(WINDOW << 7) + 1) == [DROP]
    assert connection.send(True, payload=b"NOOP\r\n", at=WINDOW << 7) == []


@families
@pytest.mark.parametrize("offering", [True, False])
def test_beyond_window_not_scaled_where_one_side_did_not_offer(family: int, offering: bool) -> None:
    connection = Connection(family=family, window=WINDOW, shake=False)
    for to_server, flags in ((True, SYN), (False, SYN | ACK)):
        connection.send(to_server, flags, options=SCALE_7 if to_server == offering else b"")
        connection.sent[to_server] += 1
    connection.send(True, ACK)
    begun(connection)
    for to_server in (True, False):
        assert connection.send(to_server, payload=b"250 x\r\n", at=WINDOW + 1) == [DROP]
        assert connection.send(to_server, payload=b"250 x\r\n", at=WINDOW) == []


@families
def test_beyond_window_by_an_edge_that_never_moves_left(family: int) -> None:
    connection = windowed(family)
    assert connection.send(False, ACK, window=10) == [ACCEPT]
    assert connection.send(True, payload=b"NOOP\r\n", at=WINDOW - 10) == []
    assert connection.send(True, payload=b"NOOP\r\n", at=WINDOW + 1) == [DROP]
    connection.send(False, ACK, window=2 * WINDOW)
    assert connection.send(True, payload=b"NOOP\r\n", at=2 * WINDOW) == []


@families
def test_probe_at_the_edge_passes_and_is_decided(family: int) -> None:
    connection = windowed(family, window=0)
    assert connection.server(b"220 x\r\n") == [REPLACE]  # it begins at the edge, too
    assert connection.send(True, payload=b"R") == [ACCEPT]  # RFC 9293 3.8.6.1: one octet
    assert connection.send(True, payload=b"R", lost=True) == [ACCEPT]
    assert connection.send(True, payload=b"NOOP\r\n", at=1) == [DROP]
    connection.sent[True] += 1
    connection.send(False, ACK, window=1000)
    assert connection.client(b"EXP a\r\n") == [REPLACE]
    assert connection.server_reads == b"RXXX a\r\n"


@families
def test_probe_of_a_keep_alive_becomes_what_was_decided(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.send(True, payload=b"EXPN a\r\n", lost=True)
    connection.sent[True] += 8
    assert connection.send(True, payload=b"!", seq=connection.sent[True] - 1) == [REPLACE]  # RFC 1122 4.2.3.6
    assert connection.last.payload == b"\n"
    assert connection.send(True, ACK, seq=connection.sent[True] - 1) == [ACCEPT]
    assert connection.client(b"NOOP\r\n") == [ACCEPT]


@families
def test_unacceptable_ack_below_what_was_acknowledged_is_not_believed(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.client(b"NOOP a b c d\r\n")
    connection.send(False, payload=b"250 ok\r\n", lost=True)
    old = {"at": 2}  # wholly below: the server would only answer it with an ACK
    assert connection.send(True, ACK, ack=connection.sent[False] + 8, **old) == [ACCEPT]
    assert connection.send(True, ACK, ack=connection.sent[False] + 1000, **old) == [ACCEPT]
    assert connection.names == []
    assert connection.server(b"554 no\r\n") == [REPLACE]  # kept still, and put back
    assert connection.client_reads.endswith(b"250 ok\r\n")


@families
def test_unacceptable_ack_beyond_the_window_is_not_believed(family: int) -> None:
    connection = windowed(family)
    connection.greeted()
    connection.send(False, payload=b"250 ok\r\n", lost=True)
    assert connection.send(True, ACK, at=WINDOW + 1, ack=connection.sent[False] + 8) == [DROP]
    assert connection.send(True, ACK, at=WINDOW + 1, ack=connection.sent[False] + 1000) == [DROP]
    assert connection.send(False, payload=b"554 no\r\n") == [REPLACE]
    assert connection.client_reads.endswith(b"250 ok\r\n")


@families
def test_unacceptable_ack_older_than_a_window_drops_its_segment(family: int) -> None:
    connection = windowed(family)
    for _ in range(30):
        connection.server(b"250-" + b"x" * 90 + b"\r\n")
        connection.send(True, ACK)
    old = {"ack": connection.sent[False] - WINDOW - 1}
    assert connection.send(True, payload=b"NOOP\r\n", **old) == [DROP]  # no receiver takes its octets
    assert connection.client(b"RSET\r\n") == [ACCEPT]
    assert connection.server_reads == b"RSET\r\n"
    assert connection.send(True, ACK, ack=connection.sent[False] - WINDOW) == [ACCEPT]


@families
def test_partial_ack_lets_go_of_exactly_the_octets_below_it(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.send(True, payload=b"NOOP abcdef\r\n", lost=True)
    connection.send(False, ACK, ack=connection.sent[True] + 7)
    assert connection.gateway.memory() > 0
    assert connection.send(True, payload=b"RSET ABCDEF\r\n", lost=True) == [REPLACE]
    assert connection.last.payload == bytes(7) + b"cdef\r\n"
    connection.send(False, ACK, ack=connection.sent[True] + 13)
    assert connection.send(True, payload=b"RSET ABCDEF\r\n") == [REPLACE]
    assert connection.last.payload == bytes(13)


@families
def test_gap_is_what_was_acknowledged_and_never_emitted(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.client(b"NOOP\r\n")
    assert connection.send(False, ACK, ack=connection.sent[True]) == [ACCEPT]
    assert connection.send(False, payload=b"250 ok\r\n", ack=connection.sent[True] + 1) == RESET
    assert connection.names == ["stream.gap"]
    # The other way round, and of what is only held.
    other = Connection(family=family).greeted()
    assert other.send(True, ACK, ack=other.sent[False] + 1) == RESET
    holding = Connection(family=family).greeted()
    assert holding.send(True, payload=b"NOOP\r\n", at=6) == []
    assert holding.send(False, ACK, ack=holding.sent[True] + 12) == [DROP, *RESET]
    assert holding.names == ["stream.gap"]


@families
def test_gap_is_none_at_the_fin_and_one_behind_it(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.send(True, FIN | ACK)
    assert connection.send(False, ACK, ack=connection.sent[True] + 1) == [ACCEPT]
    assert connection.send(False, ACK, ack=connection.sent[True] + 2) == RESET


@families
def test_gap_in_a_syn_and_ack_is_answered_once(family: int) -> None:
    connection = Connection(family=family)
    assert connection.send(False, SYN | ACK, seq=5000, ack=connection.sent[True] + 100) in ([DROP], [ACCEPT])
    assert connection.greeted().client(b"EXPN\r\n") == [REPLACE]


@families
def test_gap_is_not_believed_of_who_only_guesses_the_place(family: int) -> None:
    connection = Connection(family=family).greeted()
    for place in (1, 100, 60_000):
        assert connection.send(True, ACK, at=place, ack=connection.sent[False] + 1000) == [DROP]
    assert connection.names == []
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    assert connection.send(True, ACK, ack=connection.sent[False] + 1000) == RESET


@families
def test_gap_is_none_in_a_challenge_to_a_syn(family: int) -> None:
    connection = Connection(family=family, shake=False)
    connection.send(True, SYN)
    assert connection.send(False, ACK, seq=9000, ack=99_000) == [ACCEPT]  # RFC 9293 3.10.7.4, half-open
    assert connection.send(True, RST, seq=99_000) == [ACCEPT]
    connection.shake()
    assert connection.greeted().client(b"EXPN\r\n") == [REPLACE]


@pytest.mark.parametrize(
    ("action", "kinds", "then"), [(Action.PASS, [ACCEPT], [ACCEPT]), (Action.DROP, [DROP], [DROP])]
)
def test_gap_is_what_on_gap_says(action: Action, kinds: list[int], then: list[int]) -> None:
    connection = Connection(Gateway(on=On(gap=action))).greeted()
    assert connection.send(False, ACK, ack=connection.sent[True] + 1) == kinds
    assert connection.client(b"EXPN\r\n") == then
    assert connection.names == ["stream.gap"]


def test_gap_is_not_believed_of_a_rst() -> None:
    connection = Connection().greeted()
    assert connection.send(False, RST | ACK, ack=connection.sent[True] + 1000) == [ACCEPT]
    assert connection.names == []
