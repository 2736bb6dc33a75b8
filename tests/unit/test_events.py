"""Events: what the core recorded of real packets, as EVE lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nfmailguard.errors import ConfigError
from nfmailguard.events.eve import EveWriter, community_id, timestamp
from nfmailguard.events.records import Record
from nfmailguard.events.sinks import FileSink
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Mode
from tests.support.dialogue import Dialogue


def events(dialogue: Dialogue, path: Path) -> list[dict[str, Any]]:
    """Every event of the dialogue, its flow ended."""
    dialogue.carry_out(dialogue.engine.finish(dialogue.now + 1000))
    sink = FileSink(path)
    writer = EveWriter(dialogue.engine.rules, sink)
    writer.write(dialogue.records)
    sink.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


def of_type(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in found if event["event_type"] == kind]


def mail_dialogue(profile: str, mode: Mode = Mode.ENFORCE, family: int = 4) -> Dialogue:
    dialogue = Dialogue.under(load_profile(profile), mode, family)
    for to_server, octets in (
        (False, b"220 mail2 ready\r\n"),
        (True, b"EHLO c.example\r\n"),
        (False, b"250-mail2\r\n250-STARTTLS\r\n250 AUTH LOGIN\r\n" if profile == "asa" else b"500 what?\r\n"),
        (True, b"HELO c.example\r\n"),
        (False, b"250 mail2\r\n"),
        (True, b"MAIL FROM:<a@c.example> SIZE=9\r\nRCPT TO:<|b@d.example>\r\nRCPT TO:<no@d.example>\r\nDATA\r\n"),
        (False, b"250 ok\r\n250 ok\r\n550 no\r\n"),
        (False, b"354 go\r\n"),
        (True, b"Subject: x\r\n\r\nhello\r\n.\r\n"),
        (False, b"250 2.0.0 Ok: queued as 4F1X2\r\n"),
        (True, b"QUIT\r\n"),
        (False, b"221 bye\r\n"),
    ):
        dialogue.say(to_server, octets)
    dialogue.close()
    return dialogue


@pytest.mark.parametrize("family", [4, 6])
def test_a_mail_is_one_smtp_event_that_says_where_it_went(tmp_path: Path, family: int) -> None:
    (event,) = of_type("smtp", events(mail_dialogue("pix63", family=family), tmp_path / "eve.json"))
    assert event["smtp"] == {
        "helo": "c.example",
        "mail_from": "a@c.example",
        "rcpt_to": ["|b@d.example"],
        "uncertain": True,
        "bytes": 21,
        "reply": "250 2.0.0 Ok: queued as 4F1X2",
        "changed": ["address.illegal_character"],
        "complete": True,
    }
    assert event["dest_port"] == 25
    assert event["src_ip"] == ("10.0.1.2" if family == 4 else "fd00:1::2")


def test_a_finding_says_what_was_there_and_what_became_of_it(tmp_path: Path) -> None:
    found = of_type("mailguard", events(mail_dialogue("pix63"), tmp_path / "eve.json"))
    denied = next(event for event in found if event["mailguard"]["finding"] == "command.denied")
    assert denied["mailguard"] == {
        "mode": "enforce",
        "profile": "pix63",
        "finding": "command.denied",
        "action": "mask",
        "applied": True,
        "state": "greeted",
        "offset": 0,
        "verb": "EHLO",
        "before": "EHLO c.example",
        "after": "XXXX c.example",
    }
    assert denied["direction"] == "to_server"


def test_a_masked_keyword_is_named(tmp_path: Path) -> None:
    found = of_type("mailguard", events(mail_dialogue("asa"), tmp_path / "eve.json"))
    masked = next(event["mailguard"] for event in found if event["mailguard"]["finding"] == "reply.keyword_masked")
    assert (masked["keyword"], masked["after"]) == ("STARTTLS", "250-XXXXXXXA")


def test_monitor_says_that_nothing_was_applied_and_what_is_hypothetical(tmp_path: Path) -> None:
    found = of_type("mailguard", events(mail_dialogue("pix63", Mode.MONITOR), tmp_path / "eve.json"))
    assert [event["mailguard"]["applied"] for event in found] == [False] * len(found)
    assert [event["mailguard"].get("hypothetical", False) for event in found] == [False, True, True]


def test_a_flow_event_counts_both_directions(tmp_path: Path) -> None:
    (event,) = of_type("flow", events(mail_dialogue("pix63"), tmp_path / "eve.json"))
    flow = event["flow"]
    assert (flow["state"], flow["smtp_state"]) == ("closed", "quit")
    assert flow["pkts_toserver"] == 8
    assert flow["pkts_toclient"] == 9
    assert flow["bytes_toserver"] > 8 * 40


def test_secrets_never_reach_an_event(tmp_path: Path) -> None:
    for profile in ("asa", "pix63"):
        for mode in (Mode.ENFORCE, Mode.MONITOR):
            dialogue = Dialogue.under(load_profile(profile), mode)
            dialogue.server(b"220 x\r\n")
            dialogue.client(b"AUTH PLAIN c2VjcmV0\r\n")
            dialogue.server(b"334 \r\n")
            dialogue.client(b"c2VjcmV0\r\n")
            events(dialogue, tmp_path / "eve.json")
            assert "c2VjcmV0" not in (tmp_path / "eve.json").read_text()
            assert not any(b"c2VjcmV0" in Record.of(record).before for record in dialogue.records)
            (tmp_path / "eve.json").unlink()


def test_what_is_not_printable_is_escaped(tmp_path: Path) -> None:
    dialogue = Dialogue.under(load_profile("pix63"))
    dialogue.server(b"220 x\r\n")
    dialogue.client(b"\x00EH\x1bLO and more\r\nEHLO \xff[31m\\ and more\r\n")
    _, nul, verb, argument = of_type("mailguard", events(dialogue, tmp_path / "eve.json"))
    assert nul["mailguard"]["finding"] == "command.nul"
    assert verb["mailguard"]["before"] == "\\x00EH\\x1bLO"
    assert argument["mailguard"]["before"] == "EHLO \\xff[31m\\x5c"


def test_community_id_is_that_of_the_specification() -> None:
    # https://github.com/corelight/community-id-spec, the TCP example of its README.
    assert (
        community_id(bytes([128, 232, 110, 120]), 34855, bytes([66, 35, 250, 204]), 80)
        == community_id(bytes([66, 35, 250, 204]), 80, bytes([128, 232, 110, 120]), 34855)
        == "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
    )


def test_timestamps_are_eves(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert timestamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456+0000"


def test_a_sink_that_cannot_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.eve: .*: No such file or directory"):
        FileSink(tmp_path / "no" / "eve.json")


def test_a_full_disk_loses_lines_counted_and_raises_nothing() -> None:
    sink = FileSink(Path("/dev/full"))
    sink.write([b"a\n", b"b\n"])
    assert sink.lost == 2
    assert sink.failure is not None
    sink.close()


def test_after_a_rotation_the_sink_writes_to_the_new_file(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "eve.json")
    sink.write([b"old\n"])
    (tmp_path / "eve.json").rename(tmp_path / "eve.json.1")
    sink.reopen()
    sink.write([b"new\n"])
    sink.close()
    assert (tmp_path / "eve.json").read_text() == "new\n"
    assert (tmp_path / "eve.json.1").read_text() == "old\n"
