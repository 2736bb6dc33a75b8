"""One connection after another over the same ports, and which of them a packet is of (docs/streams.md).

The kernels these tests think of: Linux with SYN cookies gives the same number to the same addresses, ports and
client's number within a minute, finishes a handshake by the client's ACK alone, and its cookies go along with the
client's number (net/ipv4/syncookies.c, secure_tcp_syn_cookie); it forgets FIN-WAIT-2 after 60 s without a word.
"""

from __future__ import annotations

from random import Random

import pytest

from nfmailguard import engine
from nfmailguard.policy.model import Limits, Policy
from tests.rules.gateway import ACCEPT, DROP, EMIT, GSO, REPLACE, RESET, Connection, Gateway
from tests.support.wire import ACK, FIN, RST, SYN, parse

families = pytest.mark.parametrize("family", [4, 6])
SCALE_7 = b"\x01\x03\x03\x07"


def again(connection: Connection, isn: tuple[int, int] = (1000, 5000)) -> None:
    """The next connection over the same ports: SYN, SYN and ACK, ACK, greeting."""
    connection.begin(isn)
    assert connection.send(True, SYN) == [ACCEPT]
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK) == [ACCEPT]
    connection.sent[False] += 1
    assert connection.send(True, ACK) == [ACCEPT]
    assert connection.server(b"220 mail ESMTP\r\n") == [REPLACE]
    assert connection.client_reads == b"220 **********\r\n"


def asked(connection: Connection, *, seq: int, options: bytes = b"") -> None:
    """A SYN of the client's: the server is asked whether it has the connection, with an old number."""
    connection.left.clear()
    assert connection.send(True, SYN, b"EXPN\r\n", seq=seq, options=options) == [REPLACE]
    question = parse(connection.left[-1])
    assert (question.flags, question.payload) == (ACK, b"")
    assert question.options.strip(b"\x01") == b""
    assert (connection.has(True) - question.seq) % 2**32 < 120
    assert question.seq != connection.has(True)
    assert question.ack == connection.has(False)


@families
@pytest.mark.parametrize("isn", [(1000, 5000), (1000, 6000), (2000, 5000), (1020, 5020)])
def test_another_connection_has_maybe_the_same_numbers(family: int, isn: tuple[int, int]) -> None:
    connection = Connection(family=family).in_text()
    connection.send(True, payload=b"text that never arrives\r\n", lost=True)
    asked(connection, seq=isn[0])
    # The server has no such connection: it resets, at the number it was asked for.
    assert connection.send(False, RST, seq=connection.has(False)) == [ACCEPT]
    again(connection, isn)
    assert connection.gateway.count("flows_opened") == 2
    assert connection.client(b"EXPN a\r\n") == [REPLACE]
    assert connection.server_reads == b"XXXX a\r\n"


@families
def test_another_connection_begins_at_no_server_that_answers_one_of_two_syns(family: int) -> None:
    connection = Connection(family=family).in_text()
    asked(connection, seq=connection.has(True))
    asked(connection, seq=connection.has(True) + 2**30)
    assert connection.send(False, SYN | ACK, seq=5020, ack=connection.has(True) + 1) == [DROP]
    assert connection.send(False, SYN | ACK, seq=5020, ack=connection.has(True) + 2**30 + 1) == [DROP]


@families
def test_another_connection_is_no_syn_that_comes_late(family: int) -> None:
    connection = Connection(family=family)
    asked(connection, seq=1000)  # its own SYN again, acknowledged and answered long since


@families
def test_another_connection_follows_one_that_is_not_looked_at_any_more(family: int) -> None:
    connection = Connection(Gateway("asa-tls"), family).greeted()
    for to_server, payload in ((True, b"EHLO a\r\n"), (False, b"250 STARTTLS\r\n"), (True, b"STARTTLS\r\n")):
        connection.say(to_server, payload)
    connection.server(b"220 go\r\n")
    assert connection.client(b"\x16\x03\x01hello") == [ACCEPT]
    assert connection.send(False, ACK) == [ACCEPT]
    assert connection.gateway.count("flows_passed") == 1
    assert connection.send(True, payload=b"x", at=100_000_000, lost=True) == [ACCEPT]  # far out of any window
    assert connection.send(True, RST) == [ACCEPT]
    again(connection)
    assert connection.client(b"EXPN a\r\n") == [REPLACE]
    assert connection.server_reads == b"XXXX a\r\n"


@families
def test_another_connection_needs_a_syn_since_the_server_has_spoken(family: int) -> None:
    connection = Connection(family=family)
    assert connection.send(False, SYN | ACK, seq=5000, ack=1001) == [ACCEPT]  # it may not have got the ACK
    connection.greeted()
    assert connection.send(False, SYN | ACK, seq=5000, ack=1001) == [DROP]
    assert connection.gateway.count("drop.syn_ack") == 1
    connection.client(b"NOOP\r\n")
    acknowledged = Connection(connection.gateway, family, port=40001)
    acknowledged.client(b"HELO a\r\n")  # before the greeting
    acknowledged.send(False, ACK)
    assert acknowledged.send(False, SYN | ACK, seq=5000, ack=1001) == [DROP]
    assert acknowledged.gateway.count("flows_opened") == 2


@families
def test_another_connection_has_the_widest_windows_of_its_first_syns(family: int) -> None:
    scales = [b"\x01\x03\x03" + bytes([scale]) for scale in (7, 0)]
    connection = Connection(family=family, shake=False, window=1000)
    for options in scales:  # its server has answered one of them, and nobody knows which
        assert connection.send(True, SYN, options=options) == [ACCEPT]
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, options=SCALE_7) == [ACCEPT]
    connection.sent[False] += 1
    assert connection.send(True, ACK) == [ACCEPT]
    connection.greeted()
    far = connection.has(False) + (900 << 7)
    assert connection.send(False, RST, seq=far) == [ACCEPT]
    assert connection.send(True, payload=b"NOOP\r\n") == [DROP, EMIT]


@families
@pytest.mark.parametrize("payload", [b"221 bye\r\n", b""])
def test_server_closed_hears_nothing_more(family: int, payload: bytes) -> None:
    connection = Connection(family=family).in_text()
    connection.send(True, payload=b"text\r\n", lost=True)
    assert connection.send(False, FIN | ACK, payload, ack=connection.sent[True]) in ([ACCEPT], RESET)
    connection.sent[False] += len(payload) + 1
    if payload:
        return  # an early reply ends the flow
    # A cookie of old would do for another handshake; what is said behind it reaches nobody.
    assert connection.send(True, ACK, ack=connection.isn[False] + 1) == [ACCEPT]
    assert connection.send(True, payload=b"EXPN\r\n") == RESET
    assert connection.send(True, payload=b"EXPN\r\n") == [DROP, EMIT]
    assert connection.gateway.count("drop.closed") == 1
    assert connection.server_reads == b"DATA\r\n"


@families
def test_server_closed_hears_nothing_that_it_has_not_acknowledged(family: int) -> None:
    connection = Connection(family=family).in_text()
    place = connection.mark
    connection.client(b"EXPN\r\n")
    connection.send(False, FIN | ACK, ack=connection.sent[True] - 6)
    assert connection.send(True, payload=b"EXPN\r\n", at=place) == RESET


@families
def test_server_closed_and_what_it_had_is_blank(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.client(b"QUIT\r\n")
    connection.send(False, FIN | ACK, b"221 bye\r\n")
    connection.sent[False] += 10
    assert connection.send(True, payload=b"QUIT\r\n", at=0) == [REPLACE]
    assert connection.last.payload == bytes(6)
    assert connection.send(True, FIN | ACK, ack=connection.sent[False]) == [ACCEPT]


def test_server_closed_lets_nothing_go_that_was_held() -> None:
    connection = Connection().greeted()
    connection.client(b"DATA\r\n")
    assert connection.send(True, payload=b"NOOP\r\n") == []
    assert connection.send(False, FIN | ACK, b"421 no\r\n") == [ACCEPT]
    assert connection.gateway.wait(120) == [DROP]
    assert connection.server_reads == b"DATA\r\n"


@families
def test_server_closed_is_no_matter_of_inspection(family: int) -> None:
    connection = Connection(Gateway(Policy("all")), family).greeted()
    connection.client(b"STARTTLS\r\n")
    connection.server(b"220 go\r\n")
    connection.client(b"\x16\x03\x01hello")
    assert connection.gateway.count("flows_passed") == 1
    assert connection.send(False, FIN | ACK) == [ACCEPT]
    assert connection.send(True, ACK) == [ACCEPT]
    assert connection.send(False, payload=b"220 mail ESMTP\r\n") == [DROP]  # of another connection, as it seems
    assert connection.send(True, payload=b"EHLO a\r\n") == RESET
    assert connection.send(True, payload=b"EHLO a\r\n") == [DROP, EMIT]


Numbers = tuple[int, int]


def handshakes(connection: Connection, *, own: Numbers = (1000, 5000)) -> list[Numbers]:
    """The numbers of all that has left for the server and would end a handshake of these initial ones, or like them."""
    client, server = own
    left = (parse(packet) for packet in connection.left)
    return [
        (segment.seq, segment.ack)
        for segment in left
        if segment.destination == connection.server_end
        and segment.flags & ACK
        and (segment.ack - segment.seq - (server - client) + 3) % 2**32 <= 6
    ]


def poked(connection: Connection, own: Numbers = (1000, 5000)) -> list[Numbers]:
    """The client sends every ACK that might be one, with and without payload; those that leave and are."""
    connection.left.clear()
    client, server = own
    for apart in range(-3, 4):
        for place in range(0, 60, 3):
            seq, ack = client + 1 + place, server + 1 + place + apart
            connection.send(True, ACK, seq=seq, ack=ack, lost=True)
            connection.send(True, payload=b"EXPN x\r\n", seq=seq, ack=ack, lost=True)
    return handshakes(connection, own=own)


@families
def test_cookie_is_no_ack_of_an_open_flow(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family).in_text()
    assert poked(connection) == []
    assert len(connection.left) > 100  # nearly all of them left, and acknowledge a little less
    assert connection.send(True, payload=b"text\r\n", at=connection.mark) in ([ACCEPT], [REPLACE])


@families
def test_cookie_hides_without_loss_where_nothing_else_is_said(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family).greeted()
    connection.client(b"NOOP abcdefghi\r\n")  # now both have said sixteen bytes
    connection.server(b"250 ok\r\n")
    connection.send(True, ACK, ack=connection.sent[False] - 8)
    assert connection.last.ack == 5017
    assert connection.last.seq == 1017 + 4  # in the server's window: it is acknowledged as it was
    assert connection.send(True, payload=b"NOOP\r\n", ack=connection.sent[False] - 8) == [REPLACE]
    assert (connection.last.seq, connection.last.ack) == (1017, 5017 - 4)


@families
def test_cookie_is_as_old_as_the_answer_it_stands_in(family: int) -> None:
    connection = Connection(Gateway(limits=Limits(embryonic=600)), family, shake=False)  # one flow, all the time
    for _ in range(3):
        connection.send(True, SYN)
        connection.gateway.wait(100)
    connection.shake()
    connection.in_text()
    assert poked(connection) == []


@families
def test_cookie_is_dropped_where_there_is_nothing_less_to_acknowledge(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family)
    connection.send(False, payload=b"2")
    connection.sent[False] += 1
    connection.left.clear()
    assert connection.send(True, payload=b"NOOP\r\n", ack=5001) == [DROP]
    assert connection.send(True, payload=b"NOOP\r\n", ack=5002) == [DROP]
    assert connection.send(True, ACK, at=-1, ack=5002) == [DROP]
    assert connection.gateway.count("drop.cookie") == 3
    assert handshakes(connection) == []


@families
def test_cookie_of_the_handshake_is_its_own(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family)
    connection.left.clear()
    assert connection.send(True, ACK) == [ACCEPT]  # its ACK again: the server may have lost it
    assert connection.send(True, payload=b"NOO") == [ACCEPT]
    connection.left.clear()
    for place in (1, 2, 3):
        assert connection.send(True, ACK, at=place) == [DROP]
    assert handshakes(connection) == []


@families
@pytest.mark.parametrize("how", ["closed", "another answer"])
@pytest.mark.parametrize("options", [b"", SCALE_7], ids=["nothing agreed", "scale"])
def test_cookie_of_an_earlier_connection_over_the_same_ports(family: int, how: str, options: bytes) -> None:
    connection = Connection(Gateway(limits=Limits()), family, shake=how == "closed", options=options)
    if how == "closed":
        connection.greeted().send(True, RST)
    else:
        connection.send(True, SYN)
        connection.send(False, SYN | ACK, ack=1001)  # that of the minute before
    connection.begin((1000, 5000 + 30))
    connection.shake()
    connection.in_text()
    assert poked(connection, (1000, 5000)) == []
    assert poked(connection, (1000, 5030)) == []


def over_again(connection: Connection, server: int, options: bytes = b"") -> None:
    """The connection ends, and another one begins over its ports."""
    connection.send(True, RST)
    connection.begin((1000, server))
    connection.shake(options)


@families
def test_cookie_of_the_minute_before_outlives_those_of_one_minute(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family).greeted()
    for server in (5030, 5031, 5029, 5030, 5031):
        over_again(connection, server)
    connection.in_text()
    assert poked(connection, (1000, 5000)) == []


@families
def test_cookie_outlives_connections_that_are_none(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family).greeted()
    for server in range(100_000, 1_000_000, 50_000):
        over_again(connection, server, SCALE_7)
    over_again(connection, 5030)
    connection.in_text()
    assert poked(connection, (1000, 5000)) == []


@families
def test_cookie_outlives_the_flow_it_was_of(family: int) -> None:
    gateway = Gateway(limits=Limits(flows=2))
    connection = Connection(gateway, family).greeted()
    connection.send(True, RST)
    for port in range(3000, 3010):  # nobody's SYNs push it out of the table
        Connection(gateway, family, port=port, shake=False).send(True, SYN)
    assert gateway.count("flows_evicted") >= 8
    gateway.wait(170)
    connection.begin((1000, 5030))
    connection.shake()
    connection.in_text()
    assert poked(connection, (1000, 5000)) == []
    assert poked(connection, (1000, 5030)) == []


@families
def test_cookie_outlives_the_notes_it_was_made_with(family: int) -> None:
    gateway = Gateway(limits=Limits())
    connection = Connection(gateway, family).greeted()
    for server, wait in ((5030, 100), (5060, 90)):  # what is noted first is 190 s old by then, the other 90
        connection.send(True, RST)
        gateway.wait(wait)
        connection.begin((1000, server))
        connection.shake()
    connection.in_text()
    assert poked(connection, (1000, 5030)) == []


@families
def test_cookie_forgotten_keeps_nobody_out(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family)
    for server in range(100_000, 1_000_000, 50_000):
        over_again(connection, server)
    connection.greeted()


def test_cookie_of_so_many_others_that_any_number_could_be_one_is_not_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many answered SYNs as a small filter has bits for; who comes then is not held up."""
    monkeypatch.setattr(engine, "_LEAST_NOTES", 4)
    lines = 16
    gateway, drawn = Gateway(limits=Limits(flows=32)), Random(3)
    for number in range(2 * lines * 48):
        isn = drawn.getrandbits(32), drawn.getrandbits(32)
        connection = Connection(gateway, client=f"10.9.{number >> 8}.{number & 255}", isn=isn, shake=False)
        connection.send(True, SYN)
        connection.sent[True] += 1
        connection.send(False, SYN | ACK)
    noted = 2 * lines * 48 - gateway.count("cookies_unnoted")
    assert lines * 47 < noted < lines * 49
    for number in range(20):
        connection = Connection(gateway, client=f"10.8.0.{number}")
        connection.server(b"220 mail ESMTP\r\n")
        assert connection.send(True, ACK)[0] != DROP
        assert connection.client(b"HELO a\r\n")[0] != DROP


@families
def test_cookie_expires(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family).greeted()
    connection.send(True, RST)
    connection.gateway.wait(361)
    connection.begin((1000, 5030))
    connection.shake()
    connection.in_text()
    assert poked(connection, (1000, 5000)) != []


@families
def test_cookie_is_no_question_to_the_server(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family).greeted()
    connection.client(b"NOOP 567890123\r\n")  # as many bytes as the greeting has, but for one
    connection.send(False, ACK)
    asked(connection, seq=77_000)
    assert handshakes(connection) == []


@families
def test_cookie_is_nobodys_matter_when_it_has_expired(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family).in_text()
    connection.gateway.wait(181)
    assert poked(connection) != []


@families
def test_cookie_hides_in_a_flow_that_is_not_looked_at_too(family: int) -> None:
    connection = Connection(Gateway(Policy("all"), limits=Limits()), family).greeted()
    connection.client(b"STARTTLS\r\n")
    connection.server(b"220 go\r\n")
    connection.client(b"\x16\x03\x01hello")
    assert connection.gateway.count("flows_passed") == 1
    assert poked(connection) == []


@families
def test_early_talk_waits_for_the_greeting_but_for_its_first_bytes(family: int) -> None:
    connection = Connection(family=family)
    early = b"NOOP EHLO x\r\n"  # read from its sixth byte on, it is another command
    assert connection.send(True, payload=early) == [REPLACE]
    assert connection.last.payload == b"NOO"
    assert connection.send(True, payload=early[3:], at=3) == [DROP]
    assert connection.raw(True, connection.packet(True, payload=early), flags=GSO) == [DROP]
    assert connection.gateway.count("drop.early") + connection.gateway.count("drop.cookie") == 2
    assert connection.server_reads == b"NOO"
    connection.send(False, payload=b"220 mail\r\n")
    connection.sent[False] += 10
    assert connection.client(early) == [REPLACE]  # its first bytes are acknowledged, and blank
    assert connection.server_reads == early


@families
def test_before_beginning_nothing_lies_and_nothing_is_acknowledged(family: int) -> None:
    connection = Connection(family=family, isn=(1000, 5000))
    for seq, ack in ((1000 - 20, 5001 - 20), (1001 - 20, 5001), (1001, 5000), (999, 5001)):
        assert connection.send(True, ACK, seq=seq, ack=ack) == [DROP]
        assert connection.send(True, payload=b"EXPN\r\n", seq=seq, ack=ack) == [DROP]
    # A server whose numbers began earlier is another connection's: its greeting must not be read from its middle.
    assert connection.send(False, payload=b"220 mail ESMTP\r\n", seq=5001 - 4, ack=1001) == [DROP]
    assert connection.send(False, payload=b"220 mail ESMTP\r\n", ack=990) == [DROP]
    assert connection.server(b"220 mail ESMTP\r\n") == [REPLACE]
    assert connection.client_reads == b"220 **********\r\n"
    assert connection.send(True, ACK, seq=1000) == [ACCEPT]  # a keep-alive (RFC 1122 4.2.3.6)


def test_before_beginning_is_not_more_than_half_the_numbers_ago() -> None:
    connection = Connection(isn=(2**32 - 3, 2**31 - 2)).greeted()
    assert connection.client(b"NOOP\r\n") == [ACCEPT]
    assert connection.send(True, payload=b"NOOP\r\n", at=0) == [ACCEPT]
    assert connection.client(b"EXPN\r\n") == [REPLACE]
