"""The state of an engine, handed over in the midst of whatever it does: as if it had never been replaced."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from nfmailguard.cext.engine import DROP_NAMES
from nfmailguard.cext.handover import state
from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from tests.handover.course import RULES, Course, busy, fresh, image_of, loaded
from tests.handover.images import HEADER, Walk, fields, mended
from tests.rules.gateway import ACCEPT, REPLACE, Connection, Gateway
from tests.stream import setting
from tests.stream.test_machine import play
from tests.support.dialogue import Dialogue
from tests.support.twins import Twins, sometimes
from tests.vectors.cases import Case, cases


@pytest.fixture
def replacing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Engines of tests are twins from here on, the second of which is replaced when the given function says so."""
    for module in ("tests.support.dialogue", "tests.rules.gateway", "tests.stream.setting"):
        monkeypatch.setattr(f"{module}.Engine", Twins)

    def begin(when: Callable[[], bool]) -> None:
        monkeypatch.setattr(Twins, "when", staticmethod(when))

    before = Twins.handed_over
    setting.forget_engines()
    yield begin
    setting.forget_engines()
    assert Twins.handed_over > before, "nothing was handed over"


@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_vector_is_the_same_when_the_engine_is_replaced_at_every_packet_and_cut(
    case: Case, replacing: Callable[[Callable[[], bool]], None]
) -> None:
    # A few vectors stand behind hundreds of packets.
    replacing(sometimes(1, 20) if len(case.before) + len(case.packets) > 40 else lambda: True)
    octets = b"".join(data for _, data in case.packets)
    for cut in {0, 1, len(octets) // 2, len(octets) - 2} if len(octets) > 3 else {0}:
        dialogue = Dialogue.under(case.policy, restore=case.restore)
        for to_server, data in case.before:
            dialogue.say(to_server, data)
        if cut:
            dialogue.say(case.to_server, octets[:cut])
        dialogue.say(case.to_server, octets[cut:])


def test_the_stream_machine_sees_no_difference_whenever_the_engine_is_replaced(
    replacing: Callable[[Callable[[], bool]], None],
) -> None:
    replacing(sometimes(3, 5))
    for seed in range(110):
        play(seed)


def test_what_is_read_is_what_was_written_and_the_engine_it_was_written_from_may_go_on() -> None:
    course = Course(busy())
    again = loaded(course.image)
    assert image_of(again) == course.image
    assert course.differs(again) is None
    assert course.gateway.engine.counters()["flows_now"] == 0, "the course goes on to the end of all flows"


#: What the course needs none of to end in the same way: found anew by who reads (keys, hashes, places), or set anew
#: where the next line, reply or packet begins.
NOT_NEEDED = {
    "CoreState": "key[0] key[1] started",
    "Flow": "identity.source mode answered confirmed mix junk seen session.recipients session.greeted"
    " stream[0].max_window stream[0].windowed stream[0].interface_known"
    " stream[1].max_window stream[1].windowed stream[1].interface_known",
    "Dialogue": "account.bytes text.bytes reply.offset command.length text.lines.length text.last_four"
    " text.parts.bytes text.parts.line exchange.greetings reply.code reply.first_code command.verb_length"
    " exchange.few[4] exchange.few[8] exchange.few[12] command.mode command.denied command.argument.phase"
    " command.argument.counted"
    " command.argument.bracket text.lines.head text.lines.in_header text.mime.state text.parts.name text.mime.header"
    " text.mime.line text.mime.which text.mime.name_length reply.lines reply.before reply.keyword_mask_mode"
    " reply.answers_ehlo",
    "LinePart": "sent",
    "HeldPart": "arrived",
}
PARTS = (
    "CoreState",
    "Flow",
    "FlowParts",
    "Dialogue",
    "DialogueParts",
    "LinePart",
    "EditPart",
    "BufferedPart",
    "HeldPart",
)


@pytest.mark.parametrize("name", PARTS)
def test_a_field_that_is_left_out_makes_a_difference(name: str) -> None:
    """Zero in its place, as if nobody had written it: refused, or the next packets are answered in another way."""
    course = Course(busy())
    unseen, seen = [], 0
    for field, (offset, size) in fields(name)[0].items():
        image = bytearray(course.image)
        for at in Walk(course.image, len(DROP_NAMES)).of(name):
            image[at + offset : at + offset + size] = bytes(size)
        if image != course.image:
            noticed = course.notices(mended(image))
            seen += noticed
            unseen += [] if noticed else [field]
    assert seen
    assert set(unseen) <= set(NOT_NEEDED.get(name, "").split())


@pytest.mark.parametrize("part", ["header", "body"])
def test_any_byte_that_is_another_is_refused(part: str) -> None:
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


def test_an_image_of_another_version_is_refused_by_its_header_alone() -> None:
    image = image_of(busy().engine)
    for field in (8, 16):  # format, layout
        wrong = bytearray(image)
        wrong[field] ^= 1
        with pytest.raises(ValueError, match="another version's"):
            loaded(mended(wrong))
    assert state.version() == (HEADER.unpack_from(image)[1], HEADER.unpack_from(image)[2])


def test_whatever_an_image_says_with_a_right_checksum_nothing_crashes_and_nothing_is_left_behind() -> None:
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


def test_a_cut_image_with_a_right_checksum_is_refused_wherever_it_is_cut() -> None:
    image = image_of(busy().engine)
    engine = fresh()
    for length in range(HEADER.size + 8, len(image), 8 * 11):
        with pytest.raises(ValueError, match=r"not whole|cannot be"):
            loaded(mended(image[:length]), engine)
    with pytest.raises(ValueError, match="cannot be"):
        loaded(mended(image + bytes(8)), engine)


def test_limits_that_leave_no_room_are_refused_whole() -> None:
    image = image_of(busy().engine)
    for limits in (Limits(cookies=0, flows=2), Limits(cookies=0, flows=4096, memory=12_000), Limits(flows=4096)):
        engine = Engine(RULES, limits=limits)
        with pytest.raises(ValueError, match="leave no room"):
            engine.load_state(image, {0: engine.prepare(RULES, limits=limits)})
        assert engine.counters()["flows_now"] == engine.counters()["memory_now"] == 0


def test_rules_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="rules that are not known"):
        fresh().load_state(image_of(busy().engine), {})
    gateway = busy()
    with pytest.raises(ValueError, match="has seen packets"):
        gateway.engine.load_state(image_of(gateway.engine), {})


def test_flows_keep_the_rules_they_began_under_and_new_ones_come_under_the_successors() -> None:
    options = {"limits": Limits(cookies=0)}
    gateway = Gateway("asa", **options)
    old = Connection(gateway, port=40000).greeted()
    gateway.reload("pix63", **options)
    middle = Connection(gateway, port=40001).greeted()
    assert list(gateway.engine.rules_in_use) == [1, 0]
    rules = [[FlowRule(Mode.ENFORCE, load_profile(name))] for name in ("asa", "pix63")]
    successor = Engine([FlowRule(Mode.ENFORCE, load_profile("pix51"))], **options)  # type: ignore[arg-type]
    prepared = {number: successor.prepare(rules[number], **options) for number in (1, 0)}  # type: ignore[arg-type]
    assert {number: one.digest for number, one in prepared.items()} == gateway.engine.rules_in_use
    numbers = successor.load_state(image_of(gateway.engine), prepared)
    assert sorted(flows for _, flows in successor.generations()) == [0, 1, 1]
    assert len(set(numbers.values())) == 2
    gateway.engine = successor
    new = Connection(gateway, port=40002).greeted()
    said = [one.client(b"EHLO a.example\r\n") for one in (old, middle, new)]
    assert said == [[ACCEPT], [REPLACE], [REPLACE]]
    assert new.gateway.engine.rules_in_use.keys() == {number for number, _ in successor.generations()}
    for one in (old, middle):
        one.send(False, 0x04, seq=one.has(False))
    gateway.now += 1_000_000_000_000
    successor.expire(gateway.now)
    successor.drain()
    for _ in range(3):
        successor.take_up(gateway.now)
        successor.free_unused()
    assert len(successor.generations()) == 1
