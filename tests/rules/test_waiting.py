"""Streams: what waits for a reply, what memory costs, and numbers that wrap (docs/streams.md)."""

from __future__ import annotations

import pytest

from nfmailguard.cext.engine import FLOW_BYTES
from nfmailguard.policy.model import Action, CommandPolicy, Limits, On, Policy
from tests.rules.gateway import ACCEPT, DROP, EMIT, GSO, REPLACE, RESET, Connection, Gateway
from tests.support.wire import ACK, FIN, PSH, SYN

families = pytest.mark.parametrize("family", [4, 6])
REPLY = 3  # RECORD_REPLY
#: Lets everything a client may have to wait for through, and masks EXPN.
WAITING = Policy("waiting", commands=CommandPolicy(allow=("EHLO", "NOOP", "DATA", "AUTH", "STARTTLS", "RSET", "QUIT")))
waits = pytest.mark.parametrize(
    ("command", "reply"),
    [(b"DATA\r\n", b"503 no\r\n"), (b"AUTH PLAIN\r\n", b"504 no\r\n"), (b"STARTTLS\r\n", b"454 no\r\n")],
    ids=["data", "auth", "starttls"],
)


@families
@waits
def test_wait_for_the_reply_and_nothing_leaves_before(family: int, command: bytes, reply: bytes) -> None:
    connection = Connection(Gateway(WAITING), family).greeted()
    connection.client(command)
    assert connection.client(b"EXPN\r\n") == []
    assert connection.client(b"NOOP\r\n") == []
    assert connection.server_reads == command
    assert connection.names == ["command.pipelined_too_far"]
    assert connection.server(reply) == [ACCEPT, REPLACE, ACCEPT]
    assert connection.server_reads == command + b"XXXX\r\nNOOP\r\n"


@families
@waits
def test_wait_lets_only_old_octets_of_a_packet_go_that_begins_before(family: int, command: bytes, reply: bytes) -> None:
    connection = Connection(Gateway(WAITING), family).greeted()
    connection.client(command)
    assert connection.send(True, ACK | PSH | FIN, command + b"NOOP\r\n", at=0) == [REPLACE]
    assert connection.last.payload == command
    assert not connection.last.flags & FIN
    assert connection.server_reads == command
    connection.server(reply)
    assert connection.send(True, payload=command + b"NOOP\r\n", at=0, lost=True) == [REPLACE]
    assert connection.last.payload == bytes(len(command)) + b"NOOP\r\n"


@families
def test_wait_lets_nothing_of_a_super_packet_go(family: int) -> None:
    connection = Connection(Gateway(WAITING), family).greeted()
    connection.client(b"DATA\r\n")
    both = connection.packet(True, payload=b"DATA\r\nNOOP\r\n", at=0)
    assert connection.raw(True, both, flags=GSO) == [DROP]
    assert connection.gateway.count("drop.super_packet") == 1
    connection.server(b"503 no\r\n")
    assert connection.raw(True, both, flags=GSO) == [REPLACE]


def test_wait_is_over_for_message_text_when_354_has_come() -> None:
    connection = Connection().greeted()
    connection.client(b"DATA\r\n")
    assert connection.client(b"EXPN in text\r\n") == []
    assert connection.server(b"354 go on\r\n") == [ACCEPT, ACCEPT]
    assert connection.server_reads == b"DATA\r\nEXPN in text\r\n"


def test_wait_is_not_over_with_the_reply_to_an_earlier_command() -> None:
    connection = Connection().greeted()
    connection.client(b"NOOP\r\nDATA\r\n")
    assert connection.client(b"EXPN\r\n") == []
    assert connection.server(b"250 ok\r\n") == [ACCEPT]
    assert connection.server(b"503 no\r\n") == [ACCEPT, REPLACE]


def test_wait_of_what_was_held_before_the_command_had_come() -> None:
    connection = Connection().greeted()
    assert connection.send(True, payload=b"EXPN\r\n", at=12) == []
    assert connection.send(True, payload=b"DATA\r\n", at=6) == []
    assert connection.send(True, payload=b"NOOP\r\n", at=0) == [ACCEPT, ACCEPT]
    assert connection.server(b"250 ok\r\n") == [ACCEPT]
    assert connection.server_reads == b"NOOP\r\nDATA\r\n"
    assert connection.server(b"503 no\r\n") == [ACCEPT, REPLACE]


def limited(kilobytes: int, **options: object) -> Gateway:
    return Gateway(limits=Limits(memory=kilobytes * 1024, cookies=0), **options)


@families
def test_memory_of_a_flow_has_a_cap_and_above_it_the_flow_is_reset(family: int) -> None:
    connection = Connection(limited(64), family).in_text()
    kinds = [ACCEPT]
    sent = 0
    while kinds == [ACCEPT]:
        kinds = connection.send(True, payload=b"x" * 1000, at=connection.mark + sent)
        sent += 1000
        assert connection.gateway.memory() <= 64 * 1024
        assert sent < 32 * 1024  # the other half is for flows
    assert kinds == [DROP]  # its receiver may take something yet
    assert (connection.names.count("stream.memory_limit"), connection.gateway.count("drop.memory")) == (0, 1)
    connection.gateway.wait(6)
    assert connection.send(True, payload=b"x" * 1000, at=connection.mark + sent - 1000) == RESET
    assert connection.names[-1] == "stream.memory_limit"
    assert connection.gateway.memory() < 4 * 1024  # all of it is back but the flow itself


@families
def test_memory_has_its_cap_where_nothing_has_to_wait(family: int) -> None:
    # Who only watches is asked for no room beforehand: what he cannot keep he forgets.
    gateway = limited(64)
    connection = Connection(gateway, family).in_text()
    for place in range(0, 60_000, 1000):
        connection.send(True, payload=b"x" * 1000, at=connection.mark + place, lost=True)
        assert gateway.watching.counters()["memory_now"] <= 32 * 1024 + FLOW_BYTES
    assert gateway.watched_names.count("stream.memory_limit") > 0


@pytest.mark.parametrize(
    ("action", "kinds", "then"), [(Action.PASS, [ACCEPT], [ACCEPT]), (Action.DROP, [DROP], [DROP])]
)
def test_memory_above_its_cap_is_on_memory_limits(action: Action, kinds: list[int], then: list[int]) -> None:
    connection = Connection(limited(32, on=On(memory_limit=action))).in_text()
    assert connection.client(b"x" * 60_000) == kinds
    assert connection.client(b".\r\nEXPN\r\n") == then


@families
@pytest.mark.parametrize("kind", ["kept", "ahead", "held", "line", "reply", "outstanding"])
def test_memory_is_counted_for_all_that_a_peer_makes_us_keep(family: int, kind: str) -> None:
    connection = Connection(Gateway(WAITING), family)
    if kind == "ahead":
        connection.in_text()
    elif kind != "reply":
        connection.greeted()
    before = connection.gateway.memory()
    if kind == "kept":
        connection.send(True, payload=b"NOOP\r\n" * 1000, lost=True)
    elif kind == "ahead":
        connection.send(True, payload=b"x" * 3000, at=connection.mark + 1)
    elif kind == "held":
        connection.send(True, payload=b"NOOP\r\n" * 100, at=connection.mark + 6)
    elif kind == "line":
        connection.client(b"NOO")
        connection.send(False, ACK)
    elif kind == "reply":
        connection.server(b"220-x")
        connection.send(True, ACK)
    else:
        connection.client(b"NOOP\r\n" * 100)
        connection.send(False, ACK)
    assert connection.gateway.memory() - before >= {"held": 600, "kept": 6000, "ahead": 3000}.get(kind, 64)
    connection.gateway.deliver(None, connection.engine.finish(connection.gateway.now))
    assert connection.gateway.memory() == 0


def test_memory_for_flows_is_at_most_half_of_it() -> None:
    gateway = limited(256)
    connections = [Connection(gateway, port=1024 + n, shake=False) for n in range(600)]
    for connection in connections:
        assert connection.send(True, ack=0, flags=2) == [ACCEPT]
        assert gateway.memory() <= 128 * 1024
    assert gateway.count("flows_evicted") > 0


@families
def test_memory_comes_back_when_octets_are_acknowledged(family: int) -> None:
    connection = Connection(family=family).in_text()
    before = connection.gateway.memory()
    for _ in range(100):
        assert connection.client(b"x" * 10_000) == [ACCEPT]
        connection.send(False, ACK)
    assert connection.gateway.memory() == before


def source(number: int, family: int) -> str:
    return f"10.7.0.{number}" if family == 4 else f"fd00:7:{number}::9"


def keeps(connection: Connection, size: int) -> int:
    """How much of message text, in segments that the server does not acknowledge, gets through before one is not."""
    sent = 0
    while sent < size and connection.send(True, payload=b"x" * 60 + b"\r\n", lost=True)[-1] == ACCEPT:
        connection.sent[True] += 62
        sent += 62
    return sent


@families
def test_streams_share_of_a_source_is_what_it_leaves_free(family: int) -> None:
    gateway = limited(512)
    one = [Connection(gateway, family, port=40000 + n).in_text() for n in range(20)]
    got = sum(keeps(connection, 10**6) for connection in one)
    assert 80_000 < got < 128 * 1024  # half of the streams' half
    other = Connection(gateway, family, client=source(1, family)).in_text()
    assert 30_000 < keeps(other, 10**6) < 64 * 1024
    # What is given back may be had again.
    for connection in one:
        connection.send(False, ACK, ack=connection.sent[True])
    assert sum(keeps(connection, 10_000) for connection in one[:7]) > 65_000


@families
def test_streams_share_of_a_source_is_free_again_when_its_flows_have_ended(family: int) -> None:
    gateway = limited(512)
    for round in range(4):
        one = [Connection(gateway, family, port=40000 + 10 * round + n).in_text() for n in range(5)]
        assert sum(keeps(connection, 10**6) for connection in one) > 80_000
        for connection in one:
            assert connection.send(False, ACK, ack=connection.sent[True] + 1) == [DROP, EMIT, EMIT]


@families
def test_streams_share_of_a_flow_leaves_something_to_those_of_its_source(family: int) -> None:
    gateway = limited(256)
    first = Connection(gateway, family).in_text()
    assert 35_000 < keeps(first, 10**6) < 45_000  # a third of the half
    assert keeps(Connection(gateway, family, port=40001).in_text(), 10**6) > 10_000


@families
def test_paced_is_who_goes_on_and_not_reset(family: int) -> None:
    connection = Connection(limited(128), family).in_text()
    keeps(connection, 10**6)
    assert connection.send(True, payload=b"x" * 900) == [DROP]
    assert connection.gateway.names.count("stream.memory_limit") == 0
    connection.send(False, ACK, ack=connection.sent[True])
    assert connection.send(True, payload=b"x" * 900) == [ACCEPT]
    assert connection.last.payload == b"x" * 900


@families
@pytest.mark.parametrize(("action", "kinds"), [(None, RESET), (Action.DROP, [DROP]), (Action.PASS, [ACCEPT])])
def test_paced_is_not_who_has_stalled(family: int, action: Action | None, kinds: list[int]) -> None:
    connection = Connection(limited(128, on=On(memory_limit=action)), family).in_text()
    keeps(connection, 10**6)
    connection.gateway.wait(6)
    assert connection.send(True, payload=b"x" * 900) == kinds
    assert connection.names[-1] == "stream.memory_limit"


def newcomer(gateway: Gateway, family: int, number: int) -> Connection:
    """A flow of a source of its own in message text, with a window that is never lowered."""
    return Connection(gateway, family, client=source(number, family), window=4096).in_text()


def crowd(gateway: Gateway, family: int) -> list[Connection]:
    """As many flows of as many sources as memory lets have 3,000 bytes."""
    connections = []
    while gateway.memory() < 70_000 and len(connections) < 40:
        connections.append(newcomer(gateway, family, len(connections)))
        keeps(connections[-1], 3000)
    assert len(connections) > 10
    return connections


@families
def test_stalled_give_way_longest_first_and_a_few_at_once(family: int) -> None:
    gateway = limited(160)
    stalled = crowd(gateway, family)
    late = newcomer(gateway, family, 200)
    gateway.wait(4)
    before = gateway.count("flows_reset")
    keeps(late, 3000)
    assert gateway.count("flows_reset") == before == 0
    gateway.wait(1.5)
    assert late.send(True, payload=b"x" * 60)[-1] == ACCEPT
    assert gateway.count("flows_stalled") - before == gateway.count("flows_reset") == 8
    ended = [n for n, one in enumerate(stalled) if one.send(True, payload=b"y") == [DROP, EMIT]]
    assert ended == list(range(ended[0], ended[0] + 8))
    assert ended[0] < 4  # what is taken while there is plenty is on no account


@families
def test_stalled_give_way_but_not_who_takes_a_good_part(family: int) -> None:
    gateway = limited(160)
    stalled = crowd(gateway, family)
    late = newcomer(gateway, family, 200)
    gateway.wait(4)
    honest, dripping = stalled[4], stalled[5]
    honest.send(False, ACK, ack=honest.sent[True] - 1500)
    dripping.send(False, ACK, ack=dripping.sent[True] - 2990)
    gateway.wait(1.5)
    keeps(late, 1000)
    assert gateway.count("flows_stalled") > 0
    assert honest.send(True, payload=b"y") == [ACCEPT]
    assert dripping.send(True, payload=b"y") == [DROP, EMIT]


@families
def test_stalled_give_way_of_the_source_alone_where_only_it_is_short(family: int) -> None:
    gateway = limited(512)
    other = Connection(gateway, family, client=source(1, family)).in_text()
    keeps(other, 50_000)
    one = [Connection(gateway, family, port=40000 + n).in_text() for n in range(12)]
    late = Connection(gateway, family, port=50000).in_text()
    for connection in one:
        keeps(connection, 10_000)
    gateway.wait(6)
    assert gateway.memory() < 512 * 1024 // 2 * 3 // 4
    assert keeps(late, 20_000) > 10_000
    assert gateway.count("flows_stalled") > 0
    assert other.send(True, payload=b"y") == [ACCEPT]


def full(gateway: Gateway, family: int, first: int = 0, most: int = 200) -> list[Connection]:
    """As many flows of as many sources as fit, each with a page or two that nobody takes."""
    connections: list[Connection] = []
    while len(connections) < most:
        one = Connection(gateway, family, client=source(first + len(connections), family), window=4096)
        if DROP in one.server(b"220 mail ESMTP\r\n") or one.send(True, ACK) != [ACCEPT]:
            break
        connections.append(one)
        if one.send(True, payload=b"NOOP\r\n" * 200, lost=True) == [ACCEPT]:
            one.sent[True] += 1200
    return connections


@families
def test_stalled_give_way_sooner_to_who_finds_no_memory(family: int) -> None:
    gateway = limited(160)
    late = newcomer(gateway, family, 200)
    stalled = full(gateway, family)
    gateway.wait(0.8)
    assert late.send(True, payload=b"x" * 3000) == [DROP]
    assert gateway.count("flows_stalled") == 0
    gateway.wait(0.3)
    assert late.send(True, payload=b"x" * 3000)[-1] == ACCEPT
    assert gateway.count("flows_stalled") == 8
    ended = [n for n, one in enumerate(stalled) if one.send(True, payload=b"y") == [DROP, EMIT]]
    assert ended == list(range(ended[0], ended[0] + 8))


@families
def test_stalled_give_way_sooner_before_there_is_none(family: int) -> None:
    # Who finds what he needs makes room for what he sends next.
    gateway = limited(160)
    late = newcomer(gateway, family, 200)
    one = full(gateway, family)[12]
    one.send(False, ACK, ack=one.sent[True])
    gateway.wait(1.1)
    assert late.send(True, payload=b"x" * 60)[-1] == ACCEPT
    assert gateway.count("flows_stalled") == 8


@families
def test_stalled_give_way_sooner_to_nobody_who_stands_still_himself(family: int) -> None:
    gateway = limited(160)
    one = full(gateway, family)[12]
    gateway.wait(1.1)
    assert one.send(True, payload=b"NOOP\r\n" * 500) == [DROP]
    assert gateway.count("flows_stalled") == 0
    one.send(False, ACK, ack=one.sent[True])
    assert one.send(True, payload=b"NOOP\r\n" * 500)[-1] == ACCEPT
    assert gateway.count("flows_stalled") == 8


@families
def test_stalled_give_way_sooner_to_who_has_only_octets_ahead_of_a_gap(family: int) -> None:
    gateway = limited(160)
    full(gateway, family, 0, 8)
    late = newcomer(gateway, family, 200)
    assert late.send(True, payload=b"x" * 2000, at=late.mark + 900) == [ACCEPT]
    full(gateway, family, 20)
    gateway.wait(1.1)
    assert ACCEPT in late.send(True, payload=b"x" * 3000)
    assert gateway.count("flows_stalled") == 8


@families
def test_stalled_give_way_sooner_to_no_source_that_has_much(family: int) -> None:
    gateway = limited(160)
    late = Connection(gateway, family, window=4096).in_text()
    honest = newcomer(gateway, family, 200)
    full(gateway, family, 1, 8)
    for port in range(50_000, 50_005):
        keeps(Connection(gateway, family, port=port, window=4096).in_text(), 1800)
    full(gateway, family, 20)
    gateway.wait(1.1)
    assert late.send(True, payload=b"x" * 3000) == [DROP]
    assert gateway.count("flows_stalled") == 0
    assert honest.send(True, payload=b"x" * 3000)[-1] == ACCEPT
    assert gateway.count("flows_stalled") == 8


@families
@pytest.mark.parametrize("size", [1400, 9000, 30_000])
def test_paced_is_who_goes_on_whatever_a_packet_takes(family: int, size: int) -> None:
    # What a packet takes, its pages' list and all, is known before anything of it is decided: whatever is left, it
    # passes or is dropped.
    dropped = 0
    for others in range(5, 38, 2):
        gateway = limited(192)
        late = newcomer(gateway, family, 200)
        late.window[False] = 65_535
        late.send(False, ACK)
        full(gateway, family, 0, others)
        for at in (size, 0):
            kinds = late.send(True, payload=b"x" * size, at=late.mark + at, lost=True)
            assert kinds[0] in (ACCEPT, DROP), (others, at)
            dropped += kinds[0] == DROP
        assert gateway.count("flows_reset") == 0, others
    assert dropped < 34
    assert dropped or size == 1400


ROOM = 160_000


def bound(gateway: Gateway, octets: int) -> None:
    for engine in (gateway.engine, gateway.watching, gateway.dry):
        engine.bound_windows(octets)


SCALE_OF_SEVEN = b"\x03\x03\x07\0"


@families
@pytest.mark.parametrize(("options", "share"), [(b"", 20_000), (SCALE_OF_SEVEN, 20_000 >> 7)])
def test_narrow_window_leaves_each_flow_its_share_of_the_room(family: int, options: bytes, share: int) -> None:
    connection = Connection(family=family, shake=False)
    bound(connection.gateway, ROOM)
    connection.send(True, SYN, options=options)
    connection.sent[True] += 1
    assert connection.send(False, SYN | ACK, options=options) == [REPLACE]
    assert connection.last.window == 20_000  # of a SYN never scaled
    connection.sent[False] += 1
    assert connection.send(True, ACK) == [ACCEPT]
    assert connection.send(False, ACK) == [REPLACE]
    assert connection.last.window == share
    connection.window[False] = share
    assert connection.send(False, ACK) == [ACCEPT]
    assert connection.gateway.count("windows_narrowed") == 2


def test_narrow_window_is_the_narrower_the_more_flows_are_busy_and_never_too_narrow() -> None:
    gateway = Gateway()
    bound(gateway, ROOM)
    connections = [Connection(gateway, port=1024 + n, window=2000) for n in range(40)]
    windows = []
    for connection in connections:
        connection.server(b"220-more to come\r\n")  # so that something goes on
        connection.window[False] = 65_535
        assert connection.send(False, ACK) == [REPLACE]
        windows.append(connection.last.window)
    assert windows[:5] == [20_000] * 4 + [16_000]
    assert windows[-1] == 4096
    bound(gateway, 0)
    assert connections[0].send(False, ACK) == [ACCEPT]


@families
def test_narrow_window_to_what_memory_has_room_for(family: int) -> None:
    # Who keeps to it loses nothing, whatever the others have.
    lowered = 0
    for others in range(20, 36):
        gateway = limited(192)
        honest = Connection(gateway, family, client=source(200, family), window=65_535).in_text()
        full(gateway, family, 0, others)
        short = gateway.memory() - gateway.count("flows_now") * FLOW_BYTES > 72 * 1024
        kinds = honest.send(False, ACK)
        assert kinds == [REPLACE if short else ACCEPT]
        if not short:
            continue
        window = honest.last.window
        assert 4096 <= window < 12_000
        if window == 4096:
            continue  # it is never lowered further, be there room for so much or not
        for at in range(0, window, 1024):
            assert honest.send(True, payload=b"x" * 1024, at=honest.mark + at, lost=True) == [ACCEPT], (others, at)
        lowered += 1
    assert lowered > 2


@families
@pytest.mark.parametrize(("options", "units"), [(b"", 512), (b"\x01\x03\x03\x07", 4)])
def test_room_for_a_reply_in_the_midst_of_a_text(family: int, options: bytes, units: int) -> None:
    connection = Connection(family=family, shake=False)
    connection.shake(options)
    connection.in_text()
    connection.window[True] = 0
    for packet in (b"", b"text\r\n"):
        assert connection.send(True, ACK | PSH, packet) == [REPLACE]
        assert connection.last.window == units
    # A server that gives it up is heard, and ends it; nothing more goes by as text.
    assert connection.server(b"552 too much for me\r\n") == RESET
    assert connection.gateway.count("windows_widened") == 2


@families
def test_room_for_a_reply_that_comes_in_pieces(family: int) -> None:
    connection = Connection(family=family, shake=False)
    connection.window[True] = 1  # and never more: what is beyond it is nobody's
    connection.shake()
    connection.greeted()
    connection.client(b"DATA\r\n")
    connection.server(b"354 go on\r\n")
    assert connection.send(True, ACK) == [REPLACE]
    assert RESET[-1] not in connection.server(b"552 too much ")
    assert connection.server(b"for me\r\n") == RESET


def test_room_for_a_reply_behind_what_has_not_been_acknowledged() -> None:
    connection = Connection().greeted()
    connection.client(b"DATA\r\n")
    acknowledged = connection.has(False)
    connection.server(b"354 go on\r\n")
    connection.window[True] = 0
    assert connection.send(True, ACK, b"text\r\n", ack=acknowledged) == [REPLACE]
    assert connection.last.window == len(b"354 go on\r\n") + 512
    connection.window[True] = 1_000
    assert connection.send(True, ACK, b"text\r\n", ack=acknowledged) == [ACCEPT]


def test_room_for_a_reply_in_a_chunk_and_not_elsewhere() -> None:
    connection = Connection(Gateway(Policy("all"))).greeted()
    connection.client(b"EHLO a\r\n")
    connection.server(b"250-mx\r\n250 CHUNKING\r\n")
    for line in (b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n"):
        connection.client(line)
        connection.server(b"250 ok\r\n")
    connection.window[True] = 0
    assert connection.client(b"NOOP\r\n") == [ACCEPT]
    connection.server(b"250 ok\r\n")
    connection.client(b"BDAT 100 LAST\r\nhalf")
    assert connection.client(b" of it") == [REPLACE]
    assert connection.last.window >= 512


def test_rest_costs_no_more_than_the_flow() -> None:
    connection = Connection(Gateway(WAITING))
    assert connection.gateway.memory() == FLOW_BYTES
    connection.greeted()
    for command, reply in ((b"EHLO a.example\r\n", b"250-b.example\r\n250 SIZE\r\n"), (b"NOOP\r\n", b"250 ok\r\n")):
        connection.client(command)
        connection.server(reply)
        connection.send(True, ACK)
        assert connection.gateway.memory() == FLOW_BYTES


@pytest.mark.parametrize(
    ("cut", "then"),
    [
        ([(True, b"NO")], [(True, b"OP\r\n"), (False, b"250 ok\r\n")]),
        ([(True, b"NOOP\r")], [(True, b"\n"), (False, b"250 ok\r\n")]),
        ([(True, b"\r")], [(True, b"\n"), (False, b"500 no\r\n")]),
        ([(True, b"NOOP\r\n")], [(False, b"250 ok\r\n")]),
        ([(True, b"NOOP\r\nNOOP\r\n"), (False, b"250 ok\r\n")], [(False, b"250 two\r\n")]),
        ([(True, b"DATA\r\n"), (False, b"354 go\r\n"), (True, b"x")], [(True, b"\r\n.\r\n"), (False, b"250 ok\r\n")]),
        ([(False, b"421-cl")], [(False, b"osing\r\n421 bye\r\n")]),
        ([(False, b"421-closing\r\n")], [(False, b"421 bye\r\n")]),
        ([(False, b"421 bye\r")], [(False, b"\n")]),
    ],
)
def test_rest_forgets_nothing(cut: list[tuple[bool, bytes]], then: list[tuple[bool, bytes]]) -> None:
    connection = Connection(Gateway(WAITING)).greeted()
    said = {True: b"", False: b""}
    for to_server, octets in (*cut, *then):
        assert (connection.client if to_server else connection.server)(octets) == [ACCEPT]
        connection.send(not to_server, ACK)
        said[to_server] += octets
        if (to_server, octets) == cut[-1]:
            assert connection.gateway.memory() > FLOW_BYTES
    assert connection.gateway.memory() == FLOW_BYTES
    assert (connection.names, connection.server_reads) == ([], said[True])
    replies = [record for record in connection.gateway.records if record[0] == REPLY]
    assert len(replies) == 1 + sum(line[3:4] == b" " for line in said[False].split(b"\r\n"))


@families
@pytest.mark.parametrize("before", [1, 6, 7, 9, 20])
def test_wrap_of_both_sides_numbers_changes_nothing(family: int, before: int) -> None:
    connection = Connection(family=family, isn=(2**32 - before, 2**32 - before)).greeted()
    assert connection.send(True, payload=b"EXPN b\r\n", at=8) == []
    assert connection.send(True, payload=b"NOOP a\r\n", lost=True) == [ACCEPT, REPLACE]
    assert connection.send(True, payload=b"EVIL a\r\n") == [REPLACE]
    assert connection.server_reads == b"NOOP a\r\n"
    connection.send(True, payload=b"VRFY b\r\n", at=8)
    assert connection.server_reads == b"NOOP a\r\nXXXX b\r\n"
    connection.sent[True] += 16
    connection.server(b"250 a\r\n250 b\r\n")
    assert connection.send(True, payload=b"x" * 16, at=0) == [REPLACE]
    assert connection.last.payload == bytes(16)
    connection.client(b"DATA\r\n")
    connection.server(b"354 go\r\n")
    at = connection.mark
    assert connection.send(True, payload=b"second", at=at + 5) == [ACCEPT]
    assert connection.send(True, payload=b"first", at=at) == [ACCEPT]
    assert connection.server_reads.endswith(b"firstsecond")
    assert connection.send(False, ACK, ack=connection.has(True) + 1) == RESET


def test_wrap_under_a_gap_in_message_text() -> None:
    connection = Connection(isn=(2**32 - 60, 77)).in_text()
    at = connection.mark
    for place in (40, 20, 60, 10, 30, 50):
        assert connection.send(True, payload=b"%08d\r\n" % place, at=at + place) == [ACCEPT]
    assert connection.send(True, payload=b"x" * 64, at=at + 8) == [REPLACE]
    assert connection.send(True, payload=b"%08d" % 0) == [ACCEPT]
    lines = [b"%08d\r\n" % place for place in range(0, 70, 10)]
    assert connection.server_reads == b"DATA\r\n" + lines[0][:8] + b"xx" + b"".join(lines[1:]) + b"xx"
    assert connection.send(False, ACK) == [ACCEPT]
