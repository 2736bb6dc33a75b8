"""Events at the engine's speed are, byte for byte, those of the obvious writer, whatever is recorded."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.cext.events.ends import community, shown
from nfmailguard.engine import ACTIONS, Engine
from nfmailguard.events.eve import EveWriter, Standing, community_id
from nfmailguard.events.lines import LineWriter
from nfmailguard.events.records import FlowEnd, Record, RecordKind
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FINDING_INDEX, FINDINGS, FlowRule, Limits, Mode
from nfmailguard.smtp.states import State
from nfmailguard.smtp.verbs import VERB_INDEX, VERBS
from tests.support.dialogue import Dialogue

SECOND = 1_000_000_000
START = 1_764_000_000 * SECOND
RULES = [
    FlowRule(Mode.ENFORCE, load_profile("pix63")),
    FlowRule(Mode.MONITOR, load_profile("asa")),
    FlowRule(Mode.ENFORCE, msgspec.structs.replace(load_profile("asa"), name='a "name" \\ of one\'s own: \u00e4')),
]


class Kept:
    """A sink in memory."""

    lost = 0
    trouble = None

    def __init__(self) -> None:
        self.octets = bytearray()

    def write(self, lines: list[bytes]) -> None:
        self.octets += b"".join(lines)

    def write_block(self, block: bytes | memoryview, lines: int) -> None:
        assert bytes(block).count(b"\n") == lines
        self.octets += block


class Both:
    """The two writers, held against each other."""

    def __init__(self, limits: Limits | None, alerts: bool = False, rules: Iterable[FlowRule] = RULES) -> None:
        self.limits, self.alerts, self.rules = limits, alerts, list(rules)
        self.sinks = Kept(), Kept()
        self.model, self.lines = self._made()

    def _made(self) -> tuple[EveWriter, LineWriter]:
        options: dict[str, Any] = {"engine": 5, "alerts": self.alerts, "limits": self.limits}
        return (
            EveWriter(self.rules, self.sinks[0], **options),  # type: ignore[arg-type]
            LineWriter(self.rules, self.sinks[1], **options),  # type: ignore[arg-type]
        )

    def write(self, records: list[tuple[Any, ...]]) -> None:
        self.model.write(records)
        self.lines.write(records)
        self.compare()

    def compare(self) -> None:
        model, lines = (bytes(sink.octets) for sink in self.sinks)
        if model != lines:
            pairs = zip(model.splitlines(), lines.splitlines(), strict=False)
            differing = [pair for pair in pairs if pair[0] != pair[1]]
            assert differing[:1] == []
            assert len(model.splitlines()) == len(lines.splitlines())
        counted = self.lines.counters()
        assert counted.pop("events_unmade") == 0
        assert counted == self.model.counters()

    def hand_over(self, crossed: bool) -> None:
        """To two others, of each to its like or to the other kind."""
        standing = [through_json(writer.standing()) for writer in (self.model, self.lines)]
        comparable = [[_seen(session) for session in one.sessions] for one in standing]
        assert comparable[0] == comparable[1]
        before = self.model, self.lines
        self.model, self.lines = self._made()
        assert before[0] is not self.model
        self.model.take_over(standing[crossed])
        self.lines.take_over(standing[not crossed])


def _seen(one: tuple[int, Any, int]) -> Any:
    """Of a mail that nobody will be told of only that it is there."""
    flow_id, session, place = one
    return flow_id, msgspec.structs.replace(session, spoken=session.spoken is not None), place


def through_json(standing: Standing) -> Standing:
    return msgspec.json.decode(msgspec.json.encode(standing), type=Standing)


def address_of(flow: int, host: int) -> tuple[int, bytes]:
    if flow % 3 == 2:
        return 6, bytes([0xFD, 0, 0, flow // 3 % 2]) + bytes(11) + bytes([host])
    return 4, bytes([10, 0, flow // 3 % 2, host])


LINES = (
    *(b"MAIL FROM:<a@b.example>", b"MAIL FROM:<> SIZE=12", b"mail from: <a@[10.0.0.1]> X=1 Y", b"RCPT TO:<b>"),
    *(b"RCPT TO:c@d.example NOTIFY=NEVER ", b'RCPT TO:<"c d"@e>', b"RCPT TO:<a\xc3\xa4@b>", b"MAIL FROM:<a\xff>"),
    *(b"HELO c.example", b'EHLO \x00\xff\\ "x"', b"HELO", b"BDAT 5", b"BDAT 5 last", b"BDAT 0 LAST", b"ok "),
    *(b"250-STARTTLS", b"250 SIZE 100", b"queued as 1", b"  ", b"", b"RCPT TO:<@a:b@c>", b"RCPT TO : <b@c"),
    b"RCPT TO:<" + b"x" * 240 + b"@b>",
)
PIECES = (
    *(
        b"MAIL FROM:",
        b"RCPT TO:",
        b"<",
        b">",
        b"@",
        b"a",
        b"bc.example",
        b'"',
        b"\\",
        b" ",
        b"[10.0.0.1]",
        b"]",
        b" SIZE=1",
    ),
    *(
        b" X",
        b"\t",
        b"\xc3\xa4",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98\x80",
        b"\xc0\x80",
        b"\0",
        b":",
        b"LAST",
        b" =",
    ),
)
VERBS_SPOKEN = ("HELO", "EHLO", "MAIL", "RCPT", "DATA", "RSET", "STARTTLS", "AUTH", "BDAT", "QUIT", "<end of data>")
CODES = (250, 250, 250, 220, 354, 550, 421, 0, 235, 65535)


class Mood(NamedTuple):
    """What peers are about for a while: all sorts of things, or one over and over, so that limits are reached."""

    kinds: tuple[RecordKind, ...] = (*RecordKind, *(RecordKind.COMMAND, RecordKind.REPLY) * 6, RecordKind.MESSAGE)
    verbs: tuple[str, ...] = (*VERBS_SPOKEN, *("MAIL", "RCPT", "<end of data>") * 4)
    codes: tuple[int, ...] = CODES


SAID = (RecordKind.COMMAND,) * 30 + (RecordKind.FINDING, RecordKind.MESSAGE)
ANSWERED = (RecordKind.REPLY,) * 30 + (RecordKind.FINDING,)
MOODS = (
    *(Mood(), Mood()),
    *(Mood(SAID, verbs) for verbs in (("MAIL",), ("RCPT",), ("BDAT",), ("HELO",), ("MAIL", "RCPT"))),
    *(
        Mood(ANSWERED, verbs, codes)
        for codes in ((250,), CODES)
        for verbs in (("MAIL",), ("RCPT",), ("BDAT",), ("EHLO",))
    ),
    Mood(verbs=("EHLO", "MAIL", "MAIL", "RCPT", "RCPT", "BDAT", "<end of data>"), codes=(250, 250, 550)),
)


def line(chosen: random.Random) -> bytes:
    """As a peer might have sent it."""
    if chosen.randrange(3):
        return chosen.choice(LINES)
    return b"".join(chosen.choice(PIECES) for _ in range(chosen.randrange(12)))[:288]


def findings(chosen: random.Random) -> int:
    """A bit for each of some."""
    few = range(chosen.choice((0, 0, 0, 1, 2, 30)))
    return sum({1 << chosen.randrange(1, len(FINDINGS)) for _ in few})


def numbers(chosen: random.Random, kind: RecordKind, now: int) -> tuple[int, ...]:
    """As the kind has them."""
    if kind == RecordKind.COMMAND:
        return chosen.randrange(99), chosen.choice((0, 0, 0, 0, 1, 2, 3)), findings(chosen), 0, 0
    if kind == RecordKind.REPLY:
        return 0, chosen.randrange(200) // 199, chosen.choice((0, 0, 3)), 0, 0
    if kind == RecordKind.MESSAGE:
        return chosen.randrange(1 << 40), 0, findings(chosen), 0, 0
    if kind == RecordKind.FLOW:
        return chosen.randrange(now + SECOND), *(chosen.randrange(1 << chosen.randrange(1, 50)) for _ in range(4))
    return chosen.randrange(1 << 40), chosen.randrange(4), 0, 0, 0


def record(chosen: random.Random, mood: Mood, flows: int, now: int) -> tuple[Any, ...]:
    """Whatever a core might have recorded, and more."""
    kind = chosen.choice(mood.kinds)
    flow = chosen.randrange(0 if kind in (RecordKind.FINDING, RecordKind.REPEATED) else 1, flows + 1)
    family, client = address_of(flow or chosen.randrange(1, flows + 1), 2)
    before = line(chosen)
    return tuple(
        Record(
            kind=kind,
            now=now,
            flow_id=flow,
            rule=chosen.randrange(len(RULES)),
            family=family,
            client=client,
            client_port=1024 + flow,
            server=bytes([10, 0, 9, 9]) if family == 4 else bytes([0xFD, *bytes(14), 9]),
            server_port=25,
            to_server=chosen.random() < 0.5,
            state=chosen.choice((State.CONNECT, *State)),
            verb=VERB_INDEX[chosen.choice(mood.verbs)] if kind in (2, 3) else chosen.randrange(len(VERBS) + 4),
            finding=chosen.randrange(len(FINDINGS)),
            action=chosen.randrange(len(ACTIONS)),
            hypothetical=chosen.random() < 0.3,
            applied=chosen.random() < 0.5,
            code=chosen.choice((*FlowEnd,)) if kind == RecordKind.FLOW else chosen.choice(mood.codes),
            numbers=numbers(chosen, kind, now),  # type: ignore[arg-type]
            before=before,
            after=line(chosen)[: 288 - len(before)] if kind == RecordKind.FINDING else b"",
        )
    )


def compare_writers(chosen: random.Random, rounds: int, most: int) -> None:
    """Records for both, who are replaced now and then by others that go on where they were."""
    limits = Limits(
        event_memory=chosen.choice((1, 3000, 9000, 20_000, 60_000, 1 << 26, 1 << 26)),
        log_rate=chosen.choice((1, 100, 800, 3000, 30_000, (1 << 32) - 1)),
    )
    both = Both(chosen.choice((None, limits, limits)), alerts=chosen.random() < 0.5)
    now, step = START, chosen.choice((1000, SECOND // 10, SECOND))
    for _ in range(rounds):
        flows, mood, found = chosen.choice((1, 1, 2, 7, 40)), chosen.choice(MOODS), []
        for _ in range(chosen.randrange(most)):
            now += chosen.randrange(step) if chosen.randrange(50) else -chosen.randrange(step)
            found.append(record(chosen, mood, flows, now))
        both.write(found)
        if both.limits is None or both.limits.log_rate > 1 << 31:  # what is used of a rate is not handed over
            both.hand_over(crossed=chosen.random() < 0.5)


@given(st.randoms(use_true_random=False))
def test_both_writers_write_the_same(chosen: random.Random) -> None:
    compare_writers(chosen, 4, 20)


@pytest.mark.parametrize("seed", range(32))
def test_both_writers_write_the_same_of_long_courses(seed: int) -> None:
    compare_writers(random.Random(seed), 24, 250)


def test_many_sources_share_the_rate_alike() -> None:
    rate = 40_000
    both = Both(Limits(log_rate=rate))
    made = record(random.Random(1), Mood((RecordKind.FINDING,)), 1, START)
    base = Record.of(made)._replace(state=State.READY, before=b"", after=b"")
    for flow in range(1, 5_000):  # more than are known
        client = (0x0A000000 + flow).to_bytes(4, "big")
        both.write([tuple(base._replace(flow_id=flow, client=client, now=START + flow * SECOND // 1000))])
    for flow in (1, 500, 903, 904, 905, 4_000):
        both.write([tuple(base._replace(flow_id=flow, client=(0x0A000000 + flow).to_bytes(4, "big")))] * 400)
    now, used = START + 6 * SECOND, rate * 10.0
    for turn in range(400):  # what is used is paid off by half, over and over
        now += int(used / 2 / rate * SECOND)
        both.write([tuple(base._replace(flow_id=turn % 7 + 1, now=now))] * 8)
        used = used / 2 + 8 * 450
    assert both.lines.counters()["events_withheld"] > 1000


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_addresses_are_written_as_the_system_writes_them(four: bytes, six: bytes, bits: bytes) -> None:
    assert shown(4, four) == socket.inet_ntop(socket.AF_INET, four)
    sparse = bytes(octet if bit & 3 == 0 else 0 for octet, bit in zip(six, bits, strict=True))
    for address in (six, sparse, sparse[:4] + bytes(12), bytes(12) + four, bytes(10) + b"\xff\xff" + four, bytes(16)):
        assert shown(6, address) == socket.inet_ntop(socket.AF_INET6, address)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 65535), st.integers(0, 65535), st.booleans())
def test_a_community_id_is_the_same_however_it_is_made(ends: bytes, client: int, server: int, same: bool) -> None:
    for family, size in ((4, 4), (6, 16)):
        source, target = ends[:size], ends[:size] if same else ends[16 : 16 + size]
        expected = community_id(source, client, target, server)
        for native in (False, True):
            assert community(family, source, client, target, server, native) == expected


def test_the_plain_digest_is_sha1_of_any_length_it_is_asked_for() -> None:
    # One block has room for 55 octets; an IPv6 flow has 40.
    said = community(6, bytes(range(16)), 1, bytes(range(16, 32)), 2, False)
    ends = bytes(range(16)) + bytes(range(16, 32))
    digest = hashlib.sha1(b"\0\0" + ends + b"\x06\0\0\x01\0\x02", usedforsecurity=False).digest()
    assert msgspec.json.encode(digest)[1:-1].decode() == said[2:]


def talk(dialogue: Dialogue, said: Iterable[tuple[bool, bytes]]) -> list[tuple[Any, ...]]:
    for to_server, octets in said:
        dialogue.say(to_server, octets)
    dialogue.close()
    dialogue.carry_out(dialogue.engine.finish(dialogue.now + 1000))
    return dialogue.records


MAIL = (
    *(
        (False, b"220 mail2 ready\r\n"),
        (True, b"EHLO c.example\r\n"),
        (False, b"250-mail2\r\n250-STARTTLS\r\n250 X\r\n"),
    ),
    *((True, b"MAIL FROM:<a|b@c.example> SIZE=100\r\n"), (False, b"250 ok\r\n")),
    *((True, b"RCPT TO:<b@d.example>\r\n"), (False, b"250 ok\r\n"), (True, b"DATA\r\n"), (False, b"354 go\r\n")),
    *((True, b"one\r\n.\r\n"), (False, b"250 queued as 1\r\n"), (True, b"QUIT\r\n"), (False, b"221 bye\r\n")),
)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR])
def test_lines_read_from_the_ring_are_those_of_drained_records(mode: Mode, family: int) -> None:
    policy = load_profile("asa")
    drained = talk(Dialogue.under(policy, mode, family), MAIL)
    model, native = Kept(), Kept()
    EveWriter([FlowRule(mode, policy)], model, alerts=True).write(drained)  # type: ignore[arg-type]

    class Unread(Dialogue):
        def carry_out(self, operations: list[tuple[int, int, bytes | None, bool]]) -> list[int]:
            drain, self.engine.drain = self.engine.drain, lambda most=0: []  # type: ignore[method-assign]
            kinds = super().carry_out(operations)
            self.engine.drain = drain  # type: ignore[method-assign]
            return kinds

    again = Unread(Engine([FlowRule(mode, policy)]), family)
    talk(again, MAIL)
    writer = LineWriter([FlowRule(mode, policy)], native, alerts=True)  # type: ignore[arg-type]
    assert writer.drain(again.engine) == len(drained) > 8
    assert writer.drain(again.engine) == 0
    assert bytes(native.octets) == bytes(model.octets)
    assert writer.written == len(native.octets.splitlines()) > 3


BASE = Record(
    kind=RecordKind.COMMAND,
    now=START,
    flow_id=1,
    rule=0,
    family=4,
    client=bytes([10, 0, 0, 1]),
    client_port=1024,
    server=bytes([10, 0, 0, 2]),
    server_port=25,
    to_server=True,
    state=State.READY,
    verb=VERB_INDEX["MAIL"],
    finding=0,
    action=0,
    hypothetical=False,
    applied=True,
    code=0,
    numbers=(0, 0, 0, 0, 0),
    before=b"MAIL FROM:<a@b>",
    after=b"",
)


def test_a_mail_of_many_recipients_is_told_whole() -> None:
    both = Both(None)
    recipient = BASE._replace(verb=VERB_INDEX["RCPT"], before=b"RCPT TO:<" + b"\xff" * 270)
    for command in (BASE, *[recipient] * 200):
        answered = command._replace(kind=RecordKind.REPLY, code=250, before=b"ok")
        both.write([tuple(command), tuple(answered)])
    both.write([tuple(BASE._replace(kind=RecordKind.REPLY, verb=VERB_INDEX["<end of data>"], code=250))])
    (mail,) = map(msgspec.json.decode, both.sinks[1].octets.splitlines())
    assert len(both.sinks[1].octets) > 100_000
    assert (len(mail["smtp"]["rcpt_to"]), mail["smtp"]["rcpt_omitted"]) == (100, 100)


def test_findings_of_packets_of_no_connection_have_each_its_own_community_id() -> None:
    both = Both(None)
    finding = BASE._replace(kind=RecordKind.FINDING, flow_id=0, finding=FINDING_INDEX["flow.midstream"])
    both.write([tuple(finding), tuple(finding._replace(client=bytes([10, 0, 0, 7])))])
    first, second = map(msgspec.json.decode, both.sinks[0].octets.splitlines())
    assert first["community_id"] != second["community_id"]
