"""``verify`` and ``profile diff``: what a box does otherwise is found, named, and nothing else is."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from nfmailguard.cli import cli
from nfmailguard.errors import ConfigError
from nfmailguard.policy.load import load_profile, override, profile_names
from nfmailguard.policy.model import Policy
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.transcript import parse, rows, shown
from nfmailguard.transcripts.model import Dialogue, Line
from nfmailguard.verify.comparing import MOST_BYTES, Side, compare
from nfmailguard.verify.difference import differences
from nfmailguard.verify.explaining import explain
from nfmailguard.verify.given import written
from tests.support.captures import RAW, framed, frames, mail, pcap

DIALOGUE = """\
S: 220-mail2.example.com ESMTP 20 of 2024
S| 220 welcome
C: EHLO client.example.net
S: 250-mail2.example.com
S| 250-PIPELINING
S| 250-SIZE 1000000
S| 250-VRFY
S| 250-STARTTLS
S| 250-AUTH=LOGIN PLAIN
S| 250-CHUNKING
S| 250 8BITMIME
C: VRFY postmaster
S: 252 perhaps
C: XFOO bar
S: 500 what?
C: MAIL FROM:<a|b@example.net>
S: 250 ok
C: RCPT TO:<c@example.com>
S: 250 ok
C: DATA
S: 354 go on
C: Subject: x
C| X-Long: {header}
C|
C| {body}
C| .
S: 250 queued
C: NOOP {long}
S: 250 ok
C: QUIT
S: 221 bye
"""
TEXT = DIALOGUE.format(header="h" * 100, body="b" * 100, long="n" * 100)
LONG = DIALOGUE.format(header="h" * 1200, body="b" * 1200, long="n" * 700)


def through(policy: Policy, text: str = TEXT) -> Dialogue:
    """A dialogue as a box of this policy lets it through; packets keep their lines together."""
    turns = parse(text)
    lines = [Line(row.to_server, row.sent, row.seen) for row in rows(turns, translate(policy, turns))]
    at = 0
    for number, turn in enumerate(turns):
        for _ in turn.data.splitlines():
            lines[at].time = number
            at += 1
    return Dialogue("box", "client", "server", lines)


def run(*argv: str | Path) -> Result:
    result = CliRunner().invoke(cli, [*map(str, argv)])
    assert isinstance(result.exception, SystemExit | ConfigError | None), result.output
    return result


@pytest.mark.parametrize("text", [TEXT, LONG])
@pytest.mark.parametrize("profile", profile_names())
def test_a_box_agrees_with_its_own_profile(profile: str, text: str) -> None:
    policy = load_profile(profile)
    assert compare(policy, through(policy, text)).differing == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("banner.rule", "b51", "banner.rule: b51"),
        ("banner.rule", "none", "banner.rule: none"),
        ("banner.multiline", "star_dash", "banner.multiline: star_dash"),
        ("banner.separator", "no", "banner.separator: no"),
        ("commands.unknown", "noop", "commands.unknown: noop"),
        ("commands.letter", "x", "commands.letter: x"),
        ("commands.allow", "-VRFY", "commands.allow: remove VRFY"),
        ("commands.allow", "+XFOO", "commands.allow: add XFOO"),
        ("replies.keywords", "+STARTTLS", "replies.keywords: add STARTTLS"),
        ("replies.keywords", "-SIZE", "replies.keywords: remove SIZE"),
        ("replies.keyword_end", " ", "replies.keyword_end: ' '"),
        ("replies.ehlo", "none", "replies.ehlo: none"),
        ("address.characters", "|", "address.characters: |"),
    ],
)
def test_a_planted_difference_is_found_and_no_other(key: str, value: str, words: str) -> None:
    asa = load_profile("asa")
    part, _, name = key.partition(".")
    if value[0] in "+-" and isinstance(getattr(getattr(asa, part), name), tuple):
        known = [word for word in getattr(getattr(asa, part), name) if word != value[1:]]
        value = msgspec.json.encode([*known, value[1:]] if value[0] == "+" else known).decode()
    box = override(asa, {key: value})
    found = [compare(asa, through(box))]
    assert found[0].differing
    changes, explained = explain(asa, found, Side.CLIENT)
    assert len(changes) == 1
    assert words in (changes[0].words, *changes[0].alternatives)
    assert compare(explained, through(box)).differing == []


def test_a_limit_that_a_box_does_not_have_is_found() -> None:
    asa = load_profile("asa")
    box = override(asa, {"commands.line_length": "none", "data.header_line_length": "none"})
    found = [compare(asa, through(box, LONG))]
    changes, explained = explain(asa, found, Side.CLIENT)
    assert compare(explained, through(box, LONG)).differing == []
    assert {change.words.partition(":")[0] for change in changes} <= {
        "data.header_line_length", "commands.line_length", "actions.header.line_too_long", "actions.command.too_long"
    }  # fmt: skip


def test_several_differences_are_found_together() -> None:
    asa = load_profile("asa")
    box = override(asa, {"address.characters": "|", "banner.rule": "b51", "commands.unknown": "noop"})
    changes, explained = explain(asa, [compare(asa, through(box))], Side.CLIENT)
    named = [{change.words, *change.alternatives} for change in changes]
    assert len(named) == 3
    for words in ("address.characters: |", "banner.rule: b51", "commands.unknown: noop"):
        assert any(words in one for one in named)
    assert compare(explained, through(box)).differing == []


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("profile", profile_names())
def test_one_side_of_a_box_agrees_with_its_profile(profile: str, side: Side) -> None:
    policy = load_profile(profile)
    both = through(policy)
    lines = []
    for line in both.lines:
        came_through = line.to_server is (side is Side.SERVER)
        said = line.seen if came_through else line.sent
        if said is not None:
            lines.append(Line(line.to_server, said, said, line.time, one_sided=True))
    found = compare(policy, msgspec.structs.replace(both, lines=lines), side)
    assert [(one.line.sent, one.expected) for one in found.differing] == []


def test_one_side_without_a_box_differs_from_one() -> None:
    one = written("S: 220 mx ESMTP\nC: EHLO me\nS: 250-mx\nS: 250 STARTTLS\n", "d")
    found = compare(load_profile("asa"), one)
    assert [seen.line.sent for seen in found.differing] == [b"220 mx ESMTP\r\n", b"250 STARTTLS\r\n"]


def test_masked_lines_differ_from_a_profile_that_masks_nothing() -> None:
    one = written("S: 220 ********************\nC: EHLO me\nS: 250-mx\nS: 250 XXXXXXXA\n", "d")
    found = compare(load_profile("rfc821"), one)
    assert [seen.line.sent for seen in found.differing] == [b"220 ********************\r\n", b"250 XXXXXXXA\r\n"]
    changes, _ = explain(load_profile("rfc821"), [found], Side.CLIENT)
    assert [change.words for change in changes] == ["banner.rule: b44", "replies.ehlo: e1"]
    assert changes[0].alternatives == ("banner.rule: b51", "banner.rule: basa", "replies.ehlo: e1")


def test_what_translate_prints_is_what_verify_reads(tmp_path: Path) -> None:
    text = tmp_path / "d.txt"
    text.write_text(TEXT.replace("S| ", "S: ").replace("C| ", "C: ").replace("C|", "C: "))
    seen = tmp_path / "seen.txt"
    seen.write_text(run("translate", text, "--profile", "asa").output)
    done = run("verify", seen, "--profile", "asa")
    assert done.exit_code == 0, done.output
    assert "lines agree in 1 dialogue" in done.output
    done = run("verify", seen, "--profile", "pix63")
    assert done.exit_code == 1
    assert "these settings would explain it:" in done.output
    assert "closest of the profiles: asa" in done.output


def sides(tmp_path: Path, profile: str) -> tuple[Path, Path, Path, Path]:
    """What came to a gateway and what left it; what went by on its client's side, and on its server's."""
    came, left = tmp_path / "in.pcap", tmp_path / "out.pcap"
    talk = mail()
    came.write_bytes(pcap(framed(talk), RAW))
    run("replay", came, left, "--mode", "enforce", "--profile", profile)
    both = [frames(path.read_bytes()) for path in (came, left)]
    to_server = [direction for direction, _ in talk.packets]
    client, server = tmp_path / "client.pcap", tmp_path / "server.pcap"
    client.write_bytes(pcap([both[0 if up else 1][at] for at, up in enumerate(to_server)], RAW))
    server.write_bytes(pcap([both[1 if up else 0][at] for at, up in enumerate(to_server)], RAW))
    return came, left, client, server


def test_captures_of_both_sides_and_of_a_tap_say_the_same(tmp_path: Path) -> None:
    came, left, client, server = sides(tmp_path, "pix63")
    for files in ([came, left], ["--sides", client, server]):
        done = run("verify", *files, "--profile", "pix63")
        assert done.exit_code == 0, done.output
        assert "changed by the box as the profile says: 2 lines" in done.output
        done = run("verify", *files, "--profile", "asa", "--json")
        assert done.exit_code == 1
        found = json.loads(done.output)
        assert [line["sent"] for line in found["dialogues"][0]["differing"]] == ["EHLO a\\x0d\\x0a"]
        assert found["unexplained"] == 0
    shown_sides = run("transcript", "--sides", client, server).output
    assert "220 **" in shown_sides
    assert "XXXX a" in shown_sides


@pytest.mark.parametrize(
    ("side", "profile", "code"), [("client", "pix63", 0), ("server", "pix63", 0), ("client", "rfc821", 1)]
)
def test_a_capture_of_one_side(tmp_path: Path, side: str, profile: str, code: int) -> None:
    _, _, client, server = sides(tmp_path, "pix63")
    done = run("verify", client if side == "client" else server, "--side", side, "--profile", profile)
    assert done.exit_code == code, done.output
    assert "one side only" in done.output


def test_an_imported_configuration_in_place_of_a_profile(tmp_path: Path) -> None:
    box = tmp_path / "running-config.txt"
    box.write_text(
        "policy-map type inspect esmtp MINE\n parameters\n  no mask-banner\npolicy-map global_policy\n"
        " class inspection_default\n  inspect esmtp MINE\nservice-policy global_policy global\n"
    )
    seen = tmp_path / "d.txt"
    seen.write_text("S: 220 mx\nC: EHLO me\nS: 250-mx\nS: 250-STARTTLS\nS: 250 SIZE\nC: XFOO a\nC> XXXX a\n")
    done = run("verify", seen, "--config", box)
    assert done.exit_code == 0, done.output
    seen.write_text("S: 220 mx\nS> 220 **\n")
    done = run("verify", seen, "--config", box)
    assert done.exit_code == 1
    assert "banner.rule: " in done.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "d:1: 'hello'; a line begins with"),
        ("S> 220", "d:1: what arrived stands behind the line that was sent"),
        ("C: a\nS> b", "d:2: what arrived stands behind"),
        ("# nothing\n", "d: no line of a dialogue in it"),
    ],
)
def test_what_is_no_transcript_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        written(text, "d")


def test_of_a_long_dialogue_the_beginning_is_compared() -> None:
    asa = load_profile("asa")
    lines = [Line(False, b"220 mx\r\n", b"220 **\r\n")] + [Line(True, b"x" * 999 + b"\n", None)] * 400
    found = compare(asa, Dialogue("d", "client", "server", lines))
    assert found.cut
    assert len(found.seen) * 1000 < MOST_BYTES + 1000
    assert found.seen[0].agrees


@pytest.mark.parametrize("profile", profile_names())
def test_a_profile_does_not_differ_from_itself(profile: str) -> None:
    assert list(differences(load_profile(profile), load_profile(profile))) == []
    assert run("profile", "diff", profile, profile).exit_code == 0


@pytest.mark.parametrize(("left", "right"), [*pairwise(profile_names()), ("pix63", "asa")])
def test_every_difference_of_two_profiles_has_a_meaning(left: str, right: str) -> None:
    policies = load_profile(left), load_profile(right)
    found = list(differences(*policies))
    assert all(one.meaning and one.left != one.right for one in found)
    same = {
        field: getattr(policies[0], field) == getattr(policies[1], field) for field in ("banner", "commands", "data")
    }
    named = {one.setting.partition(".")[0] for one in found}
    assert {field for field, equal in same.items() if not equal} <= named


def test_a_difference_says_what_becomes_of_a_dialogue() -> None:
    text = run("profile", "diff", "asa", "asa-tls").output
    assert "STARTTLS pass under asa-tls, and masked under asa" in text
    assert "STARTTLS are shown to the client under asa-tls, and hidden under asa" in text
    assert "`XFOO argument`" not in text
    assert "`220-mail2.example ESMTP 20 of 2024` becomes" in run("profile", "diff", "pix63", "asa").output
    assert shown(b"x\r\n") == "x"
