"""What answers say of a path, and the traces a Mailguard leaves in logs and captures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nfmailguard.cli import cli
from nfmailguard.policy.load import load_profile, profile_names
from nfmailguard.probe import traces
from nfmailguard.probe.families import UNKNOWN, family_of
from nfmailguard.probe.features import contradictions, observe
from nfmailguard.probe.talk import NONSENSE, Answer, Talk
from tests.support.captures import RAW, START, Frame, pcap
from tests.support.wire import ACK, PSH, SYN, End, build


def answer(*lines: str) -> Answer:
    return Answer(lines)


def talk(greeting: str = "220 mail.example.com ESMTP", **answers: Answer) -> Talk:
    named = {"NOOP": answer("250 2.0.0 fine"), **{key.replace("_", " "): value for key, value in answers.items()}}
    return Talk(answer(greeting), named)


CLEAR = answer("250-mail.example.com", "250-SIZE 1000", "250-STARTTLS", "250 8BITMIME")


def test_an_ordinary_server_has_nothing_odd() -> None:
    seen = observe(talk(EHLO=CLEAR, **{NONSENSE: answer("502 5.5.2 Error: command not recognized")}), None)
    assert seen.positive == []
    assert (seen.banner, seen.ehlo, seen.masked_keywords) == ("clear", "passed", 0)
    assert seen.keywords == {"SIZE", "STARTTLS", "8BITMIME"}


def test_a_server_that_repeats_what_it_does_not_know_shows_the_mask() -> None:
    seen = observe(talk(**{NONSENSE: answer(f'500 "{"X" * len(NONSENSE)}" unrecognized')}), None)
    assert (seen.nonsense, seen.letter) == ("masked", "X")
    seen = observe(talk(**{NONSENSE: answer(f'500 "{NONSENSE}" unrecognized')}), None)
    assert (seen.nonsense, seen.letter) == ("passed", None)
    longer = observe(talk(**{NONSENSE: answer(f'500 "{"X" * (len(NONSENSE) + 1)}" unrecognized')}), None)
    assert longer.nonsense is None, "other X's are no mask of this verb"


def test_noop_and_ok_are_told_apart() -> None:
    assert observe(talk(**{NONSENSE: answer("250 2.0.0 fine")}), None).nonsense == "made NOOP"
    assert observe(talk(**{NONSENSE: answer("250 OK         ")}), None).nonsense == "answered OK"


@pytest.mark.parametrize(
    ("greeting", "banner", "profiles"),
    [
        ("220 *******2***0***", "stars but 2 and 0", {"pix51", "pix63", "fwsm2"}),
        ("220 *********", "stars", {"pix44", "pix51", "pix63", "fwsm2", "pix70", "asa", "asa-log", "asa-tls", "asa84"}),
        ("220 SMTP/cmap ready______", "cmap", {"pix40", "pix42"}),
        ("220 mail.example.com", "clear", {"ios-smtp", "ios-esmtp", "rfc821"}),
    ],
)
def test_greetings_leave_those_profiles_that_make_them(greeting: str, banner: str, profiles: set[str]) -> None:
    seen = observe(talk(greeting), None)
    assert seen.banner == banner
    left = {name for name in profile_names() if "banner" not in contradictions(seen, load_profile(name))}
    assert left == profiles


def test_every_profile_has_a_family_and_a_remedy() -> None:
    for name in profile_names():
        family = family_of(name)
        assert family is not UNKNOWN
        assert family.off or name == "rfc821"
    assert family_of("acme") is UNKNOWN, "a profile of the operator's own"


LOGS = {
    "postfix": (
        "postfix/smtp[1]: 4F1: enabling PIX workarounds: disable_esmtp delay_dotcrlf for mx.example[192.0.2.1]:25",
        "postfix-workaround",
    ),
    "old postfix": (
        "Nov 25 mx postfix/smtp[1]: 4F1: enabling PIX <CRLF>.<CRLF> workaround for mail.example.com[192.0.2.1]",
        "postfix-workaround",
    ),
    "exim": (
        '2026-11-25 10:00:00 SMTP syntax error in "XXXX mx.example.net" H=[192.0.2.1] unrecognized command',
        "masked-command",
    ),
    "sendmail": (
        'Nov 25 10:00:00 mx sendmail[99]: h1: host: 500 5.5.1 Command unrecognized: "XXXX mx.example.net"',
        "masked-command",
    ),
    "small letters": ('Nov 25 mx postfix/smtpd[1]: 502 Error: command "xxxx" not recognized', "masked-command"),
    "greeting": ("10:00:00 <<< 220 **********2******0*0", "starred-greeting"),
    "keyword": ("10:00:00 smtpd: < 250-XXXXXXXA", "masked-keyword"),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_log_line_is_known(tmp_path: Path, name: str) -> None:
    line, kind = LOGS[name]
    path = tmp_path / "mail.log"
    path.write_text(f"Nov 25 mx postfix/qmgr[1]: removed\n{line}\n{line}\n")
    found = traces.read(path)
    assert [(trace.kind, trace.count, trace.first) for trace in found.traces] == [(kind, 2, "line 2")]
    assert found.exit_code == 1


def test_a_message_that_got_no_answer_has_many_causes(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_text("Nov 25 mx postfix/smtp[1]: 4F1: to=<a@b>, status=deferred (timed out while sending end of data)\n")
    found = traces.read(path)
    assert ([trace.kind for trace in found.traces], found.exit_code) == (["cut-end-of-data"], 3)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Nov 25 mx postfix/smtp[1]: 4F1: to=<a@b>, relay=x, status=sent (250 ok)\n", 0),
        ("Nov 25 mx kernel: XXX\n", 3),
        ("", 3),
        ("Nov 25 mx postfix/smtpd[1]: connect from XXXXL.example\n", 0),
    ],
)
def test_other_files_have_no_traces(tmp_path: Path, text: str, code: int) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    found = traces.read(path)
    assert (found.traces, found.exit_code) == ((), code)


def test_a_capture_is_read_as_monitor_reads_it(tmp_path: Path) -> None:
    ends = End("192.0.2.1", 40000), End("192.0.2.25", 25)
    seq = {True: 1000, False: 5000}
    frames: list[Frame] = []

    def say(to_server: bool, flags: int, payload: bytes = b"") -> None:
        source, target = ends if to_server else ends[::-1]
        packet = build(source, target, seq[to_server], seq[not to_server] if flags & ACK else 0, flags, payload)
        frames.append(Frame(START + len(frames) * 1000, packet))
        seq[to_server] += len(payload) + bool(flags & SYN)

    say(True, SYN)
    say(False, SYN | ACK)
    say(True, ACK)
    for to_server, payload in (
        (False, b"220 ******2****\r\n"),
        (True, b"XXXX mx.example.net\r\n"),
        (False, b"500 what?\r\n"),
    ):
        say(to_server, PSH | ACK, payload)
    path = tmp_path / "mail.pcap"
    path.write_bytes(pcap(frames, RAW))
    found = traces.read(path)
    assert [(trace.kind, trace.shown) for trace in found.traces] == [
        ("upstream.banner_masked", "220 ******2****"),
        ("upstream.command_masked", "XXXX"),
    ]
    assert found.exit_code == 1
    shown = CliRunner().invoke(cli, ["diagnose", str(path)])
    assert shown.exit_code == 1
    assert "a greeting was masked" in " ".join(shown.output.split())
    told = json.loads(CliRunner().invoke(cli, ["diagnose", str(path), "--json"]).output)
    assert told["kind"] == "capture"


@pytest.mark.parametrize("where", ["host:0", "host:x", "[::1]:99999", "host:70000"])
def test_a_port_that_is_none_is_told(where: str) -> None:
    done = CliRunner().invoke(cli, ["probe", where])
    assert done.exit_code == 2
    assert "write HOST, HOST:PORT or [ADDRESS]:PORT" in done.output


def test_nobody_there_is_exit_code_3_and_one_line() -> None:
    command = [sys.executable, "-m", "nfmailguard", "probe", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert done.stderr.startswith("nfmailguard: 127.0.0.1 port 1: Connection refused")
