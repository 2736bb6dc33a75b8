"""The judge of `lab evade` sees what got past: each rule with a planted record, and with a clean one."""

from __future__ import annotations

import pytest

from nfmailguard.lab.lenient_server import Conversation, Personality, Session
from nfmailguard.lab.oracle import denied_verbs, faults, readable_verbs, unlike_ends
from nfmailguard.policy.load import load_profile

PIX63 = denied_verbs(load_profile("pix63"))
ORDINARY = Personality()
MAIL = b"HELO a\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n"


def record(*pieces: bytes, personality: Personality = ORDINARY) -> Conversation:
    """What a server of that kind takes the pieces for."""
    conversation = Conversation(("10.0.0.1", 1), personality)
    session = Session(conversation, lambda _: None)
    for piece in pieces:
        session.feed(piece)
    return conversation


def judged(*pieces: bytes, personality: Personality = ORDINARY) -> list[str]:
    return faults([record(*pieces, personality=personality)], PIX63)


def test_the_denied_verbs_are_all_that_are_not_allowed() -> None:
    assert {b"EXPN", b"EHLO", b"VRFY", b"STARTTLS", b"AUTH", b"BDAT", b"X-EXPS", b"WIZ"} <= PIX63
    assert not {b"HELO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"NOOP", b"QUIT"} & PIX63
    assert b"EHLO" not in denied_verbs(load_profile("asa"))


def test_an_allowed_dialogue_and_a_masked_one_are_clean() -> None:
    assert judged(MAIL, b"EXPN in a text\r\n..\r\n.\r\nNOOP EXPN\r\nXXXX root\r\nQUIT\r\n") == []


@pytest.mark.parametrize(
    "line",
    [
        b"EXPN root\r\n",
        b"expn root\r\n",
        b"  \t\0EXPN root\r\n",
        b"\x7fEXPN root\r\n",
        b"EX\0PN root\r\n",
        b"\xc5\xd8\xd0\xce root\r\n",
        b"EXPNX root\r\n",
        b"EXPN\troot\r\n",
        b"NOOP\nEXPN root\r\n",
        b"NOOP\rEXPN root\r\n",
        b"NOOP\r\r\nEXPN root\r\n",
        b"EXPN",
    ],
)
def test_a_denied_verb_is_seen_under_every_reading(line: bytes) -> None:
    assert any(fault.startswith("EXPN readable") for fault in judged(b"HELO a\r\n", line))


def test_a_verb_is_seen_however_it_was_cut() -> None:
    assert judged(b"HELO a\r\n", b"EX", b"PN root\r\n")


def test_a_command_behind_a_refused_data_is_a_command() -> None:
    assert judged(b"HELO a\r\nDATA\r\n", b"EXPN root\r\n")
    assert not judged(MAIL, b"EXPN root\r\n")


def test_a_line_that_the_server_cut_is_read_as_it_cut_it() -> None:
    line = b"NOOP " + b"A" * 507 + b"EXPN root\r\n"
    assert not judged(line)
    assert judged(line, personality=Personality(buffer=512)) == [
        "EXPN readable, line ends: CRLF, as the server cut its lines",
        "EXPN readable, line ends: LF, as the server cut its lines",
        "EXPN readable, line ends: CR, as the server cut its lines",
    ]


@pytest.mark.parametrize(
    "end",
    [
        *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\rx", b"\r.\r", b"\r.\r\n", b"\r\r\n.\r\r\n"),
        *(b"\r\n\0.\r\n", b"\r\n.\0\r\n"),
    ],
)
def test_an_end_that_only_some_servers_see_is_a_fault(end: bytes) -> None:
    assert list(unlike_ends(b"text" + end + b"more\r\n.\r\n"))
    assert judged(MAIL, b"text" + end + b"more\r\n.\r\n")
    loose = Personality(loose_end=True, line_ends="any")
    assert judged(MAIL, b"text" + end, b"EXPN root\r\n", personality=loose)


def test_the_standard_end_is_none() -> None:
    assert list(unlike_ends(b".\r\n")) == []
    assert list(unlike_ends(b"text\r\n..\r\n.x\r\n\r\n.\r\n")) == []
    # Also to a server that takes the CR for the end, and the LF with it.
    loose = Personality(loose_end=True, line_ends="any")
    assert judged(MAIL, b"text\r\n.\r", b"\nNOOP\r\n", personality=loose) == []


def test_a_dot_as_the_first_octets_of_a_text_counts_the_line_end_before_it() -> None:
    assert list(unlike_ends(b".\nmore\r\n.\r\n"))


def test_what_a_technique_forbids_is_seen_on_either_side() -> None:
    conversation = record(b"RCPT TO:<|prog>\r\n")
    assert faults([conversation], PIX63, [rb"\|"]) == ["the server received b'\\\\|'"]
    assert faults([], PIX63, (), [b"220 mail.example.com"], [b"example"]) == ["the client received b'example'"]
    assert faults([], PIX63, (), [b"220 ****"], [b"example"]) == []


def test_where_every_verb_is_allowed_none_is_a_fault() -> None:
    assert list(readable_verbs(b"EXPN root\r\n", ())) == []
