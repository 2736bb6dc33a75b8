"""`lab compare` without a network: what is chosen and missing, how mails and last words are read, what is shown."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import msgspec
import pytest

from nfmailguard.errors import ConfigError, LabError
from nfmailguard.lab.account import PASSWORD, USER
from nfmailguard.lab.matrix import command, receivers, senders
from nfmailguard.lab.matrix.cells import CLIENTS, MODES, SERVERS, Cell, Choice, Outcome
from nfmailguard.lab.matrix.expected import expect, surprises
from nfmailguard.lab.matrix.lane import Try, judged
from nfmailguard.lab.matrix.passwords import answer
from nfmailguard.lab.matrix.receivers import Spool, Taken
from nfmailguard.lab.matrix.report import Seen, as_json, groups, page, show
from nfmailguard.lab.matrix.senders import Sent, last_words
from nfmailguard.policy.load import profile_names
from nfmailguard.reports.console import Console


def test_nothing_named_is_everything() -> None:
    assert command.chosen((), (), (), ()) == Choice([*CLIENTS], [*SERVERS], profile_names(), [*MODES])
    some = command.chosen(("curl", "swaks", "curl"), ("exim",), ("pix63", "asa"), ("monitor",))
    assert some == Choice(["swaks", "curl"], ["exim"], ["asa", "pix63"], ["monitor"])


@pytest.mark.parametrize("axis", range(4))
def test_an_unknown_name_is_refused_with_the_known_ones(axis: int) -> None:
    named = [()] * 4
    named[axis] = ("exchange",)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=r"^--\w+ exchange: unknown here; one of \w+"):
        command.chosen(*named)


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "UNPACKED", tmp_path)
    monkeypatch.setattr(senders.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(receivers, "unpacked", lambda *_: False)
    monkeypatch.setattr(receivers, "installed", lambda: False)
    with pytest.raises(LabError) as error:
        command.check_machine(command.chosen((), (), (), ()))
    (line,) = error.value.lines
    for name in (
        "swaks (apt-get install swaks",
        "msmtp (",
        "curl (",
        "nodemailer (",
        "exim (",
        "sendmail (",
        "postfix (",
    ):
        assert line.count(name) == 1
    assert "deploy/setup compare" in line
    assert "smtplib" not in line
    command.check_machine(command.chosen(("smtplib",), ("aiosmtpd",), (), ()))


def test_servers_that_change_users_want_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "may_change_users", lambda: False)
    monkeypatch.setattr(receivers, "unpacked", lambda *_: True)
    with pytest.raises(LabError, match="exim change users, which takes root"):
        command.check_machine(command.chosen(("smtplib",), ("exim", "aiosmtpd"), (), ()))
    command.check_machine(command.chosen(("smtplib",), ("aiosmtpd",), (), ()))


def plain(password: str) -> str:
    return base64.b64encode(f"\0{USER}\0{password}".encode()).decode()


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (f"AUTH\t7\tPLAIN\tservice=smtp\tresp={plain(PASSWORD)}\n", "OK\t7"),
        (f"AUTH\t7\tPLAIN\tservice=smtp\tresp={plain('other')}\n", "FAIL\t7"),
        ("AUTH\t7\tPLAIN\tservice=smtp\n", "CONT\t7\t\n"),
        (f"CONT\t7\t{plain(PASSWORD)}\n", "OK\t7"),
        ("CONT\t7\t%%%\n", "FAIL\t7"),
        ("CPID\t12\n", ""),
        ("VERSION\t1\t1\n", ""),
        ("AUTH\n", ""),
    ],
)
def test_postfix_is_told_who_has_the_password(line: str, reply: str) -> None:
    assert answer(line).startswith(reply)
    assert bool(answer(line)) is bool(reply)


@pytest.mark.parametrize(
    ("client", "output", "words"),
    [
        ("swaks", " -> MAIL\n<** 503 HELO first\n -> QUIT\n<-  221 bye\n=== Connection closed\n", "503 HELO first"),
        ("swaks", "*** Remote host closed connection unexpectedly.\n", "Remote host closed connection unexpectedly."),
        ("curl", "> MAIL\n< 503 first\n* Closing\ncurl: (55) MAIL failed: 503\n", "503 first"),
        ("msmtp", "msmtp: the server does not support TLS via the STARTTLS command\nmsmtp: could not send mail\n",
         "the server does not support TLS via the STARTTLS command"),
        ("smtplib", "SMTPSenderRefused: (503, b'x')\n", "SMTPSenderRefused: (503, b'x')"),
        ("nodemailer", "", "nothing"),
    ],
)  # fmt: skip
def test_the_line_that_says_why_is_found(client: str, output: str, words: str) -> None:
    assert last_words(client, output) == words


BODY = b"one\n\n.two\n"
FULL = b"Received: from c by s with %s id 1;\nSubject: enforce7\n\n" + BODY


@pytest.mark.parametrize(
    ("kind", "files", "protocol"),
    [
        ("postfix", {"mail/box/new/1": FULL % b"ESMTPSA"}, "ESMTPSA"),
        ("opensmtpd", {"queued/smtpd/queue/a/b/message": FULL % b"ESMTP"}, "ESMTP"),
        ("aiosmtpd", {"1-1.eml": (FULL % b"SMTP").replace(b"\n", b"\r\n")}, "SMTP"),
        ("exim", {"spool/input/1a-H": b"1a-H\n-received_protocol esmtps\n\n018  Subject: enforce7\n",
                  "spool/input/1a-D": b"1a-D\n" + BODY}, "ESMTPS"),
        ("sendmail", {"spool/qf1": b"V8\nHReceived: from c by s with ESMTPS id 1\nH??Subject: enforce7\n.\n",
                      "spool/df1": BODY}, "ESMTPS"),
    ],
)  # fmt: skip
def test_a_mail_is_read_from_where_the_server_puts_it(
    kind: str, files: dict[str, bytes], protocol: str, tmp_path: Path
) -> None:
    spool = Spool(kind, tmp_path)
    assert spool.taken() == []
    for name, octets in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(octets)
    assert spool.taken() == [Taken("enforce7", protocol, BODY)]
    assert spool.taken() == []


CELL = Cell("curl", "exim", "rfc821", "monitor")


def try_of(accepted: bool = True) -> Try:
    return Try(CELL, "monitor1", BODY.replace(b"\n", b"\r\n"), Sent(accepted, 0.25, "" if accepted else "550 no"))


@pytest.mark.parametrize(
    ("mails", "delivered", "damage"),
    [
        ([], False, ""),
        ([Taken("monitor1", "ESMTPSA", BODY)], True, ""),
        ([Taken("monitor1", "ESMTPSA", BODY + b"\n")], False, "its body is another one"),
        ([Taken("monitor1", "ESMTPSA", BODY.replace(b".two", b"two"))], False, "its body is another one"),
        ([Taken("monitor1", "ESMTPSA", BODY)] * 2, False, "it lies there 2 times"),
        ([Taken("monitor1", "ESMTPSA", BODY.replace(b"t", b"=74"))], True, ""),
    ],
)
def test_delivered_is_what_lies_there_once_byte_for_byte(mails: list[Taken], delivered: bool, damage: str) -> None:
    outcome = judged(try_of(), mails)
    assert (outcome.delivered, outcome.damage) == (delivered, damage)
    logged = msgspec.structs.replace(outcome, log={"command.denied": 1})
    surprise = list(surprises(expect(CELL), logged))
    assert bool(surprise) is not delivered or surprise == ["re-encoding, which it should not have"]


@pytest.mark.parametrize(
    ("protocol", "facts"),
    [
        ("SMTP", (False, False, False)),
        ("ESMTP", (True, False, False)),
        ("ESMTPS", (True, True, False)),
        ("ESMTPA", (True, False, True)),
        ("ESMTPSA", (True, True, True)),
    ],
)
def test_how_it_came_is_the_servers_word(protocol: str, facts: tuple[bool, bool, bool]) -> None:
    outcome = judged(try_of(), [Taken("monitor1", protocol, BODY)])
    assert (outcome.ehlo, outcome.tls, outcome.auth) == facts


def seen(cell: Cell, **changes: object) -> Seen:
    """A cell that came out as expected, but for ``changes``."""
    expected = expect(cell)
    facts = (expected.ehlo, expected.tls, expected.auth) if expected.delivered else (None, None, None)
    outcome = Outcome(
        expected.delivered,
        "",
        expected.encoded,
        *facts,
        0.5,
        expected.delivered,
        expected.said,
        dict.fromkeys(expected.log, 1),
    )
    outcome = msgspec.structs.replace(outcome, **changes)
    return Seen(cell, expected, outcome, tuple(surprises(expected, outcome)))


def matrix(**changes: object) -> list[Seen]:
    profiles = ["asa", "asa-log", "pix40"]
    made = [
        seen(Cell(client, server, profile, mode))
        for mode in MODES for profile in profiles for server in SERVERS for client in CLIENTS
    ]  # fmt: skip
    return [*made, seen(Cell("curl", "exim", "rfc821", "enforce"), **changes)]


def test_profiles_that_came_out_alike_stand_together() -> None:
    found = groups(matrix())
    assert [group.title for group in found] == [
        "enforce: asa, asa-log",
        "enforce: pix40",
        "enforce: rfc821",
        "monitor: asa, asa-log, pix40",
        "restore: asa, asa-log",
        "restore: pix40",
    ]
    assert sum(len(group.seen) for group in found) == len(matrix())
    rows = {row[0]: row[1:] for row in found[1].rows()}
    assert rows["curl"] == ["HELO", "NO 503", "NO 503", "HELO", "NO 503", "0.5 (0.5)"]


HOSTILE = "550 \x1b[31m<script>alert(1)</script>\u202e"


def test_a_surprise_is_marked_and_told_and_what_a_peer_said_is_only_text() -> None:
    made = matrix(delivered=False, accepted=False, said=HOSTILE, ehlo=None, tls=None, auth=None)
    console = Console(file=io.StringIO(), width=100)
    show(console, made, 12.0)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "! NO 550" in text
    assert "! curl -> exim, enforce rfc821: not delivered" in text
    assert f"{len(made) - 1} of {len(made)} as expected" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    written = page(made, 12.0)
    assert "<script" not in written
    assert "Not as expected" in written
    assert "&lt;script&gt;" in written
    rows = as_json(made, 12.0)
    assert (rows["met"], rows["cells"]) == (len(made) - 1, len(made))
    assert json.loads(msgspec.json.encode(rows))["matrix"][-1]["surprises"] == ["not delivered"]


def test_the_page_needs_nothing_else_and_has_each_table() -> None:
    written = page(matrix(), 12.0)
    assert re.search(r"(?:src|href)=", written) is None
    assert written.count("<caption>enforce: ") == 3
    assert "default-src &#x27;none&#x27;" in written
    assert "Not as expected" not in written
    assert "<!--" not in written
