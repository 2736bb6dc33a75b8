"""The state of an engine, handed over in the midst of whatever it does: as if it had never been replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nfmailguard.cext.engine import DROP_NAMES
from nfmailguard.cext.handover import state
from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from tests.handover.course import Course, busy, fresh, image_of, loaded
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


#: What the course needs none of to end in the same way: found anew by who reads (keys, hashes, places), or set anew
#: where the next line, reply or packet begins.
NOT_NEEDED = {
    "CoreState": "key[0] key[1] started",
    "Flow": "identity.source mode mix seen session.recipients session.marks session.junk"
    " stream[0].max_window stream[1].max_window",
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


def test_an_image_of_another_version_is_refused_by_its_header_alone() -> None:
    image = image_of(busy().engine)
    for field in (8, 16):  # format, layout
        wrong = bytearray(image)
        wrong[field] ^= 1
        with pytest.raises(ValueError, match="another version's"):
            loaded(mended(wrong))
    assert state.version() == (HEADER.unpack_from(image)[1], HEADER.unpack_from(image)[2])


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
