"""One direction of a connection against dicts of bytes by place: what was decided, went ahead, or waits."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.building import rooms
from tests.support.wire import End, build

CLIENT, SERVER = End("192.0.2.1", 40000), End("192.0.2.9", 25)
ACK = 0x10
TEXT = st.binary(max_size=40)
FAR = 60  # how far ahead of a gap a segment lies


def number(place: int) -> int:
    return place % 2**32


class Directed(RuleBasedStateMachine):
    """Places are counted from the initial number on, so that the model knows nothing of numbers that wrap."""

    @initialize(isn=st.sampled_from([0, 1000, 2**31 - 20, 2**32 - 30]), short=st.booleans())
    def begin(self, isn: int, short: bool) -> None:
        self.memory = rooms().Memory(12_000 if short else 1 << 20)
        self.short = short
        self.isn = isn
        self.stream = rooms().OneWay(self.memory, number(isn))
        self.decided = bytearray()
        self.came = bytearray()
        self.acknowledged = 0
        self.ahead: dict[int, int] = {}
        self.waiting: list[tuple[int, int, bytes]] = []  # number, place, payload

    def seq(self, place: int) -> int:
        return number(self.isn + place)

    @rule(came=TEXT, data=st.data())
    def keep(self, came: bytes, data: st.DataObject) -> None:
        octets = bytearray(came)
        for place in data.draw(st.lists(st.integers(0, max(0, len(octets) - 1)), max_size=3)) if came else ():
            octets[place] = ord("X")
        if self.stream.keep(came, bytes(octets)):
            self.decided += octets
            self.came += came
        else:
            assert self.short

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.acknowledged = data.draw(st.integers(self.acknowledged, len(self.decided)))
        self.stream.acknowledge(self.seq(self.acknowledged))

    @rule(data=st.data(), write=st.booleans(), length=st.integers(0, 60))
    def come_again(self, data: st.DataObject, write: bool, length: int) -> None:
        place = data.draw(st.integers(max(-20, self.acknowledged - 40), len(self.decided)))
        octets = bytearray()
        for at in range(place, place + length):
            known = 0 <= at < len(self.decided)
            octets.append(self.came[at] if known else ord("?"))
        for at in data.draw(st.lists(st.integers(0, max(0, length - 1)), max_size=2)) if length else ():
            octets[at] = data.draw(st.sampled_from([ord("X"), ord("!")]))
        differ, conflict, left = self.stream.overwrite_with_first_copy(self.seq(place), bytes(octets), write)
        expected = bytearray(octets)
        contradicts, unlike = False, 0
        for at, octet in enumerate(octets):
            where = place + at
            if where < self.acknowledged:
                expected[at] = 0
                unlike += 1  # it was acknowledged: it is nobody's to compare
            elif where < len(self.decided):
                expected[at] = self.decided[where]
                unlike += octet != self.decided[where]
                contradicts |= octet not in (self.decided[where], self.came[where])
        assert left == (expected if write else octets)
        assert (differ != 0) == (unlike != 0)
        assert unlike <= differ <= length
        if not self.short:  # else what came may have been forgotten
            assert conflict == contradicts
        assert conflict or not contradicts

    @rule(data=st.data(), octets=st.binary(min_size=1, max_size=30))
    def forward_out_of_order(self, data: st.DataObject, octets: bytes) -> None:
        place = data.draw(st.integers(len(self.decided) + 1, len(self.decided) + FAR))
        if self.ahead:
            place = data.draw(st.integers(min(self.ahead), max(self.ahead) + 4)) if data.draw(st.booleans()) else place
        whole = self.stream.forward_out_of_order(self.seq(place), octets)
        remembered = self.pieces()
        for at, octet in enumerate(octets, start=place):
            if whole or at in remembered:
                self.ahead.setdefault(at, octet)  # first seen stands
        assert whole or self.short

    def pieces(self) -> dict[int, int]:
        found: dict[int, int] = {}
        end = None
        for seq, octets in self.stream.ahead():
            # Far enough apart to be told from a number that has wrapped.
            place = (seq - self.seq(0) + 2**31) % 2**32 - 2**31
            assert octets or self.short, "a piece that memory ran out for is empty until its turn comes"
            assert end is None or place >= end, "by sequence number, and no octet twice"
            end = place + len(octets)
            found |= dict(enumerate(octets, start=place))
        return found

    @precondition(lambda self: self.ahead)
    @rule(data=st.data(), write=st.booleans(), octets=TEXT)
    def come_over_what_went_ahead(self, data: st.DataObject, write: bool, octets: bytes) -> None:
        place = data.draw(st.integers(min(self.ahead) - 30, max(self.ahead) + 2))
        if data.draw(st.booleans()):
            octets = bytes(self.ahead.get(at, 0) for at in range(place, place + len(octets)))
        differ, left = self.stream.overwrite_with_buffered(self.seq(place), octets, write)
        expected = bytes(self.ahead.get(at, octet) for at, octet in enumerate(octets, start=place))
        assert left == (expected if write else octets)
        unlike = sum(one != other for one, other in zip(expected, octets, strict=True))
        assert (differ != 0) == (unlike != 0)
        assert unlike <= differ <= len(octets)

    @precondition(lambda self: self.ahead)
    @rule(data=st.data())
    def process_buffered(self, data: st.DataObject) -> None:
        seq, octets = self.stream.ahead()[0]
        gone = data.draw(st.integers(min(1, len(octets)), len(octets)))
        self.stream.consume(gone)
        first = min(self.ahead)
        assert seq == self.seq(first) or not octets
        for at in range(first, first + gone):
            del self.ahead[at]

    @rule(data=st.data(), payload=st.binary(min_size=1, max_size=30))
    def hold(self, data: st.DataObject, payload: bytes) -> None:
        place = data.draw(st.integers(len(self.decided), len(self.decided) + FAR))
        packet = build(CLIENT, SERVER, self.seq(place), 1, ACK, payload)
        held = self.stream.hold(packet)
        if held is None:
            assert self.short
            return
        # By sequence number; of two at the same, the first that came stands in front.
        behind = [at for at, (_, other, _) in enumerate(self.waiting) if other <= place]
        self.waiting.insert(behind[-1] + 1 if behind else 0, (held, place, payload))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.waiting) - 1))
        self.stream.release(self.waiting.pop(at)[0])

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), length=st.integers(1, 20))
    def look_for_a_held_one(self, data: st.DataObject, length: int) -> None:
        place = data.draw(st.integers(self.waiting[0][1] - 25, self.waiting[-1][1] + 35))
        overlapping = [held for held, at, payload in self.waiting if at < place + length and at + len(payload) > place]
        assert self.stream.holding(self.seq(place), length) == (overlapping[0] if overlapping else None)

    @invariant()
    def numbers_and_lists_are_right(self) -> None:
        stream = self.stream
        assert (stream.next_seq, stream.last_ack) == (self.seq(len(self.decided)), self.seq(self.acknowledged))
        assert stream.decided == len(self.decided)
        assert stream.kept == len(self.decided) - self.acknowledged
        assert self.memory.acknowledged == self.acknowledged
        assert self.pieces() == self.ahead
        assert [(held, seq) for held, seq, _ in stream.held()] == [
            (held, self.seq(place)) for held, place, _ in self.waiting
        ]
        for (_, _, packet), (_, _, payload) in zip(stream.held(), self.waiting, strict=True):
            assert packet.endswith(payload)
        if not stream.kept and not stream.ahead() and not self.waiting and not stream.edits:
            assert stream.is_empty
            assert self.memory.used == 0

    def teardown(self) -> None:
        if hasattr(self, "stream"):
            self.stream.close()
            assert self.stream.is_empty
            assert self.memory.used == 0


TestDirected = Directed.TestCase
TestDirected.settings = settings(stateful_step_count=30)


def test_of_edits_beyond_the_most_a_stream_remembers_copies_look_like_conflicts() -> None:
    most = rooms().EDITS
    stream = rooms().OneWay(rooms().Memory(1 << 20), 0)
    for _ in range(most + 1):
        assert stream.keep(b"evil ", b"XXXX ")
    assert stream.edits == most
    assert stream.overwrite_with_first_copy(5 * (most - 1), b"evil ", True)[1:] == (False, b"XXXX ")
    assert stream.overwrite_with_first_copy(5 * most, b"evil ", True)[1:] == (True, b"XXXX ")
    stream.acknowledge(5)
    assert stream.edits == most - 1
    assert stream.keep(b"evil", b"XXXX")
    assert stream.overwrite_with_first_copy(5 * most + 5, b"evil", True)[1:] == (False, b"XXXX"), "room again"
    stream.close()


def test_an_edit_is_what_lies_between_the_first_octet_that_differs_and_the_last() -> None:
    stream = rooms().OneWay(rooms().Memory(1 << 20), 10)
    assert stream.keep(b"MAIL evil x\r\n", b"MAIL XXXX x\r\n")
    assert stream.edits == 1
    assert not stream.overwrite_with_first_copy(10, b"MAIL evil x\r\n", False)[1]
    assert not stream.overwrite_with_first_copy(10, b"MAIL XXXX x\r\n", False)[1]
    assert not stream.overwrite_with_first_copy(10, b"MAIL eXXl x\r\n", False)[1], (
        "as it came or as it left, octet for octet"
    )
    assert stream.overwrite_with_first_copy(10, b"MAIL evil y\r\n", False)[1]
    assert stream.overwrite_with_first_copy(10, b"MAIl evil x\r\n", False)[1]
    stream.acknowledge(19)
    assert stream.edits == 0
    stream.close()


@pytest.mark.parametrize("around", [(0, 3), (0, 9), (2, 9), (5, 8), (0, 14), (6, 14)])
def test_what_comes_across_pieces_that_went_ahead_fills_the_gaps_alone(around: tuple[int, int]) -> None:
    stream = rooms().OneWay(rooms().Memory(1 << 20), 2**32 - 4)
    for place, octets in ((2, b"aa"), (6, b"bb"), (10, b"cc")):
        assert stream.forward_out_of_order(number(2**32 - 4 + place), octets)
    start, stop = around
    assert stream.forward_out_of_order(number(2**32 - 4 + start), b"-" * (stop - start))
    known = dict(zip((2, 3, 6, 7, 10, 11), b"aabbcc", strict=True))
    expected = {**dict.fromkeys(range(start, stop), ord("-")), **known}
    found = {}
    for seq, octets in stream.ahead():
        found |= {number(seq - 2**32 + 4 + at): octet for at, octet in enumerate(octets)}
    assert found == expected
    stream.close()


def test_a_stream_that_is_closed_gives_everything_back_whatever_it_had() -> None:
    memory = rooms().Memory(1 << 20)
    stream = rooms().OneWay(memory, 7)
    stream.keep(b"evil" * 2000, b"XXXX" * 2000)
    stream.forward_out_of_order(9000, bytes(5000))
    stream.forward_out_of_order(20000, bytes(5))
    stream.hold(build(CLIENT, SERVER, 30000, 1, ACK, bytes(1400)))
    assert memory.used > 16_000
    stream.close()
    assert (stream.is_empty, memory.used) == (True, 0)
