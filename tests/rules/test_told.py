"""What is told of what is found: however much one flow or one address makes, the others are heard (docs/streams.md)."""

from __future__ import annotations

import pytest

from nfmailguard.events.records import Record, RecordKind
from nfmailguard.policy.model import FINDING_INDEX, FINDINGS, Limits, On
from tests.rules.gateway import DROP, Connection, Gateway
from tests.support.wire import ACK, FIN, RST, SYN

families = pytest.mark.parametrize("family", [4, 6])
SHAPE = FINDING_INDEX["data.smuggling_shape"]
#: Records that fit into the ring.
RING = 32_768


def of_kind(records: list[tuple], name: str) -> list[Record]:  # type: ignore[type-arg]
    found = [Record.of(record) for record in records]
    return [one for one in found if one.kind == RecordKind.FINDING and FINDINGS[one.finding].name == name]


def repeated(records: list[tuple]) -> dict[str, int]:  # type: ignore[type-arg]
    """By finding, what was told of it at its flow's end."""
    found = [Record.of(record) for record in records]
    return {FINDINGS[one.finding].name: one.numbers[1] for one in found if one.kind == RecordKind.REPEATED}


def numbers(records: list[tuple], name: str) -> list[int]:  # type: ignore[type-arg]
    return [record.numbers[1] for record in of_kind(records, name)]


@families
def test_told_once_is_a_kind_that_repeats_and_then_by_its_number(family: int) -> None:
    gateway = Gateway(limits=Limits(findings_told=3))
    connection = Connection(gateway, family).in_text()
    connection.client(b"\n.\nx" * 50)
    assert connection.server_reads.endswith(b"\n. x" * 50)  # every one is made harmless
    assert numbers(gateway.records, "data.smuggling_shape") == [1, 2, 3, 6, 12, 24, 48]
    assert gateway.count("finding.data.smuggling_shape") == 50
    assert gateway.count("findings_repeated") == 43
    gateway.engine.finish(gateway.now)
    gateway.records += gateway.engine.drain()
    assert repeated(gateway.records) == {"data.smuggling_shape": 50}
    # The flow's own record is the last one of it.
    assert Record.of(gateway.records[-1]).kind == RecordKind.FLOW


def test_told_once_needs_no_closing_word_where_all_was_told() -> None:
    gateway = Gateway(limits=Limits(findings_told=3))
    connection = Connection(gateway).greeted()
    connection.client(b"EXPN a\r\n" * 3 + b"X\0\r\n" * 3)
    gateway.engine.finish(gateway.now)
    gateway.records += gateway.engine.drain()
    assert numbers(gateway.records, "command.denied") == [1, 2, 3, 6]
    assert repeated(gateway.records) == {}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 150])
def test_told_once_does_not_depend_on_segments(size: int) -> None:
    gateway = Gateway(limits=Limits(findings_told=2))
    connection = Connection(gateway).in_text()
    octets = b"a\n.\n\0b\r.\r" * 12
    for at in range(0, len(octets), size):
        connection.client(octets[at : at + size])
    found = of_kind(gateway.records, "data.smuggling_shape")
    start = connection.mark - len(octets)
    assert [(one.numbers[1], one.numbers[0] - start) for one in found] == [(1, 3), (2, 8), (4, 17), (8, 35), (16, 71)]


def test_told_once_holds_for_what_only_watches() -> None:
    gateway = Gateway(limits=Limits(findings_told=2))
    connection = Connection(gateway).greeted()
    for _ in range(20):
        connection.client(b"EXPN a\r\n")
        connection.server(b"502 no\r\n")
    assert numbers(gateway.watched, "command.denied") == [1, 2, 4, 8, 16]
    assert gateway.watching.counters()["finding.command.denied"] == 20


def test_told_once_is_of_each_kind_and_of_each_flow() -> None:
    gateway = Gateway(limits=Limits(findings_told=1))
    for port in (40001, 40002):
        connection = Connection(gateway, port=port).greeted()
        connection.client(b"EXPN a\r\nX\0Y\r\nA\nB\r\n" * 3)
    assert numbers(gateway.records, "command.denied") == [1, 2, 4, 8] * 2
    for name in ("command.nul", "command.bare_lf"):
        assert numbers(gateway.records, name) == [1, 2] * 2, name
    assert gateway.count("finding.command.nul") == 6


def test_told_once_counts_as_far_as_it_has_to() -> None:
    # Beyond what a tally's word holds, in kinds and in number.
    gateway = Gateway(limits=Limits(findings_told=1, outstanding_commands=60000))
    connection = Connection(gateway).greeted()
    for _ in range(34):
        connection.client(b"\n" * 1000)
    assert numbers(gateway.records, "command.bare_lf") == [1 << doubled for doubled in range(16)]
    assert gateway.count("finding.command.bare_lf") == 34_000
    connection.client(b"\r\nX\0\r\nXY\rZ\r\n")
    memory = gateway.memory()
    gateway.engine.finish(gateway.now)
    gateway.records += gateway.engine.drain()
    assert repeated(gateway.records)["command.bare_lf"] == 34_000
    assert gateway.memory() == 0 < memory


def test_told_once_leaves_a_mail_its_findings() -> None:
    # What is not told any more of a message is still a part of what is told of the mail.
    gateway = Gateway(limits=Limits(findings_told=1))
    connection = Connection(gateway).greeted()
    for _ in range(3):
        connection.client(b"DATA\r\n")
        connection.server(b"354 go on\r\n")
        connection.send(True, ACK)
        connection.client(b"x\n.\ny\r\n.\r\n")
        connection.server(b"250 ok\r\n")
        connection.send(True, ACK)
    messages = [one for one in map(Record.of, gateway.records) if one.kind == RecordKind.MESSAGE]
    assert numbers(gateway.records, "data.smuggling_shape") == [1, 2]
    assert [bool(one.numbers[2] >> SHAPE & 1) for one in messages] == [True] * 3


def unread(gateway: Gateway, connection: Connection, octets: bytes) -> None:
    """The client says something, and nobody reads the records."""
    packet = connection.packet(True, payload=octets)
    connection.sent[True] += len(octets)
    gateway.now += 1000
    gateway.engine.process(packet, gateway.now, id=1)
    answer = connection.packet(False, ACK, ack=connection.sent[True])
    gateway.engine.process(answer, gateway.now, id=1)


def found(gateway: Gateway) -> int:
    """All findings but the greetings'."""
    counters = gateway.engine.counters()
    return sum(
        count for name, count in counters.items() if name.startswith("finding.") and name != "finding.banner.masked"
    )


def flooded(sources: list[str], flows: int, quiet: list[str]) -> tuple[list[Record], Gateway]:
    """Flows of ``sources`` that fill the ring, unread; in their midst those of ``quiet``, each with one finding."""
    limits = Limits(findings_told=1_000_000, outstanding_commands=60_000)
    gateway = Gateway(limits=limits)
    loud = [
        Connection(gateway, client=source, port=1024 + port).greeted() for source in sources for port in range(flows)
    ]
    still = [Connection(gateway, client=source, port=50_000 + number).greeted() for number, source in enumerate(quiet)]
    gateway.engine.drain()
    gateway.records.clear()
    for turn in range(2):
        for _ in range(2 * RING // len(loud) // 400 + 1):
            for connection in loud:
                unread(gateway, connection, b"\n" * 400)
        if turn == 0:
            for connection in still:
                unread(gateway, connection, b"EXPN bystander\r\n")
    records: list[tuple] = []  # type: ignore[type-arg]
    while drained := gateway.engine.drain():
        records += drained
    return [Record.of(record) for record in records], gateway


@pytest.mark.parametrize(
    ("sources", "flows"), [(["10.66.0.1"], 1), (["10.66.0.1"], 300), ([f"10.66.{n}.1" for n in range(60)], 4)]
)
def test_ring_share_leaves_room_for_who_is_quiet(sources: list[str], flows: int) -> None:
    quiet = [f"10.7.0.{number}" for number in range(1, 41)]
    records, gateway = flooded(sources, flows, quiet)
    heard = {one.client_port - 50_000 for one in records if b"bystander" in one.before or one.client_port >= 50_000}
    assert heard == set(range(40))
    assert gateway.count("records_lost.finding") > 0
    assert gateway.count("records_lost") == gateway.count("records_lost.finding")
    findings = sum(one.kind == RecordKind.FINDING for one in records)
    assert found(gateway) == gateway.count("records_lost.finding") + findings


def test_ring_ends_are_told_whatever_their_source_has_in_the_ring() -> None:
    limits = Limits(findings_told=1_000_000, outstanding_commands=60_000)
    gateway = Gateway(limits=limits)
    ends = [Connection(gateway, client="10.66.0.1", port=20_000 + n).greeted() for n in range(2000)]
    # Many addresses, each of them quiet, fill all that is open to them.
    many = [Connection(gateway, client=f"10.{67 + (n >> 8)}.{n & 255}.1").greeted() for n in range(1100)]
    gateway.engine.drain()
    for connection in many:
        unread(gateway, connection, b"\n" * 30)
    assert gateway.count("records_lost.finding") > 0
    for connection in ends:
        for to_server in (False, True):
            gateway.engine.process(connection.packet(to_server, RST), gateway.now, id=1)
    gateway.now += round(7200 * 1e9)
    gateway.engine.expire(gateway.now)
    records: list[tuple] = []  # type: ignore[type-arg]
    while drained := gateway.engine.drain():
        records += drained
    ended = {one.client_port for one in map(Record.of, records) if one.kind == RecordKind.FLOW}
    assert ended >= {connection.client_end.port for connection in ends}
    assert gateway.count("records_lost.flow") == 0


def test_ring_ends_of_what_anybody_can_begin_have_half() -> None:
    gateway = Gateway(limits=Limits(flows=65_536, embryonic=1, startup=1))
    opened = Connection(gateway, client="10.66.0.1", port=20_000).greeted()
    gateway.engine.drain()
    for number in range(20_000):
        client = f"10.{70 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        stranger = Connection(gateway, client=client, shake=False)
        gateway.engine.process(stranger.packet(True, SYN), gateway.now, id=1)
    gateway.now += 2 * 10**9
    gateway.engine.expire(gateway.now)
    assert gateway.count("records_lost.flow") >= 20_000 - RING // 2
    gateway.engine.process(opened.packet(True, payload=b"EXPN bystander\r\n"), gateway.now, id=1)
    gateway.engine.finish(gateway.now)
    records: list[tuple] = []  # type: ignore[type-arg]
    while drained := gateway.engine.drain():
        records += drained
    assert any(b"bystander" in one.before for one in map(Record.of, records))
    assert 20_000 in {one.client_port for one in map(Record.of, records) if one.kind == RecordKind.FLOW}


def test_ring_share_of_a_flow_leaves_room_for_the_others_of_its_address() -> None:
    records, _ = flooded(["10.66.0.1"], 1, ["10.66.0.1"] * 20)
    assert {one.client_port - 50_000 for one in records if one.client_port >= 50_000} == set(range(20))


def test_ring_share_of_an_address_leaves_room_for_more_than_few_of_another() -> None:
    gateway = Gateway(limits=Limits(findings_told=1_000_000, outstanding_commands=60_000))
    loud = [Connection(gateway, client="10.66.0.1", port=1024 + port).greeted() for port in range(300)]
    other = Connection(gateway, client="10.7.0.1", port=50_000).greeted()
    gateway.engine.drain()
    for connection in loud:
        unread(gateway, connection, b"\n" * 400)
    unread(gateway, other, b"\n" * 400)
    records: list[tuple] = []  # type: ignore[type-arg]
    while drained := gateway.engine.drain():
        records += drained
    assert sum(Record.of(record).client_port == 50_000 for record in records) == 400


@pytest.mark.parametrize(("flows", "share"), [(1, RING // 6), (300, RING // 4)])
def test_ring_share_is_had_again_when_records_have_been_read(flows: int, share: int) -> None:
    gateway = Gateway(limits=Limits(findings_told=1_000_000, outstanding_commands=60_000))
    connections = [Connection(gateway, port=1024 + port).greeted() for port in range(flows)]
    gateway.engine.drain()
    for _ in range(3):
        lost, before = gateway.count("records_lost"), found(gateway)
        for turn in range(max(60, flows)):
            unread(gateway, connections[turn % flows], b"\n" * 400)
        kept = 0
        while drained := gateway.engine.drain():
            kept += len(drained)
        assert found(gateway) - before - kept == gateway.count("records_lost") - lost > 0
        assert share <= kept <= share + 2


def test_strangers_pace_is_so_many_a_second_and_what_was_left_out_is_counted() -> None:
    gateway = Gateway(limits=Limits(findings_told=2))
    connection = Connection(gateway, shake=False)
    for _ in range(10):
        assert connection.send(True, SYN | FIN) == [DROP]
    gateway.wait(1)
    assert connection.send(True, SYN | FIN) == [DROP]
    assert numbers(gateway.records, "packet.odd_flags") == [1, 1, 9]
    assert gateway.count("finding.packet.odd_flags") == 11
    assert gateway.count("findings_repeated") == 8


def test_strangers_pace_is_of_each_kind() -> None:
    gateway = Gateway(limits=Limits(findings_told=1, flows=1), on=On())
    Connection(gateway).greeted()
    other = Connection(gateway, port=40001, shake=False)
    for _ in range(3):
        other.send(True, SYN)
        other.send(True, SYN | FIN)
    assert numbers(gateway.records, "packet.odd_flags") == [1]
    assert numbers(gateway.records, "flow.limit") == [1]
