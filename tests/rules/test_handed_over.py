"""An engine's state, written down and read by another: whole and as it was, or refused and nothing of it kept."""

from __future__ import annotations

import random

import pytest

from nfmailguard.cext.engine import DROP_NAMES  # type: ignore[attr-defined]
from nfmailguard.engine import Engine
from nfmailguard.policy.model import Limits
from tests.handover.course import RULES, Course, busy, fresh, image_of, loaded
from tests.handover.images import HEADER, Walk, fields, mended


def test_handed_over_what_is_read_is_what_was_written_and_the_engine_it_was_written_from_may_go_on() -> None:
    course = Course(busy())
    again = loaded(course.image)
    assert image_of(again) == course.image
    assert course.differs(again) is None
    assert course.gateway.engine.counters()["flows_now"] == 0, "the course goes on to the end of all flows"


@pytest.mark.parametrize("part", ["header", "body"])
def test_handed_over_any_byte_that_is_another_is_refused(part: str) -> None:
    image = image_of(busy().engine)
    places = range(HEADER.size) if part == "header" else random.Random(1).sample(range(HEADER.size, len(image)), 400)
    engine = fresh()
    for place in places:
        wrong = bytearray(image)
        wrong[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match=r"not whole|another version's"):
            loaded(wrong, engine)
    for length in (0, 1, HEADER.size, len(image) // 2, len(image) - 8, len(image) - 1):
        with pytest.raises(ValueError, match="not whole"):
            loaded(image[:length], engine)
    assert image_of(loaded(image, engine)) == image, "what was refused has left nothing behind"


def test_handed_over_whatever_an_image_says_with_a_right_checksum_nothing_crashes_and_nothing_is_left_behind() -> None:
    course = Course(busy())
    before = image_of(fresh())
    choices = random.Random(7)
    read = 0
    for _ in range(1500):
        image = bytearray(course.image)
        for _ in range(choices.choice((1, 1, 1, 2, 5))):
            place = choices.randrange(HEADER.size, len(image))
            value = choices.choice((0, 1, 0x7F, 0x80, 0xFF, image[place] ^ 1 << choices.randrange(8)))
            image[place : place + choices.choice((1, 1, 2, 4))] = bytes([value])
        engine = fresh()
        try:
            loaded(mended(image), engine)
        except ValueError:
            left = image_of(engine)
            assert left[HEADER.size + 16 :] == before[HEADER.size + 16 :], "all but the key is as it was"
            continue
        read += 1
        course.play(engine)
    assert read > 100


#: A part of an image, one of its fields, which of the image's parts of that kind, and what cannot stand there.
CANNOT_BE = [
    ("Flow", "identity.family", 0, 5), ("Flow", "state", 0, 6), ("Flow", "mode", 0, 4), ("Flow", "end", 0, 0xFF),
    ("Flow", "session.state", 0, 0xFF), ("Flow", "session.state", 0, 200), ("Flow", "session.asked", 0, 5),
    ("Flow", "stream[0].scale", 0, 15), ("FlowParts", "edits[0]", 0, 257), ("FlowParts", "tally", 0, 2),
    ("Dialogue", "exchange.few[0]", 1, 0x7F),
    ("Dialogue", "exchange.input", 0, 0xFF), ("Dialogue", "command.phase", 0, 0xFF),
    ("Dialogue", "command.mode", 0, 0xFF), ("Dialogue", "command.verb", 0, 0xFF),
    ("DialogueParts", "command", 0, 1), ("DialogueParts", "command", 2, 0), ("DialogueParts", "more", 1, 1),
    ("EditPart", "length", 0, 0), ("EditPart", "length", 0, 0x1B),
    ("BufferedPart", "length", 0, 0), ("BufferedPart", "seq", 1, 0x0FD0),
]  # fmt: skip


@pytest.mark.parametrize(("part", "field", "which", "value"), CANNOT_BE)
def test_handed_over_what_cannot_be_is_refused(part: str, field: str, which: int, value: int) -> None:
    image = bytearray(image_of(busy().engine))
    offset, size = fields(part)[0][field]
    at = list(Walk(image, len(DROP_NAMES)).of(part))[which] + offset
    assert image[at : at + size] != value.to_bytes(size, "little")
    image[at : at + size] = value.to_bytes(size, "little")
    engine = fresh()
    before = image_of(engine)
    with pytest.raises(ValueError, match=r"cannot be|not whole"):
        loaded(mended(image), engine)
    assert image_of(engine)[HEADER.size + 16 :] == before[HEADER.size + 16 :], "all but the key is as it was"


def test_handed_over_by_a_core_of_another_layout_is_refused() -> None:
    image = bytearray(image_of(busy().engine))
    magic, form, layout, length, checksum = HEADER.unpack_from(image)
    HEADER.pack_into(image, 0, magic, form, layout ^ 1, length, checksum)
    with pytest.raises(ValueError, match="another version's"):
        loaded(mended(image), fresh())


def test_handed_over_two_flows_of_the_same_addresses_and_ports_are_refused() -> None:
    image = bytearray(image_of(busy().engine))
    first, second = list(Walk(image, len(DROP_NAMES)).of("Flow"))[:2]
    places = fields("Flow")[0]
    begin, end = places["identity.client_port"][0], places["identity.server[15]"][0] + 1
    image[second + begin : second + end] = image[first + begin : first + end]
    with pytest.raises(ValueError, match="cannot be"):
        loaded(mended(image), fresh())


def test_handed_over_a_cut_image_with_a_right_checksum_is_refused_wherever_it_is_cut() -> None:
    image = image_of(busy().engine)
    engine = fresh()
    for length in range(HEADER.size + 8, len(image), 8 * 11):
        with pytest.raises(ValueError, match=r"not whole|cannot be"):
            loaded(mended(image[:length]), engine)
    with pytest.raises(ValueError, match="cannot be"):
        loaded(mended(image + bytes(8)), engine)


def test_handed_over_limits_that_leave_no_room_are_refused_whole() -> None:
    image = image_of(busy().engine)
    for limits in (Limits(cookies=0, flows=2), Limits(cookies=0, flows=4096, memory=12_000), Limits(flows=4096)):
        engine = Engine(RULES, limits=limits)
        with pytest.raises(ValueError, match="leave no room"):
            engine.load_state(image, {0: engine.prepare(RULES, limits=limits)})
        assert engine.counters()["flows_now"] == engine.counters()["memory_now"] == 0
