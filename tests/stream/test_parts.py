"""The machine's own parts can be trusted: each sees what it is there to see."""

from __future__ import annotations

import pytest

from tests.stream.endpoint import Endpoint
from tests.stream.invariant_checker import ACCEPT, DROP, EMIT, REPLACE, InvariantChecker, Violation
from tests.stream.packets import ACK, ADDRESSES, PSH, RST, TIMESTAMPS, Segment, Track
from tests.stream.peers import DisagreementError, Server, understood
from tests.stream.reassembly_model import ReassemblyModel, Turn
from tests.stream.receiver import Receiver
from tests.support.wire import End, build, parse


def honest(_: int) -> int:
    return 0


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("payload", [b"", b"x", b"odd", b"even", bytes(1000)])
def test_packets_are_those_of_the_slow_builder(family: int, payload: bytes) -> None:
    client, server = (End(address, port) for address, port in zip(ADDRESSES[family], (40000, 25), strict=True))
    for to_server, ends in ((True, (client, server)), (False, (server, client))):
        track = Track(family, to_server)
        packet = track.build(2**32 - 1, 7, ACK | PSH, payload)
        assert packet == build(*ends, 2**32 - 1, 7, ACK | PSH, payload)
        assert track.read(packet) == Segment(2**32 - 1, 7, ACK | PSH, 65535, payload)
        assert parse(track.build(5, 7, ACK, payload, options=TIMESTAMPS)).payload == payload
        assert not track.wrong_with(packet)
        assert track.wrong_with(packet + b"\0")
        assert track.wrong_with(track.build(5, 7, ACK, payload, spoil=1)) == "TCP checksum"


def test_receivers_differ_in_what_stands_beyond_a_gap() -> None:
    first, last = Receiver(last_wins=False), Receiver(last_wins=True)
    for receiver in (first, last):
        receiver.take(2, b"ab")
        receiver.take(2, b"xy")
        receiver.take(0, b"12")
    assert (first.stream, last.stream) == (b"12ab", b"12xy")


def test_a_receiver_takes_nothing_behind_its_window_or_a_fin() -> None:
    receiver = Receiver(last_wins=False, edge=3)
    receiver.take(0, b"abcdef")
    assert receiver.stream == b"abc"
    receiver.edge = 100
    receiver.take(5, b"", fin=True)
    receiver.take(3, b"defgh")
    assert receiver.stream == b"abcde"
    assert receiver.ended


def test_an_endpoint_dies_of_a_rst_at_the_next_octet_only() -> None:
    end = Endpoint(100, 200, 1000)
    end.receive(Segment(202, 101, RST | ACK, 0, b""))
    assert not end.dead
    assert end.owes_ack  # RFC 5961 3.2: it challenges
    end.receive(Segment(201, 101, RST | ACK, 0, b""))
    assert end.dead


@pytest.mark.parametrize("stream", [b"NOOP\nEHLO x\r\n", b"NOOP\rEHLO x\r\n", b"RCPT x\r\nDATA\r\nx\n.\nEHLO x\r\n"])
def test_a_server_tells_when_its_like_would_read_otherwise(stream: bytes) -> None:
    server = Server(honest)
    with pytest.raises(DisagreementError):
        server.hear(bytearray(stream))


def test_a_server_reads_text_after_its_own_354_only() -> None:
    server = Server(honest)
    assert server.hear(bytearray(b"DATA\r\nEHLO x\r\n")).startswith(b"503")
    assert [verbs[0] for verbs, _ in server.log] == ["DATA", "EHLO"]
    server = Server(honest)
    assert b"354" in server.hear(bytearray(b"RCPT TO:<a>\r\nDATA\r\nEHLO x\r\n.\r\nNOOP\r\n"))
    assert [verbs[0] for verbs, _ in server.log] == ["RCPT", "DATA", "NOOP"]


def test_verbs_are_understood_in_every_way() -> None:
    assert understood(b"\0 ehlo:x y") == ["\0", "EHLO", "EHLO"]
    assert understood(b"DATAX") == ["DATAX", "DATAX", "DATA"]


def test_what_has_gone_ahead_stands_and_what_is_held_waits_for_its_release() -> None:
    reassembly = ReassemblyModel(apply=True)
    reassembly.given(True, 1, 4, b"EF", {1: b"EF"}, ended=False)  # ahead
    reassembly.given(True, 2, 2, b"cd", {}, ended=False)  # held
    reassembly.given(True, 3, 0, b"abXXee", {3: b"abXXEF", 2: b"XX"}, ended=False)
    assert reassembly.turns == [Turn(True, b"abXXEF")]
    reassembly.given(True, 4, 8, b"ij", {}, ended=False)
    reassembly.given(True, 5, 6, b"gh", {5: b"gh", 4: b"ij"}, ended=False)
    assert reassembly.turns[1:] == [Turn(True, b"gh"), Turn(True, b"ij")]


class Lying:
    """An engine that answers the first packet with what it is told to."""

    def __init__(self, operations: list[tuple[int, int, bytes | None, bool]], **counted: int) -> None:
        self.operations = operations
        self.counters = dict.fromkeys(
            ("packets", "accepted", "replaced", "dropped", "held_now", "memory_now", "flows_now", "flows_opened",
             "flows_passed", "flows_reset", "flows_dropped", "internal_errors", "records_lost"), 0
        )  # fmt: skip
        self.counted = counted

    def process(self, *_: object, **__: object) -> list[tuple[int, int, bytes | None, bool]]:
        for kind, name in ((ACCEPT, "accepted"), (REPLACE, "replaced"), (DROP, "dropped")):
            self.counters[name] = len({own for found, own, _, _ in self.operations if found == kind})
        self.counters |= {"packets": 1, "flows_now": 1, "flows_opened": 1} | self.counted
        return self.operations

    def core_counters(self) -> tuple[dict[str, int], list[int]]:
        return dict(self.counters), []


TRACKS = Track(4, False), Track(4, True)
PACKET = TRACKS[True].build(1, 1, ACK, b"NOOP\r\n")
CASES = [
    (1, True, [(ACCEPT, 1, None, False), (DROP, 1, None, False)], {"dropped": 0}),
    (3, True, [(REPLACE, 1, TRACKS[True].build(1, 1, ACK, b"NOOP\r\n", spoil=9), False)], {}),
    (3, True, [(REPLACE, 1, TRACKS[True].build(2, 1, ACK, b"NOOP\r\n"), False)], {}),
    (3, True, [(REPLACE, 1, TRACKS[True].build(1, 1, ACK, b"NOOP!\r\n"), False)], {}),
    (5, False, [(DROP, 1, None, False)], {}),
    (5, False, [(REPLACE, 1, PACKET, False)], {}),
    (5, False, [(ACCEPT, 1, None, False), (EMIT, 0, TRACKS[True].build(1, 1, RST), True)], {}),
    (6, True, [(ACCEPT, 1, None, False)], {"memory_now": 1001}),
    (7, True, [(ACCEPT, 1, None, False)], {"internal_errors": 1}),
    (8, True, [(ACCEPT, 1, None, False)], {"accepted": 0}),
    (8, True, [(DROP, 1, None, False)], {"drop.checksum": 0}),
]


@pytest.mark.parametrize(("invariant", "apply", "operations", "counted"), CASES)
def test_the_checker_sees_a_violation(
    invariant: int, apply: bool, operations: list[tuple[int, int, bytes | None, bool]], counted: dict[str, int]
) -> None:
    engine = Lying(operations, **counted)
    checker = InvariantChecker(engine, TRACKS, (1, 1), apply=apply, memory=1000, now=1)  # type: ignore[arg-type]
    with pytest.raises(Violation) as raised:
        checker.give(True, PACKET, 0)
    assert raised.value.invariant == invariant


def test_the_checker_sees_two_copies_that_differ() -> None:
    engine = Lying([(ACCEPT, 1, None, False)])
    checker = InvariantChecker(engine, TRACKS, (1, 1), apply=True, memory=1000, now=1)  # type: ignore[arg-type]
    checker.give(True, PACKET, 0)
    engine.operations = [(ACCEPT, 2, None, False)]
    engine.counted = {"packets": 2, "accepted": 2}
    with pytest.raises(Violation, match="octet 0 left as"):
        checker.give(True, TRACKS[True].build(1, 1, ACK, b"EHLO\r\n"), 0)
