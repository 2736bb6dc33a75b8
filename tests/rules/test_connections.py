"""Connections: how a flow begins, who may speak in it, and how it ends (docs/streams.md)."""

from __future__ import annotations

import pytest

from nfmailguard.policy.model import Action, Limits, On
from tests.rules.gateway import ACCEPT, DROP, EMIT, REPLACE, RESET, Connection, Gateway
from tests.rules.test_told import of_kind
from tests.support.wire import ACK, FIN, PSH, RST, SYN, parse

families = pytest.mark.parametrize("family", [4, 6])
#: A packet of no flow that is reset: dropped, and its sender told.
REFUSED = [DROP, EMIT]
INSIDE, OUTSIDE, ELSEWHERE = 2, 3, 4  # interfaces: the client's, the server's, another


def long_running(**options: object) -> Gateway:
    """A gateway whose start is long ago."""
    gateway = Gateway(**options)  # type: ignore[arg-type]
    Connection(gateway, port=39999)
    gateway.now += round(gateway_startup(options) * 1e9) + 1
    return gateway


def gateway_startup(options: dict[str, object]) -> float:
    limits = options.get("limits", Limits())
    assert isinstance(limits, Limits)
    return limits.startup


@families
def test_only_a_syn_begins_a_flow_and_the_middle_of_one_is_reset(family: int) -> None:
    stranger = Connection(long_running(), family, shake=False)
    assert stranger.send(True, payload=b"NOOP\r\n", ack=7) == REFUSED
    assert stranger.names == ["flow.midstream"]
    answered = Connection(long_running(), family, shake=False)
    assert answered.send(False, payload=b"220 x\r\n") == REFUSED


@families
def test_strangers_answered_as_by_a_host_without_the_connection(family: int) -> None:
    gateway = long_running()
    stranger = Connection(gateway, family, shake=False)
    for to_server in (True, False):
        assert stranger.send(to_server, payload=b"NOOP\r\n", ack=7) == REFUSED
    assert [(s.source, s.destination, s.seq, s.flags) for s in stranger.emitted] == [
        (stranger.server_end, stranger.client_end, 7, RST),
        (stranger.client_end, stranger.server_end, 7, RST),
    ]
    assert stranger.emitted_to_server == [False, True]
    assert gateway.count("flows_midstream") == gateway.count("finding.flow.midstream") == 2
    # Nor is it remembered, and what comes next is asked anew.
    assert gateway.count("flows_now") == gateway.count("flows_opened") == 1  # the one of the start
    assert Connection(gateway, family).greeted().client(b"EXPN\r\n") == [REPLACE]


def test_strangers_answered_are_so_many_a_second() -> None:
    gateway = long_running(limits=Limits(cookies=0, flows=64))
    gateway.wait(1 - gateway.now % 10**9 / 1e9)
    opened = gateway.count("flows_opened")
    kinds = [Connection(gateway, port=1024 + n, shake=False).send(True, ACK) for n in range(3000)]
    assert kinds == [REFUSED] * 1000 + [[DROP]] * 2000
    assert gateway.count("refusals_omitted") == 2000
    assert gateway.count("flows_opened") == opened
    assert len(of_kind(gateway.records, "flow.midstream")) <= 16
    gateway.wait(1)
    assert Connection(gateway, port=1024, shake=False).send(True, ACK) == REFUSED


@families
def test_only_a_syn_begins_but_while_we_start_flows_that_were_there_before_pass(family: int) -> None:
    gateway = Gateway(limits=Limits(startup=60))
    old = Connection(gateway, family, shake=False)
    assert old.send(True, payload=b"EXPN\r\n") == [ACCEPT]
    assert old.names == []
    gateway.wait(120)
    assert old.send(False, payload=b"250 x\r\n") == [ACCEPT]  # it goes on when that time is over
    late = Connection(gateway, family, port=40001, shake=False)
    assert late.send(True, payload=b"EXPN\r\n") == REFUSED


@families
@pytest.mark.parametrize("starting", [True, False])
def test_only_a_syn_begins_and_a_handshake_half_seen_is_not_refused(family: int, starting: bool) -> None:
    gateway = Gateway(limits=Limits(startup=60, cookies=0)) if starting else long_running()
    connection = Connection(gateway, family, shake=False)
    for _ in range(2):
        assert connection.send(False, SYN | ACK, ack=1001) == [DROP]
    assert connection.emitted == []
    assert set(connection.names) == {"flow.midstream"}
    # The client that has no answer repeats its SYN, and is inspected.
    again = Connection(gateway, family)
    assert again.client(b"EXPN a\r\n") == [REPLACE]
    assert again.emitted == []


@families
def test_only_a_syn_begins_and_a_syn_ack_repeated_takes_no_flow_that_was_there_before(family: int) -> None:
    old = Connection(Gateway(limits=Limits(startup=60)), family, shake=False)
    assert old.send(False, SYN | ACK, ack=1001) == [DROP]
    assert old.send(True, payload=b"EXPN\r\n") == [ACCEPT]


@pytest.mark.parametrize(("action", "kinds"), [(Action.PASS, [ACCEPT]), (Action.DROP, [DROP]), (Action.RESET, REFUSED)])
def test_only_a_syn_begins_and_the_rest_is_what_on_midstream_says(action: Action, kinds: list[int]) -> None:
    later = Connection(long_running(on=On(midstream=action)), shake=False)
    assert later.send(True, payload=b"EXPN\r\n") == kinds
    assert later.names == ["flow.midstream"]
    for later_on in (Action.PASS, Action.DROP, Action.RESET):
        at_start = Connection(Gateway(on=On(midstream_at_start=action, midstream=later_on)), shake=False)
        assert at_start.send(True, payload=b"EXPN\r\n") == kinds


@families
def test_syn_data_is_cut_off_and_decided_when_it_comes_again(family: int) -> None:
    connection = Connection(family=family, shake=False)
    cookie = b"\x22\x0a" + bytes(8) + b"\x01\x01"  # RFC 7413 4.1.1
    assert connection.send(True, SYN, b"EXPN a\r\n", options=cookie) == [REPLACE]
    assert (connection.last.payload, connection.last.flags, connection.last.options) == (b"", SYN, b"\x01" * 12)
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, b"220 evil\r\n") == [REPLACE]
    assert (connection.last.payload, connection.last.flags) == (b"", SYN | ACK)
    connection.sent[False] += 1
    connection.send(True, ACK)
    connection.greeted()
    assert connection.client(b"EXPN a\r\n") == [REPLACE]
    assert connection.server_reads == b"XXXX a\r\n"
    assert connection.names == ["packet.syn_data"] * 2 + ["command.denied"]


@families
def test_multipath_is_not_offered_nor_accepted(family: int) -> None:
    connection = Connection(family=family, shake=False)
    capable = b"\x1e\x0c\x01\x81" + b"keykeyke"  # RFC 8684 3.1
    join = b"\x1e\x0c\x11\x00" + b"tokennce"  # 3.2
    options = b"\x02\x04\x05\xb4" + capable + b"\x01\x03\x03\x07" + join
    left = b"\x02\x04\x05\xb4" + b"\x01" * 12 + b"\x01\x03\x03\x07" + b"\x01" * 12
    assert connection.send(True, SYN, options=options) == [REPLACE]
    assert connection.last.options == left
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, options=options) == [REPLACE]
    assert connection.last.options == left
    assert connection.names == ["packet.multipath"] * 2


@families
def test_server_syn_is_dropped_and_so_is_the_answer_of_a_client_to_it(family: int) -> None:
    opening = Connection(family=family, shake=False)
    opening.send(True, SYN)
    opening.sent[True] += 1
    assert opening.send(False, SYN) == [DROP]  # RFC 9293 3.5, figure 7
    assert opening.send(True, SYN | ACK, seq=1000, ack=5001) == [DROP]
    opened = Connection(family=family).greeted()
    assert opened.send(False, SYN) == [DROP]
    assert opened.send(True, SYN | ACK) == [DROP]
    assert opening.names == opened.names == ["packet.odd_flags"] * 2
    assert opened.client(b"EXPN\r\n") == [REPLACE]


@families
def test_server_syn_opens_no_flow(family: int) -> None:
    stranger = Connection(long_running(), family, shake=False)
    assert stranger.send(False, SYN) == [DROP]
    assert stranger.names == ["packet.odd_flags"]
    assert stranger.gateway.count("flows_now") == 1  # the one that was there before


@families
def test_server_syn_is_one_from_a_mail_servers_port_wherever_it_goes(family: int) -> None:
    both = Connection(long_running(), family, port=25, shake=False)
    assert both.send(True, SYN) == [DROP]
    assert both.send(False, SYN) == [DROP]
    assert both.gateway.count("flows_now") == 1  # the one that was there before


@families
def test_syn_ack_answers_the_syn_of_the_client_and_no_other(family: int) -> None:
    connection = Connection(family=family, shake=False)
    connection.send(True, SYN)
    connection.sent[True] += 1
    for wrong in (1000, 1002, 5):
        assert connection.send(False, SYN | ACK, seq=9000, ack=wrong) == [DROP]
    assert connection.gateway.count("drop.syn_ack") == 3
    assert connection.send(False, SYN | ACK, ack=1001) == [ACCEPT]
    connection.sent[False] += 1
    connection.send(True, ACK)
    assert connection.server(b"220 x\r\n") == [REPLACE]


@families
def test_syn_ack_answers_again_with_another_number_until_the_client_has_answered(family: int) -> None:
    connection = Connection(family=family, shake=False)
    connection.send(True, SYN)
    connection.sent[True] += 1
    connection.send(False, SYN | ACK, seq=9000, ack=1001)  # a cookie that has expired
    assert connection.send(False, SYN | ACK, ack=1001) == [ACCEPT]
    connection.sent[False] += 1
    connection.send(True, ACK)
    assert connection.send(False, SYN | ACK, seq=9000, ack=1001) == [DROP]
    assert connection.server(b"220 x\r\n") == [REPLACE]
    assert connection.client_reads == b"220 *\r\n"


@families
def test_pinned_to_its_interface_nobody_on_the_clients_side_can_speak_for_the_server(family: int) -> None:
    connection = Connection(family=family, shake=False)
    inside = {"in_interface": INSIDE, "out_interface": OUTSIDE}
    outside = {"in_interface": OUTSIDE, "out_interface": INSIDE}
    assert connection.send(True, SYN, **inside) == [ACCEPT]
    connection.sent[True] += 1
    for wrong in (INSIDE, ELSEWHERE):
        assert connection.send(False, SYN | ACK, seq=9000, in_interface=wrong) == [DROP]
    assert connection.send(False, SYN | ACK, **outside) == [ACCEPT]
    connection.sent[False] += 1
    connection.send(True, ACK, **inside)
    connection.send(False, payload=b"220 x\r\n", **outside)
    connection.sent[False] += 7
    connection.send(True, payload=b"DATA\r\n", **inside)
    connection.sent[True] += 6
    for wrong in (INSIDE, ELSEWHERE, 0):
        assert connection.send(False, payload=b"354 go on\r\n", in_interface=wrong) == [DROP]
        assert connection.send(False, ACK, in_interface=wrong) == [DROP]
        assert connection.send(False, RST, in_interface=wrong) == [DROP]
    assert connection.send(True, payload=b"EXPN\r\n", in_interface=OUTSIDE) == [DROP]
    assert set(connection.names) == {"packet.wrong_interface"}
    assert connection.send(False, payload=b"354 go on\r\n", **outside) == [ACCEPT]
    assert connection.send(True, payload=b"EXPN\r\n", **inside) == [ACCEPT]  # message text now


def test_pinned_where_both_sides_are_behind_one_interface() -> None:
    connection = Connection(shake=False)
    assert connection.send(True, SYN, in_interface=INSIDE, out_interface=INSIDE) == [ACCEPT]
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, in_interface=INSIDE, out_interface=INSIDE) == [ACCEPT]
    connection.sent[False] += 1
    assert connection.send(False, payload=b"220 x\r\n", in_interface=ELSEWHERE) == [DROP]


def test_pinned_to_nothing_where_the_server_is_this_machine() -> None:
    connection = Connection(shake=False)
    assert connection.send(True, SYN, in_interface=INSIDE) == [ACCEPT]
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, out_interface=INSIDE) == [ACCEPT]
    connection.sent[False] += 1
    assert connection.send(False, payload=b"220 x\r\n", in_interface=INSIDE) == [DROP]


def test_pinned_is_a_flow_only_once_it_stands() -> None:
    connection = Connection(shake=False)
    connection.send(True, SYN, in_interface=ELSEWHERE)  # anybody may have sent this one
    assert connection.send(True, SYN, seq=2000, in_interface=INSIDE, out_interface=OUTSIDE) == [ACCEPT]
    assert connection.send(False, SYN | ACK, ack=2001, in_interface=OUTSIDE) == [ACCEPT]
    assert connection.send(True, SYN, seq=2500, in_interface=ELSEWHERE) == [ACCEPT]  # nor has anybody answered yet
    assert connection.send(True, SYN, seq=2000, in_interface=INSIDE, out_interface=OUTSIDE) == [ACCEPT]
    connection.send(False, SYN | ACK, ack=2001, in_interface=OUTSIDE)
    connection.send(True, ACK, seq=2001, ack=5001, in_interface=INSIDE)
    assert connection.send(True, SYN, seq=3000, in_interface=ELSEWHERE) == [DROP]


@pytest.mark.parametrize(("action", "kinds"), [(Action.PASS, [ACCEPT]), (Action.DROP, [DROP]), (Action.RESET, RESET)])
def test_pinned_or_what_on_wrong_interface_says(action: Action, kinds: list[int]) -> None:
    connection = Connection(Gateway(on=On(wrong_interface=action)), shake=False)
    connection.shake(in_interface=INSIDE)
    connection.send(False, payload=b"220 x\r\n")
    connection.sent[False] += 7
    assert connection.send(True, payload=b"NOOP\r\n", in_interface=ELSEWHERE) == kinds
    assert connection.names == ["packet.wrong_interface"]


@families
def test_syn_on_open_asks_the_server_and_changes_nothing(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, SYN, b"EXPN\r\n", seq=77_000, options=b"\x02\x04\x05\xb4") == [REPLACE]
    question = connection.last
    assert (question.flags, question.payload, question.options) == (ACK, b"", b"\x01" * 4)
    assert (question.seq, question.ack) == (connection.has(True) - 1, connection.has(False))
    assert connection.send(False, ACK) == [ACCEPT]  # the server still has it
    assert connection.client(b"EXPN a\r\n") == [REPLACE]
    assert connection.server_reads == b"XXXX a\r\n"
    assert connection.gateway.count("flows_opened") == 1
    assert connection.gateway.count("syns_asked") == 1


@families
def test_syn_on_open_of_a_client_that_has_forgotten(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, SYN, seq=77_000) == [REPLACE]
    assert connection.send(False, ACK) == [ACCEPT]
    assert connection.send(True, RST, seq=connection.has(True)) == [ACCEPT]  # RFC 9293 3.10.7.3: no such ACK
    connection.begin((77_000, 88_000))
    connection.shake()
    connection.greeted()
    assert connection.client_reads.startswith(b"220 ***")


@families
def test_syn_on_open_of_a_server_that_has_forgotten(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, SYN, seq=77_000) == [REPLACE]
    assert connection.send(False, RST, seq=connection.last.ack) == [ACCEPT]
    connection.begin((77_000, 88_000))
    connection.shake()
    connection.greeted()
    assert connection.client_reads.startswith(b"220 ***")


@families
def test_syn_on_open_half_open_asks_too(family: int) -> None:
    connection = Connection(Gateway(limits=Limits()), family, shake=False)
    connection.send(True, SYN)
    connection.sent[True] += 1
    connection.send(False, SYN | ACK)
    assert connection.send(True, SYN, seq=77_000) == [REPLACE]
    assert (connection.last.seq, connection.last.ack) == (997, 5001)  # 1000 would end the handshake with a cookie


@families
def test_syn_on_open_passes_where_nothing_is_changed_and_its_answer_begins_a_flow(family: int) -> None:
    gateway = Gateway()
    connection = Connection(gateway, family).greeted()
    connection.send(True, SYN, seq=77_000)
    connection.send(False, SYN | ACK, seq=88_000, ack=77_001)
    connection.begin((77_000, 88_000))
    connection.sent = {True: 77_001, False: 88_001}
    connection.send(True, ACK)
    connection.send(False, payload=b"220 x\r\n")
    connection.send(True, payload=b"EXPN a\r\n", ack=88_008)
    assert "command.denied" in gateway.watched_names


@families
@pytest.mark.parametrize("how", ["closed", "reset", "never opened", "dropped by us"])
def test_port_reuse_begins_a_new_flow_at_once(family: int, how: str) -> None:
    connection = Connection(family=family, shake=how != "never opened")
    if how == "closed":
        connection.greeted().close()
    elif how == "reset":
        connection.greeted().send(False, RST)
    elif how == "dropped by us":
        connection.greeted().send(False, ACK, ack=99_000)
    else:
        connection.send(True, SYN)
    connection.begin((77_000, 88_000))
    assert connection.send(True, SYN) == [ACCEPT]
    assert connection.gateway.count("flows_opened") == 2  # whatever the server says to it
    connection.shake()
    assert connection.gateway.count("flows_opened") == 2
    connection.greeted()
    assert connection.client_reads.startswith(b"220 ***")
    assert connection.client(b"EXPN a\r\n") == [REPLACE]


@families
def test_rst_at_a_number_that_its_receiver_does_not_expect_goes_nowhere(family: int) -> None:
    connection = Connection(family=family).greeted()
    for wrong in (1, -1, 70_000, 2**31):
        assert connection.send(True, RST, seq=connection.sent[True] + wrong) == [DROP]
    assert connection.gateway.count("drop.rst") == 4
    connection.send(True, SYN, seq=77_000)
    assert connection.gateway.count("flows_opened") == 1  # it is open: the SYN is the server's to judge
    assert connection.send(True, RST) == [ACCEPT]
    connection.send(True, SYN, seq=78_000)
    assert connection.gateway.count("flows_opened") == 2


@families
def test_rst_ends_the_flow_at_whatever_number_its_receiver_may_expect(family: int) -> None:
    # What the server has acknowledged, what has left, and what has left ahead of a gap.
    for at in (0, 6, 18):
        connection = Connection(family=family).in_text()
        mark = connection.mark
        connection.send(True, payload=b"text\r\n", lost=True)
        connection.send(True, payload=b"text\r\n", at=mark + 12, lost=True)
        assert connection.send(True, RST, at=mark + at) == [ACCEPT]
        assert connection.send(True, payload=b"text\r\n") == [DROP, EMIT]
        assert connection.send(False, ACK) == [DROP, EMIT]
        assert connection.send(True, SYN, seq=77_000) == [ACCEPT]
        assert connection.gateway.count("flows_opened") == 2


@families
def test_rst_of_a_server_without_the_connection_has_a_number_it_was_asked_for(family: int) -> None:
    connection = Connection(family=family).greeted()
    old = connection.isn[False] + 1
    assert connection.send(True, ACK, ack=old) == [ACCEPT]
    assert connection.send(False, RST, seq=old) == [ACCEPT]  # RFC 9293 3.10.7.1
    assert connection.client(b"NOOP\r\n") == [DROP, EMIT]
    for number in (5, 60_000, -60_000):  # or it gives the connection up behind a lost segment, or a shrunk window
        connection = Connection(family=family).greeted()
        assert connection.send(False, RST | ACK, seq=connection.sent[False] + number) == [ACCEPT]
        assert connection.client(b"NOOP\r\n") == [DROP, EMIT]
    for number in (70_000, -70_000, 2**31):  # who does not know the numbers
        connection = Connection(family=family).greeted()
        assert connection.send(False, RST | ACK, seq=connection.sent[False] + number) == [DROP]


@families
def test_rst_before_an_answer_ends_what_the_server_has_of_old(family: int) -> None:
    connection = Connection(family=family, shake=False)
    connection.send(True, SYN)
    connection.sent[True] += 1
    assert connection.send(False, ACK, seq=9000, ack=4711) == [ACCEPT]  # a challenge: it has another connection
    assert connection.send(True, RST, seq=4711) == [ACCEPT]
    assert connection.send(False, RST | ACK, seq=0, ack=4711) == [ACCEPT]
    connection.begin((1000, 5000))
    connection.shake()
    assert connection.gateway.count("flows_opened") == 1
    refused = Connection(connection.gateway, family, port=40001, shake=False)
    refused.send(True, SYN)
    assert refused.send(False, RST | ACK, seq=0, ack=1001) == [ACCEPT]
    assert refused.send(True, SYN, seq=2000) == [ACCEPT]
    assert connection.gateway.count("flows_opened") == 3


def test_rst_behind_a_fin_counts_it() -> None:
    connection = Connection().greeted()
    connection.send(True, FIN | ACK)
    assert connection.send(True, RST, seq=connection.sent[True] + 2) == [DROP]
    assert connection.send(True, RST, seq=connection.sent[True] + 1) == [ACCEPT]
    connection.send(True, SYN, seq=78_000)
    assert connection.gateway.count("flows_opened") == 2


@families
@pytest.mark.parametrize("to_server", [True, False])
def test_rst_that_dies_on_the_way_opens_nothing(family: int, to_server: bool) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(to_server, RST | ACK, lost=True) == [ACCEPT]  # with a TTL that does not last, say
    assert connection.client(b"EXPN a\r\n") == [DROP, EMIT]
    assert connection.server_reads == b""
    assert connection.gateway.count("flows_now") == 1


@families
def test_rst_payload_is_cut_off(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, RST | ACK, b"EXPN a\r\n") == [REPLACE]
    assert connection.server_reads == b""
    assert (connection.last.flags, connection.last.payload) == (RST | ACK, b"")
    connection = Connection(family=family).greeted()
    assert connection.send(False, RST, b"why") == [REPLACE]
    assert (connection.last.flags, connection.last.payload) == (RST, b"")


@families
def test_fin_lets_nothing_through_behind_it(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, FIN | ACK | PSH, b"NOOP\r\n") == [ACCEPT]
    for behind in (b"NOOP\r\nRSET\r\n", b"NOOP\r\nR"):
        assert connection.send(True, payload=behind) == [DROP]
    assert connection.send(True, payload=b"RSET\r\n", at=6) == [DROP]
    assert connection.send(True, payload=b"RSET\r\n", at=7) == [DROP]
    assert connection.gateway.count("drop.behind_fin") >= 3
    assert connection.server_reads == b"NOOP\r\n"
    # The other direction goes on.
    assert connection.server(b"250 ok\r\n") == [ACCEPT]
    assert connection.send(True, ACK, seq=connection.sent[True] + 7) == [ACCEPT]
    assert connection.client_reads.endswith(b"250 ok\r\n")


@families
def test_fin_counts_where_it_came_last(family: int) -> None:
    connection = Connection(Gateway(limits=Limits(cookies=0)), family).greeted()
    assert connection.send(True, FIN | ACK, at=12, lost=True) == [ACCEPT]
    assert connection.send(True, FIN | ACK, at=18) == [ACCEPT]
    assert connection.send(True, payload=b"NOOP\r\nNOOP\r\nRSET\r\n") == [ACCEPT]
    assert connection.server_reads == b"NOOP\r\nNOOP\r\nRSET\r\n"
    assert connection.send(True, payload=b"RSET\r\n", at=18) == [DROP]


@families
def test_fin_that_died_on_the_way_ends_nothing_for_who_only_watches(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, FIN | ACK, lost=True) == [ACCEPT]
    assert connection.send(True, payload=b"EXPN a\r\n") == [DROP]
    assert of_kind(connection.gateway.watched, "command.denied")
    assert connection.server_reads == b""
    connection = Connection(family=family).greeted()
    assert connection.send(True, FIN | ACK) == [ACCEPT]
    assert connection.send(False, ACK, ack=connection.sent[True] + 1) == [ACCEPT]
    assert connection.send(True, payload=b"EXPN a\r\n") == [DROP]
    assert not of_kind(connection.gateway.watched, "command.denied")


@families
def test_fin_of_a_held_packet_counts_when_it_leaves(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, FIN | ACK, b"OP\r\n", at=2) == []
    assert connection.send(True, FIN | ACK, at=12) == [ACCEPT]
    assert connection.send(True, payload=b"NO") == [ACCEPT, ACCEPT]
    assert connection.send(True, payload=b"RSET\r\n", at=6) == [DROP]
    assert connection.server_reads == b"NOOP\r\n"


@families
def test_fin_lets_no_held_packet_through_behind_it(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, payload=b"RSET\r\n", at=6) == []
    assert connection.send(True, FIN | ACK, b"NOOP\r\n") == [ACCEPT, DROP]
    assert connection.server_reads == b"NOOP\r\n"
    assert connection.gateway.count("drop.behind_fin") == 1


@families
@pytest.mark.parametrize("to_server", [True, False])
def test_no_answer_yet_and_payload_is_reset(family: int, to_server: bool) -> None:
    connection = Connection(family=family, shake=False)
    connection.send(True, SYN)
    connection.sent[True] += 1
    if not to_server:  # of the connection before, come late
        assert connection.send(False, payload=b"250 ok\r\n", ack=1001) == [DROP]
        assert connection.send(True, payload=b"NOOP\r\n", at=99, ack=5001) == [DROP]
        return
    assert connection.send(to_server, payload=b"NOOP\r\n", ack=5001 if to_server else 1001) == RESET
    assert connection.names == ["flow.asymmetric"]
    assert connection.server_reads == b""


@families
def test_no_answer_yet_of_the_client_either(family: int) -> None:
    connection = Connection(family=family, shake=False)
    connection.send(True, SYN)
    connection.sent[True] += 1
    connection.send(False, SYN | ACK)
    connection.sent[False] += 1
    assert connection.send(True, payload=b"NOOP\r\n", ack=5000) == [DROP]  # not even of the server's SYN
    assert connection.server_reads == b""


@pytest.mark.parametrize(
    ("action", "kinds", "then"),
    [(Action.PASS, [ACCEPT], [ACCEPT]), (Action.DROP, [DROP], [DROP]), (Action.RESET, RESET, [DROP, EMIT])],
)
def test_no_answer_yet_is_what_on_asymmetric_says(action: Action, kinds: list[int], then: list[int]) -> None:
    connection = Connection(Gateway(on=On(asymmetric=action)), shake=False)
    connection.send(True, SYN)
    connection.sent[True] += 1
    assert connection.client(b"EXPN\r\n") == kinds
    assert connection.client(b"EXPN\r\n") == then


def test_syn_data_and_multipath_leave_a_syn_that_is_right_in_itself() -> None:
    connection = Connection(shake=False)
    connection.send(True, SYN, b"EXPN a\r\n", options=b"\x1e\x04\x01\x81")
    assert parse(connection.left[-1]).options == b"\x01" * 4
