"""docs/eve.schema.json says what stands in an event, and nothing else does, whatever peers have said."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nfmailguard.config import load
from nfmailguard.engine import Engine
from nfmailguard.events.eve import EveWriter
from nfmailguard.events.schema import ENVELOPE, FIELDS, schema
from nfmailguard.events.transactions import Mail
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode
from nfmailguard.replay import replay
from nfmailguard.service.health import Health
from tests.support.captures import RAW, framed, mail, pcap
from tests.support.dialogue import Dialogue
from tests.vectors.cases import cases

ROOT = Path(__file__).parents[2]
#: Suricata's own schema (S-EVE in docs/sources.md): the types of the envelope, and of the parts that are Suricata's.
SURICATA: dict[str, dict[str, str]] = {
    "": {
        **dict.fromkeys(("timestamp", "event_type", "src_ip", "dest_ip", "proto", "app_proto"), "string"),
        **dict.fromkeys(("direction", "community_id", "in_iface"), "string"),
        **dict.fromkeys(("flow_id", "src_port", "dest_port"), "integer"),
    },
    "flow": {
        **dict.fromkeys(("pkts_toserver", "pkts_toclient", "bytes_toserver", "bytes_toclient", "age"), "integer"),
        **dict.fromkeys(("start", "end", "state", "reason"), "string"),
        "alerted": "boolean",
    },
    "alert": {
        **dict.fromkeys(("gid", "signature_id", "rev", "severity"), "integer"),
        **dict.fromkeys(("action", "signature", "category"), "string"),
    },
    "smtp": {"helo": "string", "mail_from": "string", "rcpt_to": "array"},
}
JSON_TYPES = {str: "string", int: "integer", bool: "boolean", list: "array", dict: "object"}

WHOLE = Draft202012Validator(schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)
BY_KIND = {
    kind: Draft202012Validator(event, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for kind, event in schema()["$defs"].items()
}


class Lines:
    """A sink that keeps its lines."""

    lost, trouble = 0, None

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, lines: list[bytes]) -> None:
        self.lines += lines

    def reopen(self) -> None: ...

    def close(self) -> None: ...


def valid(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The events; each is one line of UTF-8, without control characters, as the schema has it."""
    events = []
    for line in lines:
        text = line.decode()
        assert text.endswith("\n")
        assert text[:-1].isprintable()
        event = json.loads(text)
        faults = [f"{fault.json_path}: {fault.message}" for fault in BY_KIND[event["event_type"]].iter_errors(event)]
        assert faults == [], text
        events.append(event)
    return events


def told(dialogue: Dialogue) -> list[bytes]:
    """Every line about it, alerts too, its connection ended."""
    dialogue.carry_out(dialogue.engine.finish(dialogue.now + 1000))
    sink = Lines()
    EveWriter(dialogue.engine.rules, sink, alerts=True).write(dialogue.records)
    return sink.lines


def of_vectors() -> Iterator[bytes]:
    for case in cases():
        for mode in (Mode.ENFORCE,) if case.restore else (Mode.ENFORCE, Mode.MONITOR):
            dialogue = Dialogue.under(case.policy, mode, 4 + 2 * (case.number % 2), restore=case.restore)
            for to_server, data in (*case.before, *case.packets):
                dialogue.say(to_server, data)
            yield from told(dialogue)


SESSION = (
    (False, b"220 m ESMTP\r\n"), (True, b"EHLO c\r\n"), (False, b"250-m\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"),
    (True, b"AUTH PLAIN AGEAYg==\r\n"), (False, b"235 ok\r\n"), (True, b"MAIL FROM:<a@c>\r\n"), (False, b"250 ok\r\n"),
    (True, b"".join(b"RCPT TO:<b%d@d>\r\n" % number for number in range(110))), (False, b"250 ok\r\n" * 110),
    (True, b"RCPT TO:<(x)b|@d>\r\n"), (False, b"250 ok\r\n"), (True, b"DATA\r\n"), (False, b"354 go\r\n"),
    (True, b"x\r\n.\r\n"), (False, b"250 queued\r\n"), (True, b"STARTTLS\r\n"), (False, b"220 go\r\n"),
)  # fmt: skip


def of_sessions() -> Iterator[bytes]:
    for profile in ("asa", "asa-tls", "rfc821"):
        dialogue = Dialogue.under(load_profile(profile), Mode.MONITOR)
        for to_server, data in SESSION:
            dialogue.say(to_server, data)
        yield from told(dialogue)
    dialogue = Dialogue.under(load_profile("pix63"))
    dialogue.say(False, b"220 m\r\n")
    for _ in range(60):
        dialogue.say(True, b"XXXX\r\n")
        dialogue.say(False, b"500 what\r\n")
    yield from told(dialogue)


def of_a_tls_session() -> Iterator[bytes]:
    dialogue = Dialogue.under(load_profile("asa-tls"), Mode.MONITOR)
    for to_server, data in (*SESSION[:3], *SESSION[-2:], (True, b"\x16\x03\x01\0\x05hello")):
        dialogue.say(to_server, data)
    yield from told(dialogue)


def of_a_gateway() -> Iterator[bytes]:
    sink = Lines()
    writer = EveWriter([FlowRule(Mode.MONITOR, load_profile("asa"))], sink, limits=Limits(log_rate=1), alerts=True)
    dialogue = Dialogue.under(load_profile("asa"))
    for to_server, data in SESSION:
        dialogue.say(to_server, data)
    dialogue.carry_out(dialogue.engine.finish(dialogue.now + 1000))
    writer.write(dialogue.records)
    now = 1_700_000_000_000_000_000
    clock = [0.0]
    health = Health(lambda line: None, lambda body: writer.health(now, body), lambda: clock[0])
    for counters, troubles in (({"records_lost": 4}, {"rules": "gone"}), ({}, {}), ({}, {})):
        health.look(counters, troubles)
        clock[0] += 40
    writer.health(now, {"state": "healthy", "hand_over": "taken_over", "text": "taken over from process 7"})
    done = {"reload": "done", "generation": 2, "changed": ["gateway.profile: 'asa' -> 'pix63'"], "text": "opened anew"}
    writer.health(now, {"state": "healthy", **done})
    writer.health(now, {"state": "degraded", "reload": "refused", "errors": ["x.toml: no such key"], "text": "refused"})
    config = load()
    engine = Engine(config.flow_rules(), ports=config.ports(), limits=config.engine_limits())
    writer.stats(now, {**engine.counters(), **writer.counters(), "degraded_now": 0})
    yield from sink.lines


def of_a_replay(folder: Path) -> Iterator[bytes]:
    capture, eve = folder / "in.pcap", folder / "eve.json"
    capture.write_bytes(pcap(framed(mail()), RAW))
    for profile in ("pix63", "asa", "pix40"):
        eve.unlink(missing_ok=True)
        replay(load(mode="enforce", profile=profile), capture, events=str(eve))
        yield from eve.read_bytes().splitlines(keepends=True)


def test_every_event_is_valid_and_every_field_is_in_one(tmp_path: Path) -> None:
    sources: dict[str, Callable[[], Iterator[bytes]]] = {
        "vectors": of_vectors,
        "sessions": of_sessions,
        "tls": of_a_tls_session,
        "gateway": of_a_gateway,
        "replay": lambda: of_a_replay(tmp_path),
    }
    seen: dict[str, set[str]] = defaultdict(set)
    for source in sources.values():
        for event in valid(list(source())):
            kind = event["event_type"]
            seen[kind] |= event[kind].keys()
            for name, value in event.items():
                if name in SURICATA[""]:
                    assert JSON_TYPES[type(value)] == SURICATA[""][name]
            for name, value in event[kind].items():
                if name in SURICATA.get(kind, {}):
                    assert JSON_TYPES[type(value)] == SURICATA[kind][name]
    never = {(kind, name) for kind in FIELDS if kind != "stats" for name in FIELDS[kind].keys() - seen[kind]}
    assert never == {("smtp", "tls")}  # a mail behind STARTTLS is not seen, but where a server goes on without TLS
    assert len(seen["stats"]) > 130


PIECE = st.binary(max_size=80) | st.sampled_from(
    [b"EHLO ", b"MAIL FROM:<", b"RCPT TO:<", b"> ", b"\r\n", b"DATA\r\n", b".\r\n", b'"\\', b"\xe2\x80\xae", b"\x9b1m",
     b"\xed\xa0\x80", b"\0", b"\x7f", b"250 ", b"354 go\r\n", b"\xc3\xa9", "\u2028".encode()]
)  # fmt: skip


@given(st.lists(st.tuples(st.booleans(), st.lists(PIECE, min_size=1, max_size=6).map(b"".join)), max_size=12))
def test_hostile_octets_stay_valid_json(turns: list[tuple[bool, bytes]]) -> None:
    for mode in (Mode.ENFORCE, Mode.MONITOR):
        dialogue = Dialogue.under(load_profile("asa"), mode)
        dialogue.say(False, b"220 \xff\x1b[2J ready\r\n")
        for to_server, octets in turns:
            if octets:
                dialogue.say(to_server, octets)
        valid(told(dialogue))


@pytest.mark.sources
def test_the_file_is_what_the_tables_say() -> None:
    written = json.loads((ROOT / "docs" / "eve.schema.json").read_text())
    assert written == schema(), "python -m nfmailguard.events.schema > docs/eve.schema.json"
    Draft202012Validator.check_schema(written)
    assert written["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_field_has_a_meaning_and_every_number_a_unit() -> None:
    for kind, fields in {"": ENVELOPE, **FIELDS}.items():
        for name, field in fields.items():
            assert field.meaning, (kind, name)
            numbered = field.kind == "integer" and not field.values and name not in ("flow_id", "src_port", "dest_port")
            assert bool(field.unit) == (numbered and name != "severity"), (kind, name)


def test_types_are_suricatas_where_the_field_is() -> None:
    for kind, types in SURICATA.items():
        fields = FIELDS[kind] if kind else ENVELOPE
        for name, field in fields.items():
            if name in types:
                assert types[name] == ("array" if field.kind.startswith("[") else field.kind), (kind, name)
    assert SURICATA[""].keys() - ENVELOPE.keys() == {"in_iface"}  # a record does not tell interfaces


def test_a_mail_has_the_fields_of_the_table() -> None:
    assert {field.name for field in msgspec.structs.fields(Mail)} == FIELDS["smtp"].keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda event: event.pop("flow_id"),
        lambda event: event.update(flow_id="7"),
        lambda event: event.update(src_ip="10.0.0.256"),
        lambda event: event.update(surprise=1),
        lambda event: event.update(event_type="alert"),
        lambda event: event["mailguard"].update(finding="no.such"),
        lambda event: event["mailguard"].update(before="\x1b[2J"),
        lambda event: event["mailguard"].update(surprise=1),
        lambda event: event["mailguard"].pop("mode"),
        lambda event: event.update(timestamp="2026-11-24T16:20:00Z"),
    ],
)
def test_a_wrong_event_is_not_valid(change: Callable[[dict[str, Any]], object]) -> None:
    dialogue = Dialogue.under(load_profile("asa"))
    dialogue.say(False, b"220 m\r\n")
    event = valid(told(dialogue))[0]
    assert WHOLE.is_valid(event)
    change(event)
    assert not WHOLE.is_valid(event)
