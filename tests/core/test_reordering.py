"""Segments before their turn: ahead in message text, held before a command; first seen stands, and all is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Action, FlowRule, Limits, Mode, On
from tests.core.building import reordering
from tests.support.wire import End, build, parse

CLIENT, SERVER = End("192.0.2.1", 40000), End("192.0.2.9", 25)
SYN, ACK, PSH = 0x02, 0x10, 0x08
ISN = 2**32 - 40  # the numbers wrap in what follows
ACCEPTED, REPLACED, DROPPED = 0, 1, 2


def waiting(*, text: bool, mode: Mode = Mode.ENFORCE, on: Any = None, can_hold: bool = True, **limits: Any) -> Any:
    engine = Engine(
        [FlowRule(mode, load_profile("asa"))], limits=Limits(**limits), on=on, can_hold=can_hold, records=False
    )
    return begun(engine, text)


def begun(engine: Engine, text: bool, client: End = CLIENT) -> Any:
    return reordering().Waiting(engine, build(client, SERVER, ISN, 5000, SYN), text)


def segment(place: int, payload: bytes) -> bytes:
    return build(CLIENT, SERVER, (ISN + 1 + place) % 2**32, 5000, ACK | PSH, payload)


def count(room: Any, name: str) -> int:
    return room.engine.core_counters()[0][name]


def test_before_a_command_it_waits_in_the_order_of_the_numbers() -> None:
    room = waiting(text=False)
    for number, place in enumerate((60, 20, 40, 80), start=1):
        assert room.give(segment(place, b"0123456789"), number) == []
    assert room.held() == [2, 3, 1, 4]
    assert room.ahead() == {}
    assert (count(room, "held_now"), count(room, "held")) == (4, 4)
    assert sorted(room.engine.finish(2 * 10**9)) == [(DROPPED, number, None, False) for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("place", [11, 15, 20, 24, 29])
def test_what_shares_an_octet_with_one_that_waits_is_dropped(place: int) -> None:
    room = waiting(text=False)
    assert room.give(segment(20, b"0123456789"), 1) == []
    assert room.give(segment(place, b"0123456789"), 2) == [(DROPPED, 2, None)]
    assert (room.held(), count(room, "drop.repeated")) == ([1], 1)


@pytest.mark.parametrize("place", [10, 30])
def test_what_only_touches_one_that_waits_waits_too(place: int) -> None:
    room = waiting(text=False)
    assert room.give(segment(20, b"0123456789"), 1) == []
    assert room.give(segment(place, b"0123456789"), 2) == []
    assert room.held() == sorted([1, 2], key={1: 20, 2: place}.get)  # type: ignore[arg-type]


def test_in_text_it_goes_ahead_as_it_came_and_is_remembered() -> None:
    room = waiting(text=True)
    assert room.give(segment(20, b"abc"), 1) == [(ACCEPTED, 1, None)]
    assert room.ahead() == {20: ord("a"), 21: ord("b"), 22: ord("c")}
    assert room.held() == []
    assert room.give(segment(20, b"abc"), 2) == [(ACCEPTED, 2, None)], "its sender repeats it, as it was"


def test_of_two_copies_the_first_goes_ahead() -> None:
    room = waiting(text=True, on=On(conflict=Action.PASS))
    assert room.give(segment(20, b"abc"), 1) == [(ACCEPTED, 1, None)]
    ((kind, number, octets),) = room.give(segment(18, b"1234567"), 2)
    assert (kind, number, parse(octets).payload) == (REPLACED, 2, b"12abc67")
    assert bytes(room.ahead()[at] for at in range(18, 25)) == b"12abc67"


@pytest.mark.parametrize(("action", "mode"), [(Action.DROP, 2), (Action.RESET, 3)])
def test_a_copy_that_differs_may_end_the_connection(action: Action, mode: int) -> None:
    room = waiting(text=True, on=On(conflict=action))
    assert room.give(segment(20, b"abc"), 1) == [(ACCEPTED, 1, None)]
    told = room.give(segment(20, b"abX"), 2)
    assert told[0] == (DROPPED, 2, None)
    assert len(told) == (1 if action is Action.DROP else 3), "and a RST each way"
    assert room.mode == mode
    assert room.ahead() == {}


def test_what_is_watched_is_never_held_and_never_changed() -> None:
    room = waiting(text=False, mode=Mode.MONITOR)
    assert room.give(segment(20, b"abc"), 1) == [(ACCEPTED, 1, None)]
    assert room.give(segment(20, b"aXc"), 2) == [(ACCEPTED, 2, None)]
    assert bytes(room.ahead().values()) == b"abc"


def test_a_driver_that_cannot_hold_has_the_sender_repeat_it() -> None:
    room = waiting(text=False, can_hold=False)
    assert room.give(segment(20, b"abc"), 1) == [(DROPPED, 1, None)]
    assert (room.held(), room.ahead(), room.mode) == ([], {}, 0)


@pytest.mark.parametrize("limit", ["held_packets", "held_per_flow", "held_per_source"])
def test_so_many_are_held_and_no_more(limit: str) -> None:
    room = waiting(text=False, on=On(pending_limit=Action.DROP), **{limit: 3})
    held = sum(room.give(segment(20 * number, b"x"), number) == [] for number in range(1, 7))
    # A source may have as many as it leaves free.
    assert held == (2 if limit == "held_packets" else 3)
    assert (count(room, "held_now"), count(room, "drop.condition")) == (held, 6 - held)
    assert room.mode == 0


def test_so_many_pieces_are_remembered_and_no_more() -> None:
    room = waiting(text=True, on=On(pending_limit=Action.DROP), pending_segments=3)
    told = [room.give(segment(20 * number, b"x"), number)[0][0] for number in range(1, 7)]
    assert told == [ACCEPTED] * 3 + [DROPPED] * 3
    assert sorted(room.ahead()) == [20, 40, 60]


@pytest.mark.parametrize("text", [False, True])
def test_where_memory_is_short_nothing_more_waits(text: bool) -> None:
    limits = {"memory": 1 << 20, "flows": 4, "held_per_flow": 1000, "held_per_source": 1000, "held_packets": 3000}
    room = waiting(text=text, on=On(pending_limit=Action.DROP), pending_segments=1000, **limits)
    told = [room.give(segment(1400 * number, bytes(1400)), number) for number in range(1, 700)]
    taken = [answer for answer in told if not answer or answer[0][0] == ACCEPTED]
    assert 20 < len(taken) < 370
    assert count(room, "memory_now") <= 1 << 19
    assert room.mode == 0
    assert all(answer == [(DROPPED, number, None)] for number, answer in enumerate(told, 1) if answer not in taken)


@pytest.mark.parametrize("text", [False, True])
def test_a_quarter_of_the_streams_memory_is_left_for_what_must_be_kept(text: bool) -> None:
    limits = {"memory": 1 << 20, "flows": 8, "held_per_flow": 1000, "held_per_source": 1000, "held_packets": 3000}
    rooms = [waiting(text=text, on=On(pending_limit=Action.DROP), pending_segments=1000, **limits)]
    rooms += [begun(rooms[0].engine, text, End(f"192.0.2.{host}", 40000)) for host in range(2, 7)]
    for room in rooms:
        for number in range(1, 300):
            room.give(segment(1500 * number, bytes(1000)), number)
    streams, packet = 1 << 19, 4096
    assert streams // 2 < count(rooms[0], "memory_now") <= streams * 3 // 4 + packet
    assert all(room.held() or room.ahead() for room in rooms[:2])
    assert not any(room.held() or room.ahead() for room in rooms[4:])


SEGMENTS = st.lists(st.tuples(st.integers(1, 60), st.binary(min_size=1, max_size=25)), min_size=1, max_size=25)


@given(SEGMENTS)
def test_whatever_comes_the_first_copy_of_each_octet_leaves_and_is_remembered(
    segments: list[tuple[int, bytes]],
) -> None:
    room = waiting(text=True, on=On(conflict=Action.PASS))
    first: dict[int, int] = {}
    for number, (place, payload) in enumerate(segments, start=1):
        for at, octet in enumerate(payload, start=place):
            first.setdefault(at, octet)
        stands = bytes(first[place + at] for at in range(len(payload)))
        came = segment(place, payload)
        ((kind, answered, octets),) = room.give(came, number)
        assert answered == number
        assert kind == (ACCEPTED if stands == payload else REPLACED)
        assert (octets or came) == segment(place, stands)
        assert room.ahead() == first


@given(SEGMENTS)
def test_whatever_comes_before_a_command_waits_once_and_in_order(segments: list[tuple[int, bytes]]) -> None:
    room = waiting(text=False)
    held: list[tuple[int, int, int]] = []
    for number, (place, payload) in enumerate(segments, start=1):
        end = place + len(payload)
        twin = any(start < end and stop > place for start, stop, _ in held)
        assert room.give(segment(place, payload), number) == ([(DROPPED, number, None)] if twin else [])
        if not twin:
            held.append((place, end, number))
        assert room.held() == [number for _, _, number in sorted(held)]
        assert count(room, "held_now") == len(held)
    room.engine.finish(2 * 10**9)
    assert count(room, "held_now") == 0
    assert count(room, "memory_now") == 0
