"""Ends of data that single servers see: the core against the obvious model, however a text is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Action, Mode
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.texts import LONG_HEAD, LONG_LINE
from nfmailguard.smtp.turns import Turn
from tests.flows.test_reference_agrees import core, of_core, of_model, said
from tests.support.dialogue import Dialogue

PIX = load_profile("pix63")
BEGIN = [Turn(False, b"220 x\r\n"), Turn(True, b"HELO x\r\n"), Turn(False, b"250 x\r\n")]
SEVEN = [Turn(True, b"MAIL FROM:<a> BODY=7BIT\r\n"), Turn(False, b"250 x\r\n")]
DATA = [Turn(True, b"DATA\r\n"), Turn(False, b"354 x\r\n")]
FIELD = b"X: aaaa\r\n"
MANY = FIELD * (LONG_HEAD // len(FIELD) + 1)
PIECES = [
    b".",
    b"..",
    b"\n",
    b"\r",
    b"\r\n",
    b"x",
    b" ",
    b"\0",
    b"\xae",
    b"\x8d",
    b"\x8a",
    b"\r\n.",
    b".\r\n",
    b"\n.x\n",
]


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR])
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=14),
    long=st.integers(0, 40),
    at=st.integers(0, 6),
    cuts=st.sets(st.integers(0, 60), max_size=5),
    seven=st.booleans(),
)
def test_ends_of_data_are_what_the_model_says_however_a_text_is_cut(
    mode: Mode, pieces: list[bytes], long: int, at: int, cuts: set[int], seven: bool
) -> None:
    text = b"".join(pieces) + b"\r\n.\r\n"
    # A long line is put in between two pieces in one draw of four: it makes a text a thousand times as long.
    if long >= 30:
        begin = len(b"".join(pieces[:at]))
        text = text[:begin] + b"l" * (LONG_LINE + long - 35) + text[begin:]
        cuts = {cut if cut < begin else cut + LONG_LINE for cut in cuts}
    parts = [text[a:b] for a, b in pairwise([0, *sorted(cut for cut in cuts if cut < len(text)), len(text)])]
    head = [*BEGIN, *(SEVEN if seven else []), *DATA]
    turns = [*head, *(Turn(True, part) for part in parts if part)]
    dialogue, result = core(PIX, turns, mode), translate(PIX, turns, apply=mode is Mode.ENFORCE)
    assert dialogue.received_by_server == said(result.turns, True)
    assert of_core(dialogue) == of_model(result)


def read(text: bytes, *cuts: int) -> bytes:
    """What leaves of a text in these parts, each acknowledged."""
    dialogue = Dialogue.under(PIX, Mode.ENFORCE)
    dialogue.server(b"220 x\r\n")
    dialogue.client(b"DATA\r\n")
    dialogue.server(b"354 x\r\n")
    for begin, end in pairwise([0, *cuts, len(text)]):
        dialogue.client(text[begin:end])
        dialogue.send(False, 0x10)
    return bytes(dialogue.received[True])[len(b"DATA\r\n") :]


@pytest.mark.parametrize("x", [b".", b" ", b"x", b"\0", b"\xff"])
@pytest.mark.parametrize("begin", [b"", b"a\r\n", b"a\n", b"a\r"])
def test_a_line_of_a_dot_and_one_octet_has_no_lone_lf(begin: bytes, x: bytes) -> None:
    text = begin + b"." + x + b"\nTURN\r\n"
    for cut in range(len(text)):
        assert read(text, cut) == begin + b"." + x.replace(b"\0", b" ") + b" TURN\r\n"
    assert read(begin + b"." + x + b"\r\n") == begin + b"." + x.replace(b"\0", b" ") + b"\r\n" or (begin, x) == (
        b"",
        b".",
    )


def test_a_lone_lf_that_was_blanked_is_the_one_octet_behind_a_dot() -> None:
    assert read(b"a\r\n.\n\nTURN\r\n") == b"a\r\n.  TURN\r\n"


@pytest.mark.parametrize("dots", [2, 3, 7])
@pytest.mark.parametrize("begin", [b"", b"\n", b"\r"])
def test_a_text_does_not_begin_with_a_line_of_dots(begin: bytes, dots: int) -> None:
    text = begin + b"." * dots + b"\r\nTURN\r\n"
    for cut in range(len(text)):
        assert read(text, cut) == begin + b"." * dots + b" \nTURN\r\n"


@pytest.mark.parametrize("text", [b"..a\r\n", b"a\r\n..\r\n", b"\r\n..\r\n", b"... ...\r\n"])
def test_other_lines_of_dots_stay_as_they_are(text: bytes) -> None:
    for cut in range(len(text)):
        assert read(text, cut) == text


@pytest.mark.parametrize(("size", "stays"), [(0, False), (9_000, False), (-2, True)])
def test_a_dot_stands_not_alone_before_the_end_of_a_long_line(size: int, stays: bool) -> None:
    line = b"a" * (LONG_LINE + size) + b"."
    for cuts in ((), (len(line) - 1,), (len(line),), (len(line) - 1, len(line)), (len(line) + 1,)):
        assert read(b"one\r\n" + line + b"\r\nTURN\r\n", *(5 + cut for cut in cuts))[-9:] == (
            b".\r\nTURN\r\n" if stays else b". \nTURN\r\n"
        )


@pytest.mark.parametrize("size", [1_448, 20_000, 60_000])
@pytest.mark.parametrize(
    "text",
    [
        b"x\r\n\r\n" + b"a" * 2 * LONG_LINE + b".\r\n.\r\n",
        b"X: y\r\n" * (LONG_HEAD // 6) + b"Subject: the end.\r\n.\r\n",
    ],
)
def test_the_real_end_behind_a_long_line_stays_one(text: bytes, size: int) -> None:
    for end in (b"", b"QUIT\r\n"):
        assert read(text + end, *range(size, len(text), size)) == text + end


@pytest.mark.parametrize("text", [b"a\n.\r\n.\r\n", b"a\r.\n\r\n.\r\n", b"a\n.\r\n.\r\n" * 2, b"..\r\n.\r\n"])
def test_a_mail_whose_own_end_would_not_be_one_any_more_is_reset(text: bytes) -> None:
    turns = [Turn(False, b"220 x\r\n"), *DATA, Turn(True, text)]
    reset = translate(PIX, turns).ended is Action.RESET
    for cut in range(len(text)):
        left = read(text, cut)
        assert left.endswith(b"\r\n.\r\n") != reset
        assert len(left) < len(text) or not reset


def test_commands_behind_the_end_of_a_long_header_are_not_text() -> None:
    behind = b"MAIL FROM:<a.\r\nRSET\r\nHELO x.\r\nQUIT\r\n"
    text = MANY + b"x-\r\n.\r\n" + behind
    assert read(text, *range(40_000, len(MANY), 40_000)) == text


def test_a_header_that_ends_within_a_piece_is_long_no_further() -> None:
    text = MANY[: -300 * len(FIELD)] + b"\r\n" + b"A sentence.\r\n" * 1_000
    for size in (1_448, 20_000, 47_000):
        assert read(text, *range(size, len(text), size)) == text


def modelled(text: bytes) -> bytes:
    turns = [Turn(False, b"220 x\r\n"), *DATA, Turn(True, text)]
    return said(translate(PIX, turns).turns, True)[len(b"DATA\r\n") :]


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (MANY, False),
        (MANY[: -4 * len(FIELD)], True),
        (b"\r\n" + MANY, True),
        (b"a: b\r\n\r\n" + MANY, True),
        (b"a: b\r\n \n\n\r\n" + MANY, False),  # behind CRLF a LF ends no line
        (b"a: b\n\n" + MANY, True),
        (b"a: b\n\r\n" + MANY, True),
        (b"a: b\n" + MANY, False),
    ],
)
def test_no_line_of_a_long_header_ends_behind_a_dot(head: bytes, stays: bool) -> None:
    text = head + b"x.\r\nTURN\r\n"
    for place in range(4):
        got = read(text, *range(40_000, len(head), 40_000), len(head) + place)
        assert got[-10:] == (b"x.\r\nTURN\r\n" if stays else b"x. \nTURN\r\n")
    assert got == modelled(text)


@settings(max_examples=10)
@given(
    pieces=st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b"x", b"y.", b".", b"\0"]), max_size=10),
    cuts=st.sets(st.integers(1, 10), max_size=3),
)
def test_a_header_ends_where_the_model_says(pieces: list[bytes], cuts: set[int]) -> None:
    begin = b"x" + b"".join(pieces)
    text = begin + MANY + b"x.\r\nTURN\r\n"
    assume(b"\r\n.\r\n" not in modelled(begin))
    places = sorted({cut for cut in cuts if cut < len(begin)} | {*range(len(begin), len(text), 40_000)})
    assert read(text, *places) == modelled(text)
