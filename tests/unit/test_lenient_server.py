"""The lab's permissive server reads as the real servers do that it stands for."""

from __future__ import annotations

import pytest

from nfmailguard.lab.lenient_server import CHUNK, COMMAND, SASL, TEXT, Conversation, Personality, Session

MAIL = b"EHLO a\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\n"


def spoken(*pieces: bytes, **personality: object) -> Conversation:
    conversation = Conversation(("10.0.0.1", 1), Personality(**personality))  # type: ignore[arg-type]
    session = Session(conversation, lambda _: None)
    for piece in pieces:
        session.feed(piece)
    return conversation


def codes(conversation: Conversation) -> list[int]:
    lines = bytes(conversation.sent).splitlines()
    return [int(line[:3]) for line in lines if line[3:4] == b" "]


def kinds(conversation: Conversation) -> list[str]:
    return [kind for kind, _ in conversation.spans]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_mail_is_read_however_it_is_cut(size: int) -> None:
    octets = MAIL + b"DATA\r\nSubject: x\r\n\r\ntext\r\n.\r\nQUIT\r\n"
    conversation = spoken(*(octets[at : at + size] for at in range(0, len(octets), size)))
    assert codes(conversation) == [250, 250, 250, 354, 250, 221]
    assert conversation.messages == [b"Subject: x\r\n\r\ntext\r\n.\r\n"]
    assert b"".join(part for _, part in conversation.spans) == octets == conversation.received
    assert conversation.unread == b""


def test_an_empty_message_ends_with_its_dot() -> None:
    assert codes(spoken(MAIL, b"DATA\r\n", b".\r\nNOOP\r\n")) == [250, 250, 250, 354, 250, 250]


def test_data_without_a_recipient_is_refused_and_what_follows_is_commands() -> None:
    conversation = spoken(b"HELO a\r\nDATA\r\nEXPN root\r\n")
    assert codes(conversation) == [250, 503, 250]
    assert kinds(conversation) == [COMMAND] * 3


def test_the_verbs_of_a_message_are_no_attributes() -> None:
    assert codes(spoken(b"TEXT x\r\nBUFFER\r\nSAY hello\r\nKIND\r\n")) == [502] * 4


def test_line_ends_are_the_personality_s() -> None:
    octets = b"NOOP\nNOOP\rNOOP\r\n"
    assert codes(spoken(octets, line_ends="crlf")) == [250]
    assert codes(spoken(octets)) == [250, 250]
    assert codes(spoken(octets, line_ends="any")) == [250, 250, 250]
    assert codes(spoken(b"NOOP\r", b"\nNOOP\r\n", line_ends="any")) == [250, 250]


def test_blank_lines_are_answered_or_not() -> None:
    assert codes(spoken(b"\r\n\r\nNOOP\r\n")) == [500, 500, 250]
    assert codes(spoken(b"\r\n\r\nNOOP\r\n", silent_blank=True)) == [250]


def test_a_short_buffer_cuts_lines_and_four_letters_make_a_verb() -> None:
    assert spoken(b"NOOP " + b"A" * 10 + b"\r\n", buffer=8).lines == [b"NOOP AAA", b"AAAAAAA"]
    assert codes(spoken(MAIL, b"DATAX\r\n", prefixes=True))[-1] == 354
    assert codes(spoken(MAIL, b"DATAX\r\n"))[-1] == 502


@pytest.mark.parametrize(
    ("rule", "argument", "size"),
    [
        ("strict", b"5", 5),
        ("strict", b"5 LAST", 5),
        ("strict", b"5 FOO", None),
        ("strict", b"+5", None),
        ("strict", b"5  LAST", None),
        ("loose", b"+5", 5),
        ("loose", b"4294967301", 5),
        ("octal", b"010", 8),
    ],
)
def test_a_chunk_is_as_long_as_the_personality_reads_its_size(rule: str, argument: bytes, size: int | None) -> None:
    conversation = spoken(MAIL, b"BDAT " + argument + b"\r\n", b"x" * 20, chunking=rule)
    chunks = b"".join(octets for kind, octets in conversation.spans if kind == CHUNK)
    assert chunks == b"x" * (size or 0)
    assert (501 in codes(conversation)) is (size is None)


def test_helo_takes_back_what_ehlo_offered() -> None:
    assert codes(spoken(b"EHLO a\r\nHELO a\r\nBDAT 5\r\n", chunking="strict"))[-1] == 502
    assert codes(spoken(b"BDAT 5\r\n"))[-1] == 502


def test_an_auth_line_is_a_secret_and_no_command() -> None:
    conversation = spoken(b"AUTH LOGIN\r\nEXPN root\r\nNOOP\r\n")
    assert kinds(conversation) == [COMMAND, SASL, COMMAND]
    assert codes(conversation) == [334, 235, 250]
    assert codes(spoken(b"AUTH LOGIN\r\nNOOP\r\n", refuses_auth=True)) == [535, 250]


def test_starttls_is_answered_as_told() -> None:
    assert codes(spoken(b"STARTTLS\r\n")) == [454]
    assert codes(spoken(b"STARTTLS\r\n", starttls=True)) == [220]


def test_a_loose_end_ends_a_message() -> None:
    conversation = spoken(MAIL, b"DATA\r\nhello\n.\nEXPN root\r\n", loose_end=True)
    assert kinds(conversation)[-2:] == [TEXT, COMMAND]
    assert conversation.messages == [b"hello\n.\n"]
