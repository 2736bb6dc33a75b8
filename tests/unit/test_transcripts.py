"""Both sides of a dialogue beside each other: from a model, captures and event logs; on a terminal and as a page."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nfmailguard.cli import cli
from nfmailguard.errors import ConfigError
from nfmailguard.policy.findings import FINDINGS
from nfmailguard.policy.load import load_profile, profile_names
from nfmailguard.reports import ladder, pages
from nfmailguard.reports.console import Console
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.transcript import parse
from nfmailguard.transcripts.logged import Log
from nfmailguard.transcripts.model import Dialogue, Line, Part, hidden, parts
from nfmailguard.transcripts.reasons import SETTING_OF, note, reason, source
from nfmailguard.transcripts.recorded import dialogues
from nfmailguard.transcripts.translated import translated
from tests.support.captures import RAW, Conversation, framed, mail, pcap

#: What a peer might say to take a page or a terminal over.
HOSTILE = (
    b"220 </script><script>alert(1)</script> <!-- --> ]]> &lt; \x1b]0;owned\x07\x1b[2J \xe2\x80\xae\xc2\x9b31m "
    b'\xe2\x80\xa8 \' onload="x" javascript:alert(1)\r\n'
)


def made(profile: str, text: str) -> Dialogue:
    policy, turns = load_profile(profile), parse(text)
    return translated(policy, turns, translate(policy, turns), apply=True)


def shown(one: Dialogue, width: int = 120) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, no_color=True, width=width)
    ladder.render([one], console)
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())


def data_of(page: str) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


def run(*argv: str | Path) -> Result:
    result = CliRunner().invoke(cli, [*map(str, argv)])
    assert isinstance(result.exception, SystemExit | ConfigError | None), result.output
    return result


def test_changed_bytes_are_cut_out_at_the_same_places_on_both_sides() -> None:
    sent, seen = parts(Line(True, b"EHLO me\r\n", b"XXXX me\r\n"))
    assert sent == [Part("EHLO", True), Part(" me", False)]
    assert seen == [Part("XXXX", True), Part(" me", False)]


def test_an_unchanged_line_stands_once_and_one_that_did_not_arrive_is_all_changed() -> None:
    assert parts(Line(True, b"NOOP\r\n", b"NOOP\r\n")) == ([Part("NOOP", False)], None)
    assert parts(Line(True, b"NOOP\r\n", None)) == ([Part("NOOP", True)], None)


def test_of_a_very_long_line_the_beginning_is_shown_and_a_change_further_on_said() -> None:
    sent, seen = parts(Line(True, b"a" * 5000, b"a" * 4999 + b"X"))
    assert seen is not None
    assert (sent[-1], seen[-1]) == (Part(" ... (3,000 more bytes)", True),) * 2
    assert sent[0] == Part("a" * 2000, False)


def test_a_finding_stands_beside_its_line_with_reason_and_source() -> None:
    one = made("asa", "S: 220 mx\nC: EHLO a\nS: 250-mx\nS| 250 STARTTLS\nC: XFOO a\n")
    noted = {line.sent: [(found.finding, found.reason, found.source) for found in line.notes] for line in one.lines}
    assert noted[b"250 STARTTLS\r\n"] == [
        (
            "reply.keyword_masked",
            "the EHLO keyword STARTTLS is hidden by this profile",
            "S-ZIM, S-DEI, S-UBU, S-NIB; BINARYMIME inferred, CHECKPOINT unverified",
        )
    ]
    assert noted[b"XFOO a\r\n"] == [
        ("command.denied", "the verb XFOO is not let through by this profile", "S-COMM2, S-FWSM3: fifteen verbs")
    ]
    assert noted[b"EHLO a\r\n"] == []


def test_every_finding_has_a_reason_and_every_setting_named_is_one() -> None:
    for spec in FINDINGS[1:]:
        assert reason(spec.name, "x")
        assert source(spec.name, "asa") or spec.name in SETTING_OF or spec.name.partition(".")[0] in ("mime", "bdat")
    keys = {
        f"{part}.{key}"
        for name in ("banner", "commands", "replies", "address", "data", "bugs")
        for part, key in ((name, key) for key in getattr(load_profile("asa"), name).__struct_fields__)
    }
    assert set(SETTING_OF.values()) <= keys
    assert set(SETTING_OF) <= {spec.name for spec in FINDINGS}


def test_a_profile_of_ones_own_gives_its_own_comments_as_sources(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[commands]\nallow = ["HELO"]  # our lab, 2024-03-01\n')
    assert source("command.denied", str(mine)) == "our lab, 2024-03-01"
    assert source("command.denied", str(tmp_path / "gone.toml")) == ""


@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_names_a_source_for_what_it_denies(profile: str) -> None:
    allow = load_profile(profile).commands.allow
    assert source("command.denied", profile) or allow == ("*",)


def test_secrets_of_auth_are_on_neither_side() -> None:
    one = made("asa", "S: 220 mx\nC: AUTH PLAIN AHVzZXIAc2VjcmV0\nS: 235 ok\nC: AUTH LOGIN\nS: 334 VXNl\nC: c2VjcmV0\n")
    text = shown(one)
    assert "AHVzZXI" not in text
    assert "c2VjcmV0" not in text
    assert "AUTH PLAIN [hidden]" in text
    assert [len(line.sent) for line in one.lines][1] == len(b"AUTH PLAIN AHVzZXIAc2VjcmV0\r\n")


def test_a_secret_behind_a_masked_auth_is_hidden_as_well() -> None:
    assert b"AHVz" not in b"".join(line.sent + (line.seen or b"") for line in made("pix63", "C: AUTH PLAIN AHVz").lines)


def test_a_terminal_shows_marks_that_need_no_colour() -> None:
    text = shown(made("asa", "S: 220 mx\nC: XFOO\nC: NOOP " + "a" * 600 + "\n"), 130)
    lines = text.splitlines()
    assert any(line.startswith(" ≠") and "220 **" in line and "220 mx" in line for line in lines)
    assert any(line.startswith(" ✕") and "(not delivered)" in line for line in lines)
    assert "S-COMM2" in text
    assert ladder.LEGEND in text


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
@pytest.mark.parametrize("profile", ["pix63", "asa"])
def test_at_every_width_all_is_there_and_nothing_sticks_out(profile: str, width: int) -> None:
    one = made(
        profile, "S: 220 mail2.example.com ESMTP Postfix 2020\nC: EHLO me\nS: 250-mx\nS| 250 STARTTLS\nC: XFOO a\n"
    )
    text = shown(one, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("≠") >= 3 + 1  # and in the legend
    words = re.sub(r"\s+", "", text)
    for told in (found for line in one.lines for found in line.notes):
        assert told.finding in text
        assert re.sub(r"\s+", "", told.source)[:12] in words


def test_a_narrow_terminal_has_the_findings_under_their_lines() -> None:
    text = shown(made("asa", "S: 220 mx\nC: XFOO\n"), 60)
    assert max(map(len, text.splitlines())) <= 60
    assert "command.denied" in text


def test_no_byte_of_a_peer_reaches_a_terminal_raw() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    hostile = [Line(False, HOSTILE, HOSTILE.replace(b"o", b"*"), 1, [note("reply.malformed", "log", "asa")])]
    ladder.render([Dialogue("\x1b[2Jtitle", "\x1b]0;x\x07", "\u202e", hostile, "\x9b")], console)
    assert isinstance(console.file, io.StringIO)
    text = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())
    assert text.replace("\n", "").isprintable()
    assert "\\x1b]0;owned" in text.replace("\n", "").replace(" ", "")


def test_no_byte_of_a_peer_becomes_markup_in_a_page() -> None:
    hostile = [
        Line(to_server, HOSTILE, seen, 1, [note("command.denied", "mask", "asa", what="</script><b>")])
        for to_server in (True, False)
        for seen in (HOSTILE, HOSTILE.replace(b"a", b"*"), None)
    ]
    title = "</title><script>alert(1)</script>\x1b\u202e"
    facts = [pages.Facts("<i>", ("<b>",), [["<script>alert(2)</script>\u202e"]])]
    page = pages.page(title, [Dialogue(title, title, title, hostile, title)], lead=title, facts=facts)
    assert len(re.findall(r"<script", page)) == 2  # the data, and the page's own
    assert "alert(1)</script>" not in page
    assert "alert(2)</script>" not in page
    assert not set("\x1b\x07\x9b\u202e\u2028") & set(page)
    line = data_of(page)["dialogues"][0]["lines"][0]  # type: ignore[index]
    assert line[2].startswith("220 </script><script>alert(1)")


def test_a_page_asks_for_nothing_from_outside() -> None:
    page = pages.page("x", [made("pix63", "S: 220 mx\nC: EHLO a\n")])
    assert "default-src &#x27;none&#x27;" in page
    assert not re.search(r"https?://|\bsrc=|@import|url\(|<link|<img|<iframe|\beval\(|innerHTML", page)


def test_the_same_note_stands_once_in_a_page() -> None:
    data = data_of(pages.page("x", [made("pix63", "S: 220 mx\n" + "C: EHLO a\n" * 10)]))
    assert len(data["notes"]) == 2
    assert [line[4] for line in data["dialogues"][0]["lines"][1:]] == [[1]] * 10  # type: ignore[index]


def captured(tmp_path: Path, talk: Conversation | None = None) -> Path:
    path = tmp_path / "in.pcap"
    path.write_bytes(pcap(framed(talk or mail()), RAW))
    return path


def test_replay_shows_both_sides_and_the_reason(tmp_path: Path) -> None:
    result = run("replay", captured(tmp_path), "--mode", "enforce", "--profile", "pix63", "--transcript")
    assert "enforce pix63, 10.0.1.2 port 40000 to 10.0.2.2 port 25, 2 lines changed" in result.output
    assert "XXXX a" in result.output
    assert "command.denied: mask; the verb EHLO is not let through" in " ".join(result.output.split())


def test_replay_writes_a_page_for_its_owner_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("replay", captured(tmp_path), "--mode", "enforce", "--profile", "pix63", "--report", page)
    assert page.stat().st_mode & 0o777 == 0o600
    (one,) = data_of(page.read_text())["dialogues"]
    lines = one["lines"]
    assert isinstance(lines, list)
    assert lines[0][:4] == [0, 0, ["220 ", "mx.example ESMTP"], ["220 ", "****************"]]
    assert lines[1][2:4] == [["", "EHLO", " a"], ["", "XXXX", " a"]]
    assert lines[3][2:] == ["HELO a", 0, []]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pcap", "page.html"]


def test_a_watching_replay_shows_what_would_be_done(tmp_path: Path) -> None:
    result = run("replay", captured(tmp_path), "--profile", "pix63", "--transcript")
    assert "0 lines changed" in result.output
    assert "command.denied: would mask; the verb EHLO" in " ".join(result.output.split())


def test_a_page_of_another_suffix_is_refused(tmp_path: Path) -> None:
    result = run("replay", captured(tmp_path), "--report", tmp_path / "x.pdf")
    assert "name it FILE.html" in str(result.exception)
    assert not (tmp_path / "x.pdf").exists()


def test_translate_writes_a_page(tmp_path: Path) -> None:
    text = tmp_path / "d.txt"
    text.write_text("S: 220 mx\nC: EHLO a\n")
    run("translate", text, "--profile", "pix63", "--report", tmp_path / "p.html")
    assert data_of((tmp_path / "p.html").read_text())["dialogues"][0]["changes"] == 2


def test_translate_shows_several_profiles_one_after_the_other(tmp_path: Path) -> None:
    text = tmp_path / "d.txt"
    text.write_text("S: 220 mx\nC: EHLO a\nS: 250-mx\nS: 250 STARTTLS\n")
    page = tmp_path / "p.html"
    done = run("translate", text, "--profile", "pix63", "--also", "asa", "--also", "rfc821", "--report", page)
    assert re.findall("^# (\\w+): ", done.output, re.MULTILINE) == ["pix63", "asa", "rfc821"]
    assert [one["changes"] for one in data_of(page.read_text())["dialogues"]] == [2, 2, 1]


@pytest.mark.parametrize("family", [4, 6])
def test_two_captures_of_a_tap_give_both_sides(tmp_path: Path, family: int) -> None:
    source, left = captured(tmp_path, mail(family)), tmp_path / "out.pcap"
    run("replay", source, left, "--mode", "enforce", "--profile", "pix63")
    (one,), lost = dialogues(source, left)
    assert lost == 0
    assert [(line.sent, line.seen) for line in one.lines if line.changed] == [
        (b"220 mx.example ESMTP\r\n", b"220 ****************\r\n"),
        (b"EHLO a\r\n", b"XXXX a\r\n"),
    ]
    assert [line.to_server for line in one.lines[:4]] == [False, True, False, True]


def test_one_capture_alone_has_one_side(tmp_path: Path) -> None:
    result = run("transcript", captured(tmp_path))
    assert "EHLO a" in result.output
    assert "≠" not in result.output.replace(ladder.LEGEND, "")


def test_segments_out_of_order_and_twice_are_read_as_a_receiver_does(tmp_path: Path) -> None:
    talk = Conversation()
    talk.server(b"220 mx\r\n")
    first = talk.client(b"EHLO a\r\nMAIL FR")
    talk.client(b"OM:<a@example>\r\n")
    talk.packets[-2:] = reversed(talk.packets[-2:])
    talk.packets.append((True, first.replace(b"EHLO a", b"EVIL a")))  # of a retransmission the first copy counts
    (one,), _ = dialogues(captured(tmp_path, talk), None)
    assert [line.sent for line in one.lines] == [b"220 mx\r\n", b"EHLO a\r\n", b"MAIL FROM:<a@example>\r\n"]


def test_a_made_up_sequence_number_is_no_gap_of_gigabytes(tmp_path: Path) -> None:
    talk = Conversation()
    talk.server(b"220 mx\r\n")
    talk.sent[False] += 1_500_000_000
    talk.server(b"250 far away\r\n")
    talk.sent[False] -= 1_500_000_000
    talk.sent[False] += 1000
    talk.server(b"250 behind a gap\r\n")
    (one,), _ = dialogues(captured(tmp_path, talk), None)
    assert [len(line.sent) for line in one.lines] == [8, 1000 + len(b"250 far away\r\n") + len(b"250 behind a gap\r\n")]


def test_what_is_in_tls_is_said_in_bytes(tmp_path: Path) -> None:
    talk = Conversation()
    for server, said in (
        (True, b"220 mx\r\n"), (False, b"STARTTLS\r\n"), (True, b"220 go\r\n"),
        (False, b"\x16\x03\x01\n\n123"), (False, b"456"), (True, b"\x16\x03\x03\n"),
    ):  # fmt: skip
        talk.send(not server, said)
    (one,), _ = dialogues(captured(tmp_path, talk), None)
    assert [line.what for line in one.lines] == ["", "", "", "TLS: 11 bytes", "TLS: 4 bytes"]


def test_a_damaged_capture_and_what_is_none(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(captured(tmp_path).read_bytes()[:-200])
    assert "EHLO a" in run("transcript", cut).output
    other = tmp_path / "other.txt"
    other.write_text("hello\nworld\n")
    result = run("transcript", other)
    assert "neither a capture nor an event log" in str(result.exception)
    assert "name one capture" in str(run("transcript", cut, other).exception)


def test_an_event_log_gives_what_was_found_line_by_line(tmp_path: Path) -> None:
    eve = tmp_path / "eve.json"
    run("replay", captured(tmp_path), "--mode", "enforce", "--profile", "pix63", "--events", eve)
    result = run("transcript", eve, "--report", tmp_path / "p.html")
    assert result.exit_code == 0, result.output
    (one,) = data_of((tmp_path / "p.html").read_text())["dialogues"]
    assert one["title"] == "enforce pix63"
    lines = one["lines"]
    assert isinstance(lines, list)
    assert [line[2] for line in lines[:2]] == [["220 ", "mx.example ESMTP"], ["", "EHLO", " a"]]
    assert lines[2][2].startswith("mail from a@example to b@example, ")


def test_lines_that_are_no_events_are_counted_and_none_raises() -> None:
    log = Log()
    log.read(
        [
            b"{", b"[]", b"3", b"{}", b'{"event_type":"mailguard"}', b'{"event_type":["x"]}', b"\xff\xfe",
            b'{"event_type":"flow","flow_id":{},"flow":3,"timestamp":"x"}', b"\n",
            b'{"event_type":"flow","flow_id":1,"flow":{},"timestamp":"9999-12-31T23:59:59.999999-2359"}',
            b'{"event_type":"flow","flow_id":1,"flow":{},"timestamp":"0001-01-01T00:00:00.000000+2359"}',
            (b'{"event_type":"mailguard","flow_id":1,"timestamp":"2026-11-24T16:20:00.000123+0000","src_ip":1,'
            b'"src_port":2,"dest_ip":3,"dest_port":4,"direction":5,"mailguard":{"mode":"x","profile":"nosuch","finding":'
            b'"no.such","action":7,"applied":1,"before":"\\u001b[2J"}}'),
        ]
    )  # fmt: skip
    assert log.unreadable == 9  # the one of an event that is not shown is none of them
    (one,) = log.dialogues
    assert shown(one).replace("\n", "").isprintable()


def test_hidden_leaves_other_lines_as_they_are() -> None:
    lines = [Line(True, b"AUTH LOGIN\r\n", None), Line(False, b"334-x\r\n", None), Line(True, b"NOOP\r\n", None)]
    assert list(hidden(lines)) == lines


def test_a_log_names_no_file_that_is_read(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[commands]\nallow = ["HELO"]  # ours\n')
    eve = tmp_path / "eve.json"
    run("replay", captured(tmp_path), "--mode", "enforce", "--profile", "pix63", "--events", eve)
    text = eve.read_text()
    for name, said in (("pix63", "RFC 821 4.5.1"), (str(mine), "")):
        log = Log()
        log.read(text.replace('"profile":"pix63"', f'"profile":"{name}"').encode().splitlines())
        assert [said in found.source for line in log.dialogues[0].lines for found in line.notes][-1]
        assert not any("ours" in found.source for line in log.dialogues[0].lines for found in line.notes)


def test_a_connection_of_another_start_of_the_gateway_is_another_dialogue(tmp_path: Path) -> None:
    eve = tmp_path / "eve.json"
    run("replay", captured(tmp_path), "--mode", "enforce", "--profile", "pix63", "--events", eve)
    log = Log()
    log.read(eve.read_bytes().splitlines())
    log.read(eve.read_bytes().replace(b'"src_port":40000', b'"src_port":40001').splitlines())
    assert len(log.dialogues) == 2
