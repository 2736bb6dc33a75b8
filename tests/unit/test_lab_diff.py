"""``lab diff`` without a lab: its dialogues, how one is played, what is told as a difference, and what explains it."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from nfmailguard.lab import exchanging
from nfmailguard.lab.dialogues import DIALOGUES, GREETING, Dialogue, Step
from nfmailguard.lab.exchanging import play
from nfmailguard.policy.load import load_profile
from nfmailguard.reports import differed
from nfmailguard.verify.paths import Found, How, Played, Taken, differences, explained

DOCS = Path(__file__).parents[2] / "docs" / "lab-diff.md"
NAMES = ("ours", "theirs")


def ends() -> tuple[socket.socket, socket.socket]:
    """Client and server of one connection without a box."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def dialogue(name: str) -> Dialogue:
    return next(one for one in DIALOGUES if one.name == name)


def test_every_dialogue_has_a_name_of_its_own_and_is_in_the_documents() -> None:
    assert max(Counter(one.name for one in DIALOGUES).values()) == 1
    rows = re.findall(r"^\| `([\w.-]+)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE)
    assert rows == [(one.name, one.about) for one in DIALOGUES]
    areas = {one.name.split(".")[0] for one in DIALOGUES}
    assert areas >= {
        "greeting",
        "verb",
        "ehlo",
        "auth",
        "starttls",
        "bdat",
        "pipelining",
        "cut",
        "long",
        "text",
        "reply",
    }


@pytest.mark.parametrize("one", DIALOGUES, ids=lambda one: one.name)
def test_a_dialogue_without_a_box_arrives_as_it_was_sent(one: Dialogue) -> None:
    played = play(one, *ends())
    assert [step.pieces for step in played.steps] == [[], *(list(step.pieces) for step in one.steps)]
    for step in played.steps:
        assert (step.arrived, step.read, step.ended) == (step.sent, step.said, ("", ""))
    if one.greeting:
        assert played.steps[0].read == one.greeting


def between(box: Callable[[socket.socket, socket.socket], None], one: Dialogue) -> Played:
    """A dialogue with ``box`` between its ends."""
    client, outside = ends()
    inside, server = ends()
    thread = threading.Thread(target=box, args=(outside, inside))
    thread.start()
    try:
        return play(one, client, server)
    finally:
        thread.join(20)
        outside.close()
        inside.close()


def _relay(source: socket.socket, target: socket.socket) -> bytes:
    some = source.recv(65536)
    target.sendall(some)
    return some


def test_a_box_that_swallows_a_command_and_says_no_more_ends_the_dialogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanging, "QUIET", 0.3)

    def box(outside: socket.socket, inside: socket.socket) -> None:
        _relay(inside, outside)
        outside.recv(100)

    played = between(box, dialogue("verb.vrfy"))
    assert [(step.sent, step.arrived) for step in played.steps] == [(b"", b""), (b"HELO client.example.net\r\n", b"")]


def test_a_box_that_answers_itself_is_seen() -> None:
    def box(outside: socket.socket, inside: socket.socket) -> None:
        _relay(inside, outside)
        outside.recv(100)
        outside.sendall(b"250 mine\r\n")

    played = between(box, Dialogue("x", "", (Step((b"HELO a\r\n",)),)))
    assert (played.steps[1].arrived, played.steps[1].said, played.steps[1].read) == (b"", b"", b"250 mine\r\n")


def test_a_box_that_resets_is_seen_at_both_ends() -> None:
    def box(outside: socket.socket, inside: socket.socket) -> None:
        _relay(inside, outside)
        outside.recv(100)
        for end in (outside, inside):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

    played = between(box, dialogue("verb.vrfy"))
    assert len(played.steps) == 2
    assert played.steps[1].ended == ("reset", "reset")


def step(sent: bytes, arrived: bytes | None = None, said: bytes = b"250 ok\r\n", read: bytes | None = None) -> Taken:
    came = sent if arrived is None else arrived
    return Taken([sent], came, [(len(came), said)] if said else [], said if read is None else read)


def greeted(read: bytes = GREETING) -> Taken:
    return Taken([], b"", [(0, GREETING)], read)


def played(*steps: Taken, name: str = "one", greeting: bytes = GREETING) -> Played:
    return Played(name, [greeted(greeting), *steps])


def found(left: Played, right: Played) -> list[tuple[How, int | None, bytes]]:
    return [(one.how, one.by, one.sent) for one in differences([left], [right]).differences]


def test_what_arrives_alike_is_no_difference() -> None:
    masked = played(step(b"VRFY x\r\n", b"XXXX x\r\n"), greeting=b"220 ****\r\n")
    assert found(masked, masked) == []


@pytest.mark.parametrize(
    ("left", "right", "how", "by"),
    [
        (step(b"VRFY x\r\n"), step(b"VRFY x\r\n", b"XXXX x\r\n"), How.ONE, 1),
        (step(b"VRFY x\r\n", b"XXXX x\r\n"), step(b"VRFY x\r\n"), How.ONE, 0),
        (step(b"VRFY x\r\n", b"XXXX x\r\n"), step(b"VRFY x\r\n", b"NOOP  \r\n"), How.OTHERWISE, None),
        (step(b"VRFY x\r\n"), step(b"VRFY x\r\n", b"", b""), How.LOST, 1),
        (step(b"VRFY x\r\n"), step(b"VRFY x\r\n", b"XXXX\r\n"), How.ONE, 1),
    ],
)
def test_a_command_that_arrives_otherwise_is_one_difference(
    left: Taken, right: Taken, how: How, by: int | None
) -> None:
    assert found(played(left), played(right)) == [(how, by, b"VRFY x\r\n")]


def test_a_reply_that_arrives_otherwise_is_told_line_by_line() -> None:
    said = b"250-a\r\n250-STARTTLS\r\n250 DSN\r\n"
    left = played(step(b"EHLO a\r\n", said=said, read=b"250-a\r\n250-XXXXXXXA\r\n250 DSN\r\n"))
    right = played(step(b"EHLO a\r\n", said=said, read=b"250-a\r\n250-STARTTLS\r\n250 XXA\r\n"))
    assert found(left, right) == [(How.ONE, 0, b"250-STARTTLS\r\n"), (How.ONE, 1, b"250 DSN\r\n")]


def test_what_follows_from_a_difference_is_none() -> None:
    later = step(b"RCPT TO:<b>\r\n")
    left = played(step(b"MAIL FROM:<a>\r\n"), later)
    right = played(step(b"MAIL FROM:<a>\r\n", b"XXXX FROM:<a>\r\n", b"500 what\r\n"), step(b"RCPT TO:<b>\r\n", b"XXXX"))
    assert found(left, right) == [(How.ONE, 1, b"MAIL FROM:<a>\r\n")]


def test_a_connection_that_only_one_ends_is_told_as_that() -> None:
    gone = step(b"VRFY x\r\n", b"", b"")
    gone.ended = ("reset", "reset")
    assert found(played(step(b"VRFY x\r\n")), played(gone)) == [(How.ENDED, 1, b"VRFY x\r\n")]
    assert found(played(gone), played(gone)) == []


def test_what_every_dialogue_shows_is_told_once() -> None:
    starred = b"220 " + b"*" * (len(GREETING) - 6) + b"\r\n"
    ehlo = step(b"EHLO a\r\n"), step(b"EHLO a\r\n", b"XXXX a\r\n")
    left = [played(ehlo[0], name=name) for name in ("a", "b")]
    right = [played(ehlo[1], name=name, greeting=starred) for name in ("a", "b")]
    all_found = differences(left, right)
    assert [(one.dialogue, one.sent) for one in all_found.differences] == [("a", GREETING), ("a", b"EHLO a\r\n")]
    assert all_found.again == {"b": "a"}
    assert all_found.compared == 2


def test_the_settings_are_named_that_would_do_what_the_other_box_does() -> None:
    starred = b"220 " + b"*" * (len(GREETING) - 6) + b"\r\n"
    helo = step(b"HELO a\r\n")
    names = ("verb.vrfy", "rcpt.pipe")
    left = [
        played(helo, step(b"VRFY x\r\n"), name=names[0], greeting=starred),
        played(helo, step(b"MAIL FROM:<a|b@c.d>\r\n"), name=names[1], greeting=starred),
    ]
    right = [
        played(helo, step(b"VRFY x\r\n", b"XXXX x\r\n"), name=names[0], greeting=starred),
        played(helo, step(b"MAIL FROM:<a|b@c.d>\r\n", b"MAIL FROM:<a b@c.d>\r\n"), name=names[1], greeting=starred),
    ]
    seen = differences(left, right)
    explanation = explained(load_profile("asa"), right, seen)
    assert [one.words for one in explanation.changes] == ["commands.allow: remove VRFY", "address.characters: |"]
    assert explanation.unexplained == 0
    assert [one.settings for one in seen.differences] == [("commands.allow",), ("address.characters",)]
    lines = list(differed.lines(seen, NAMES, {"verb.vrfy": "the verb VRFY"}, ["text.zero"], explanation, "asa"))
    assert lines[:7] == [
        "ours and theirs: 2 of 2 dialogues show a difference",
        "  differing once and not again, which is not counted: text.zero",
        "verb.vrfy: the verb VRFY",
        "    C: VRFY x    theirs changes it",
        "      ours    VRFY x",
        "      theirs  XXXX x",
        "      explained by commands.allow",
    ]
    told = json.loads(msgspec.json.encode(differed.as_json(seen, NAMES, [], explanation)))
    assert [(one["by"], one["how"], one["right"]) for one in told["differences"]] == [
        ("theirs", "one", "XXXX x\\x0d\\x0a"),
        ("theirs", "one", "MAIL FROM:<a b@c.d>\\x0d\\x0a"),
    ]


def test_of_settings_that_explain_as_much_the_one_counts_that_fits_the_other_dialogues() -> None:
    """STARTTLS is shown: it is in the list, or nothing is hidden; another keyword, still hidden, tells."""
    starred = b"220 " + b"*" * (len(GREETING) - 6) + b"\r\n"

    def ehlo(word: bytes, seen: bytes) -> Played:
        said, read = (b"250-a\r\n250-%s\r\n250 SIZE\r\n" % one for one in (word, seen))
        return played(step(b"EHLO a\r\n", said=said, read=read), name=f"ehlo.{word.decode()}", greeting=starred)

    hidden = ehlo(b"HELP", b"XXXA")
    left, right = [ehlo(b"STARTTLS", b"XXXXXXXA"), hidden], [ehlo(b"STARTTLS", b"STARTTLS"), hidden]
    seen = differences(left, right)
    assert [one.words for one in explained(load_profile("asa"), right, seen).changes] == [
        "replies.keywords: add STARTTLS"
    ]


def test_what_no_setting_explains_is_said_to_be_so() -> None:
    starred = b"220 " + b"*" * (len(GREETING) - 6) + b"\r\n"
    left = [played(step(b"HELO a\r\n"), greeting=starred)]
    right = [played(step(b"HELO a\r\n", b"HELO b\r\n"), greeting=starred)]
    seen = differences(left, right)
    explanation = explained(load_profile("asa"), right, seen)
    assert (explanation.changes, explanation.unexplained) == ([], 1)
    lines = list(differed.lines(seen, NAMES, {}, [], explanation, "asa"))
    assert lines[-1] == "1 difference explained by no setting that is known here"


def test_long_lines_are_shown_where_they_differ_and_nothing_raw() -> None:
    line = b"NOOP " + b"a" * 500 + b"\x1b[2J" + b"a" * 90 + b"\r\n"
    masked = line[:505] + b"X" * (len(line) - 507) + b"\r\n"
    seen = differences([played(step(line))], [played(step(line, masked))])
    text = "\n".join(differed.lines(seen, NAMES, {}, [], None, ""))
    assert "\\x1b[2J" in text
    assert text.replace("\n", "").isprintable()
    assert "(601 bytes)" in text
    assert max(map(len, text.splitlines())) < 200
    assert differed.as_json(Found([], {}, 1), NAMES, [], None)["unexplained"] is None


def test_dialogues_are_listed_without_a_lab() -> None:
    argv = [sys.executable, "-m", "nfmailguard", "lab", "diff"]
    done = subprocess.run([*argv, "--list"], check=True, capture_output=True, text=True, timeout=60)
    assert [line.split()[0] for line in done.stdout.splitlines()] == [one.name for one in DIALOGUES]
    for words, code in ((["a", "b", "c"], 2), (["--only", "nosuch"], 2), (["--name", "t-nobody"], 1)):
        done = subprocess.run([*argv, *words], check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == code
        assert len(done.stderr.splitlines()) == 1
