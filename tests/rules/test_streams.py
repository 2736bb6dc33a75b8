"""Streams: what was let through stands, and what cannot be decided yet (docs/streams.md)."""

from __future__ import annotations

import pytest

from nfmailguard.policy.model import Action, Limits, On, Policy
from tests.rules.gateway import ACCEPT, DROP, EMIT, REPLACE, RESET, Connection, Gateway

families = pytest.mark.parametrize("family", [4, 6])


@families
def test_put_back_is_what_was_decided_over_every_later_copy(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, payload=b"NOOP a\r\nRSET\r\n", lost=True) == [ACCEPT]
    assert connection.send(True, payload=b"EXPN b\r\nVRFY\r\n", lost=True) == [REPLACE]
    assert connection.last.payload == b"NOOP a\r\nRSET\r\n"
    # One that begins before and one that goes on behind what was decided.
    assert connection.send(True, payload=b"\nEXPN", at=7) == [REPLACE]
    assert connection.last.payload == b"\nRSET"
    assert connection.send(True, payload=b"VRFY\r\nNOOP\r\n", at=8) == [REPLACE]
    assert connection.last.payload == b"RSET\r\nNOOP\r\n"


@families
def test_put_back_holds_for_the_servers_stream_and_for_what_was_edited(family: int) -> None:
    connection = Connection(family=family)
    connection.send(False, payload=b"220 mail ESMTP\r\n", lost=True)
    assert connection.send(False, payload=b"220 mail ESMTP\r\n") == [REPLACE]
    assert connection.client_reads == b"220 **********\r\n"
    assert connection.send(False, payload=b"221 liar liar!\r\n", lost=True) == [REPLACE]
    assert connection.last.payload == b"220 **********\r\n"


@families
def test_conflict_is_told_and_the_flow_goes_on(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.send(True, payload=b"NOOP a\r\n", lost=True)
    assert connection.send(True, payload=b"NOOP b\r\n") == [REPLACE]
    assert connection.names == ["stream.conflicting_retransmission"]
    assert connection.server_reads == b"NOOP a\r\n"
    assert connection.send(True, payload=b"NOOP a\r\n") == [ACCEPT]
    assert connection.gateway.watched_names[1:] == ["stream.conflicting_retransmission"]


@pytest.mark.parametrize(
    ("action", "kinds", "then"),
    [(Action.PASS, [REPLACE], [REPLACE]), (Action.DROP, [DROP], [DROP]), (Action.RESET, RESET, [DROP, EMIT])],
)
def test_conflict_is_what_on_conflict_says(action: Action, kinds: list[int], then: list[int]) -> None:
    connection = Connection(Gateway(on=On(conflict=action))).greeted()
    connection.send(True, payload=b"NOOP a\r\n", lost=True)
    assert connection.send(True, payload=b"NOOP b\r\n") == kinds
    assert connection.send(True, payload=b"NOOP b\r\n") == then
    assert connection.server_reads in (b"", b"NOOP a\r\n")


@pytest.mark.parametrize("conflict", [Action.PASS, Action.DROP, Action.RESET])
def test_conflict_is_no_honest_retransmission_of_an_edited_line(conflict: Action) -> None:
    connection = Connection(Gateway(on=On(conflict=conflict))).greeted()
    connection.send(True, payload=b"EHLO me\r\n", lost=True)  # leaves as XXXX me and is lost behind the gateway
    assert connection.send(True, payload=b"EHLO me\r\n") == [REPLACE]
    assert connection.server_reads == b"XXXX me\r\n"
    assert connection.names == ["command.denied"]
    kinds = {Action.PASS: [REPLACE], Action.DROP: [DROP], Action.RESET: RESET}
    assert connection.send(True, payload=b"EHLO it\r\n") == kinds[conflict]
    assert connection.names[-1] == "stream.conflicting_retransmission"


@families
def test_acknowledged_is_blank_and_passes(family: int) -> None:
    connection = Connection(family=family).greeted()
    connection.client(b"NOOP a\r\n")
    connection.server(b"250 ok\r\n")
    assert connection.send(True, payload=b"EXPN a\r\n", at=0, lost=True) == [REPLACE]
    assert connection.last.payload == bytes(8)
    # Its new octets are decided, its old ones blank.
    assert connection.send(True, payload=b"NOOP a\r\nEXPN\r\n", at=0) == [REPLACE]
    assert connection.last.payload == bytes(8) + b"XXXX\r\n"
    assert connection.server_reads == b"NOOP a\r\nXXXX\r\n"
    assert connection.names == ["command.denied"]
    assert connection.gateway.memory() < 10_000


@families
def test_hold_what_comes_ahead_of_its_turn_until_it_has_come(family: int) -> None:
    connection = Connection(family=family).greeted()
    assert connection.send(True, payload=b"EXPN\r\n", at=12) == []
    assert connection.send(True, payload=b"RSET\r\n", at=6) == []
    assert connection.gateway.count("held_now") == 2
    assert connection.send(True, payload=b"NOOP\r\n") == [ACCEPT, ACCEPT, REPLACE]
    assert connection.server_reads == b"NOOP\r\nRSET\r\nXXXX\r\n"
    assert connection.gateway.count("held_now") == 0
    # The server's, too.
    connection.sent[True] += 18
    assert connection.send(False, payload=b"250 b\r\n", seq=connection.sent[False] + 7) == []
    assert connection.send(False, payload=b"250 a\r\n") == [ACCEPT, ACCEPT]


def test_hold_nothing_where_the_driver_cannot() -> None:
    connection = Connection(Gateway(can_hold=False)).greeted()
    assert connection.send(True, payload=b"EXPN\r\n", at=6) == [DROP]
    assert connection.send(True, payload=b"NOOP\r\nEXPN\r\n") == [REPLACE]


def test_hold_nothing_while_only_watching() -> None:
    connection = Connection().greeted()
    connection.send(True, payload=b"EXPN\r\n", at=6)
    connection.send(True, payload=b"NOOP\r\n")
    assert connection.gateway.watching.counters()["held"] == 0
    assert connection.gateway.watched_names == ["banner.masked", "command.denied"]


@families
def test_hold_limits_count_what_a_flow_holds(family: int) -> None:
    gateway = Gateway(limits=Limits(held_per_flow=3))
    connection = Connection(gateway, family).greeted()
    assert [connection.send(True, payload=b"NOOP\r\n", at=6 * n) for n in (1, 2, 3, 4)] == [[], [], [], [DROP]]
    assert connection.names == ["stream.pending_limit"]
    assert connection.send(False, payload=b"250 x\r\n", seq=connection.sent[False] + 7) == [DROP]
    other = Connection(gateway, family, port=40001).greeted()
    assert other.send(True, payload=b"NOOP\r\n", at=6) == []


@pytest.mark.parametrize(
    ("family", "same", "others"),
    [(4, "10.0.1.2", "10.0.1."), (6, "fd00:1::ffff:3", "fd00:1:0:1::")],
)
def test_hold_limits_count_what_a_sender_holds(family: int, same: str, others: str) -> None:
    gateway = Gateway(limits=Limits(held_per_source=2))
    connections = [Connection(gateway, family, port=40000 + n).greeted() for n in range(2)]
    connections.append(Connection(gateway, family, client=same, port=40010).greeted())
    kinds = [connection.send(True, payload=b"NOOP\r\n", at=6) for connection in connections]
    assert kinds == [[], [], [DROP]]
    # Strangers may share a place in the table of counts, but not all of them.
    strangers = [Connection(gateway, family, client=f"{others}{n}").greeted() for n in (3, 4, 5)]
    assert [] in [stranger.send(True, payload=b"NOOP\r\n", at=6) for stranger in strangers]
    # What is let go is not counted any more.
    connections[0].send(True, payload=b"NOOP\r\n")
    assert connections[2].send(True, payload=b"NOOP\r\n", at=6) == []


def test_hold_limits_leave_as_much_to_others_as_a_sender_has() -> None:
    gateway = Gateway(limits=Limits(held_packets=8))
    one = [Connection(gateway, port=40000 + n).greeted() for n in range(6)]
    kinds = [connection.send(True, payload=b"NOOP\r\n", at=6) for connection in one]
    assert kinds == [[]] * 4 + [[DROP]] * 2
    others = [Connection(gateway, client=f"10.7.0.{n}").greeted() for n in range(4)]
    assert [other.send(True, payload=b"NOOP\r\n", at=6) for other in others] == [[]] * 4


def test_hold_limits_count_what_all_hold() -> None:
    gateway = Gateway(limits=Limits(held_packets=2))
    connections = [Connection(gateway, client=f"10.0.1.{n}").greeted() for n in (2, 3, 4)]
    assert [connection.send(True, payload=b"NOOP\r\n", at=6) for connection in connections] == [[], [], [DROP]]
    assert gateway.names.count("stream.pending_limit") == 1


@pytest.mark.parametrize(
    ("action", "kinds"), [(Action.PASS, [ACCEPT, DROP]), (Action.DROP, [DROP]), (Action.RESET, [DROP, *RESET])]
)
def test_hold_limits_are_on_pending_limits(action: Action, kinds: list[int]) -> None:
    connection = Connection(Gateway(limits=Limits(held_per_flow=1), on=On(pending_limit=action))).greeted()
    assert connection.send(True, payload=b"NOOP\r\n", at=6) == []
    assert connection.send(True, payload=b"NOOP\r\n", at=12) == kinds


def test_hold_limits_drop_a_second_copy_and_what_has_waited_too_long() -> None:
    connection = Connection(Gateway(limits=Limits(held=30, held_per_flow=2))).greeted()
    assert connection.send(True, payload=b"EXPN\r\n", at=6) == []
    assert connection.send(True, payload=b"EXPN\r\n", at=6) == [DROP]
    assert connection.send(True, payload=b"NOOP\r\n", at=6) == [DROP]
    assert connection.names == []
    assert connection.gateway.wait(29) == []
    assert connection.gateway.wait(2) == [DROP]
    assert connection.gateway.count("drop.held_too_long") == 1
    assert connection.send(True, payload=b"NOOP\r\n") == [ACCEPT]  # nothing is behind it any more
    assert connection.server_reads == b"NOOP\r\n"


@families
def test_forward_out_of_order_in_message_text_at_once(family: int) -> None:
    connection = Connection(family=family).in_text()
    at = connection.mark
    assert connection.send(True, payload=b"second\r\n", at=at + 7) == [ACCEPT]
    assert connection.send(True, payload=b"third\r\n", at=at + 15) == [ACCEPT]
    assert connection.gateway.count("held_now") == 0
    assert connection.send(True, payload=b"first\r\n") == [ACCEPT]
    assert connection.server_reads == b"DATA\r\nfirst\r\nsecond\r\nthird\r\n"
    connection.sent[True] += 22
    connection.client(b".\r\n")
    assert connection.client(b"EXPN\r\n") == [REPLACE]
    assert connection.server_reads.endswith(b".\r\nXXXX\r\n")


@families
def test_forward_out_of_order_in_a_chunk_too(family: int) -> None:
    connection = Connection(Gateway(Policy("all")), family).greeted()
    connection.client(b"EHLO a\r\n")
    connection.server(b"250-mx\r\n250 CHUNKING\r\n")
    connection.client(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
    connection.server(b"250 ok\r\n" * 2)
    connection.client(b"BDAT 12\r\n")
    assert connection.send(True, payload=b"behind", at=connection.mark + 6) == [ACCEPT]
    assert connection.send(True, payload=b"before") == [ACCEPT]
    assert connection.server_reads.endswith(b"BDAT 12\r\nbeforebehind")


@families
def test_ahead_stands_over_every_later_copy_before_the_gap_closes(family: int) -> None:
    connection = Connection(family=family).in_text()
    at = connection.mark
    connection.send(True, payload=b"abcdef", at=at + 6, lost=True)
    assert connection.send(True, payload=b"..ABCDEF..", at=at + 4) == [REPLACE]
    assert connection.last.payload == b"..abcdef.."
    assert connection.send(True, payload=b"GH", at=at + 12) == [REPLACE]
    assert connection.last.payload == b".."
    assert connection.names == ["stream.conflicting_retransmission"] * 2


@families
def test_ahead_stands_as_the_gap_closes(family: int) -> None:
    connection = Connection(family=family).in_text()
    at = connection.mark
    connection.send(True, payload=b"abcdef", at=at + 6)
    connection.send(True, payload=b"xyz", at=at + 14)
    assert connection.send(True, payload=b"123456\r\n.\r\n?AB!!!!") == [REPLACE]
    assert connection.server_reads == b"DATA\r\n123456abcdefABxyz!"
    assert connection.names == ["stream.conflicting_retransmission"]


def test_ahead_stands_or_what_on_conflict_says() -> None:
    for action, kinds in ((Action.DROP, [DROP]), (Action.RESET, RESET)):
        connection = Connection(Gateway(on=On(conflict=action))).in_text()
        at = connection.mark
        connection.send(True, payload=b"abcdef", at=at + 6)
        assert connection.send(True, payload=b"ABCDEF", at=at + 6) == kinds


@families
@pytest.mark.parametrize(
    ("filling", "ahead"),
    [
        (b"text\r\n.\r\n", b"EXPN root\r\n"),  # a command that would have to be masked
        (b"text\n.", b"\nEXPN root\r\n"),  # an end of data only some take for one
        (b"text\r\n.\r\nDATA\r\n", b"EXPN root\r\n"),  # octets that would have had to wait
    ],
    ids=["denied", "smuggled", "early"],
)
def test_edit_too_late_keeps_the_gap_open_and_resets(family: int, filling: bytes, ahead: bytes) -> None:
    connection = Connection(family=family).in_text()
    at = connection.mark
    assert connection.send(True, payload=ahead, at=at + len(filling)) == [ACCEPT]
    assert connection.send(True, payload=filling) == RESET or connection.resets
    assert connection.server_reads == b"DATA\r\n"
    assert "stream.edit_too_late" in connection.names
    # Nor may it be closed later.
    assert connection.send(True, payload=filling)[0] == DROP
    assert connection.server_reads == b"DATA\r\n"


def test_edit_too_late_takes_back_everything_that_was_decided_with_it() -> None:
    connection = Connection().greeted()
    connection.client(b"DATA\r\n")
    at = connection.mark
    assert connection.send(True, payload=b"held..", at=at + 6) == []
    connection.server(b"354 go on\r\n")
    assert connection.send(True, payload=b"\n.\nEXPN root\r\n", at=at + 12) == [ACCEPT]
    kinds = connection.send(True, payload=b"filler")
    assert sorted(kinds) == [DROP, DROP, EMIT, EMIT]
    assert connection.server_reads == b"DATA\r\n"


def test_edit_too_late_comes_before_what_is_held() -> None:
    connection = Connection().in_text()
    at = connection.mark
    assert connection.send(True, payload=b"\nE", at=at + 40) == [ACCEPT]
    connection.client(b"\r\n.\r\n")
    connection.server(b"250 ok\r\n")
    assert connection.send(True, payload=b"-" * 30, at=at + 22) == []
    # Behind DATA what is held has to wait; what has left is decided none the less.
    kinds = connection.send(True, payload=b"NOOP".ljust(27) + b"\r\nDATA\r\n" + b"\nE" + b"x" * 6)
    assert sorted(kinds) == [DROP, DROP, EMIT, EMIT]
    assert connection.server_reads.endswith(b"\r\n.\r\n")
    assert "stream.edit_too_late" in connection.names


def test_edit_too_late_is_no_matter_of_what_may_stay() -> None:
    connection = Connection().in_text()
    at = connection.mark
    connection.send(True, payload=b"NOOP\r\nRSET\r\n", at=at + 9)
    assert connection.send(True, payload=b"text\r\n.\r\n") == [ACCEPT]
    assert connection.server_reads == b"DATA\r\ntext\r\n.\r\nNOOP\r\nRSET\r\n"


@families
def test_ahead_is_not_forgotten_when_time_goes_by(family: int) -> None:
    connection = Connection(Gateway(limits=Limits(held=30)), family).in_text()
    at = connection.mark
    connection.send(True, payload=b"text\r\n", at=at + 6)
    assert connection.gateway.wait(1000) == []
    assert connection.send(True, payload=b"\r\n.\r\nE", at=at + 6) == [REPLACE]
    assert connection.last.payload == b"text\r\n"
    assert connection.send(True, payload=b"first\n") == [ACCEPT]
    assert connection.server_reads == b"DATA\r\nfirst\ntext\r\n"


def test_ahead_is_not_forgotten_with_what_is_held() -> None:
    connection = Connection(Gateway(limits=Limits(held=30))).greeted()
    connection.client(b"DATA\r\n")
    at = connection.mark
    connection.send(True, payload=b"held..", at=at + 6)
    connection.server(b"354 go on\r\n")
    connection.send(True, payload=b"ahead!", at=at + 12)
    assert connection.gateway.wait(31) == [DROP]
    assert connection.send(True, payload=b"AHEAD?", at=at + 12) == [REPLACE]
    assert connection.last.payload == b"ahead!"


@families
def test_pending_limit_of_gaps(family: int) -> None:
    connection = Connection(Gateway(limits=Limits(pending_segments=3)), family).in_text()
    at = connection.mark
    assert [connection.send(True, payload=b"x", at=at + 2 * n) for n in (1, 2, 3, 4)] == [[ACCEPT]] * 3 + [[DROP]]
    assert connection.names == ["stream.pending_limit"]
    assert connection.send(True, payload=b"abcdefghi") == [REPLACE]
    assert connection.server_reads == b"DATA\r\nabxdxfxhi"


@pytest.mark.parametrize(("action", "kinds"), [(Action.PASS, [ACCEPT]), (Action.DROP, [DROP]), (Action.RESET, RESET)])
def test_pending_limit_is_what_on_pending_limit_says(action: Action, kinds: list[int]) -> None:
    connection = Connection(Gateway(limits=Limits(pending_segments=1), on=On(pending_limit=action))).in_text()
    at = connection.mark
    connection.send(True, payload=b"x", at=at + 2)
    assert connection.send(True, payload=b"x", at=at + 4) == kinds


@families
@pytest.mark.parametrize("text", [True, False])
def test_pending_limit_is_reached_as_memory_runs_short(family: int, text: bool) -> None:
    gateway = Gateway(limits=Limits(memory=128 * 1024))
    connection = Connection(gateway, family)
    connection.in_text() if text else connection.greeted()
    for number in range(6):
        client = f"10.7.0.{number}" if family == 4 else f"fd00:7:{number}::9"
        other = Connection(gateway, family, client=client).in_text()
        other.send(True, payload=b"x" * 7000, lost=True)
    assert connection.send(True, payload=b"later.", at=connection.mark + 6) == [DROP]
    assert gateway.names[-1] == "stream.pending_limit"
    assert connection.send(True, payload=b"NOOP\r\n") == [ACCEPT]  # what can be decided goes on


@pytest.mark.parametrize("first", [0, 1])
def test_hold_limits_of_time_are_each_packets_own(first: int) -> None:
    gateway = Gateway(limits=Limits(held=30))
    connections = [Connection(gateway, port=40000 + n).greeted() for n in range(2)]
    busy, quiet = connections[first], connections[1 - first]
    busy.send(True, payload=b"NOOP\r\n", at=6)
    gateway.wait(10)
    quiet.send(True, payload=b"NOOP\r\n", at=6)
    gateway.wait(10)
    assert busy.send(True, payload=b"NOOP\r\n", at=0) == [ACCEPT, ACCEPT]
    assert busy.send(True, payload=b"RSET\r\n", at=18) == []
    assert gateway.wait(19.9) == []
    assert gateway.wait(0.2) == [DROP]
    assert gateway.count("held_now") == 1


def test_pending_limit_is_not_passed_by_one_segment_over_many_gaps() -> None:
    connection = Connection(Gateway(limits=Limits(pending_segments=4))).in_text()
    at = connection.mark
    for n in (1, 2, 3):
        connection.send(True, payload=b"x", at=at + 2 * n)
    assert connection.send(True, payload=b"y" * 20, at=at + 1) == [REPLACE]
    assert connection.send(True, payload=b"z" * 9, at=at + 30) == [DROP]
    assert connection.send(True, payload=b"z") == [ACCEPT]
    assert connection.server_reads == b"DATA\r\nzyxyxyx" + b"y" * 14
