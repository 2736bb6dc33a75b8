"""Lines longer than servers read as one: the core against the obvious model, however they are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import Action, CommandPolicy, Mode, Policy, UnknownCommand
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Turn
from tests.flows.test_reference_agrees import core, loose, of_core, of_model, said

LENGTHS = [20, 509, 510, 511, 512, 513, 514, 600, 1998, 2000, 2001, 2060]
SECRET = b"AUTH PLAIN "  # nothing goes on behind it before its reply
BEGINS = [SECRET, b"NOOP ", b"EXPN ", b"MAIL FROM:<", b"RCPT TO:<|", b"XAUTH ", b"BDAT 5", b"W", b"", b" ", b"N "]
ENDS = [b"", b"EHLO x", b"STARTTLS", b"exPN", b" LAST", b">", b"=", b" ", b"\0x", b"NOOP", b"X-EXPS", b"\ra", b"\na"]
FILLS = [b"a", b"A ", b"Aa0/+=", b"x\0", b"a>|", b"0", b"\r", b"\t"]


@st.composite
def line(draw: st.DrawFn, begins: list[bytes]) -> bytes:
    begin, end = draw(st.sampled_from(begins)), draw(st.sampled_from(ENDS))
    fill, other = draw(st.sampled_from(FILLS[:6])), draw(st.sampled_from(FILLS))
    length = draw(st.sampled_from(LENGTHS)) - len(begin) - len(end)
    body = (fill * (length // len(fill) + 1))[: max(0, length)]
    place = draw(st.integers(0, 10)) * len(body) // 10
    return begin + body[:place] + other + body[place + len(other) :] + end + b"\r\n"


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    allow = draw(
        st.sampled_from([("*",), ("EHLO", "MAIL", "RCPT", "AUTH", "NOOP"), ("NOOP", "MAIL", "AUTH"), ("N", "W")])
    )
    commands = CommandPolicy(
        allow=allow,
        unknown=draw(st.sampled_from(list(UnknownCommand))),
        line_length=draw(st.sampled_from([None, 24, 512, 600, 3000])),
        secret_length=draw(st.sampled_from([12286, 600, 100])),
    )
    actions = {
        "command.too_long": draw(st.sampled_from([Action.PASS, Action.LOG, Action.MASK])),
        "command.bare_cr": draw(st.sampled_from([Action.BLANK, Action.LOG])),
        "command.bare_lf": draw(st.sampled_from([Action.BLANK, Action.LOG])),
        "command.nul": draw(st.sampled_from([Action.BLANK, Action.LOG])),
    }
    return Policy("long", commands=commands, actions=actions)


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.MONITOR])
@given(policy=policies(), lines=st.lists(line(BEGINS), min_size=1, max_size=3), sasl=st.booleans(), data=st.data())
def test_long_lines_are_what_the_model_says(
    mode: Mode, policy: Policy, lines: list[bytes], sasl: bool, data: st.DataObject
) -> None:
    turns = [Turn(False, b"220 x\r\n")]
    if sasl:
        turns += [Turn(True, b"AUTH LOGIN\r\n"), Turn(False, b"334 \r\n"), Turn(True, data.draw(line([b"", b"aGk"])))]
        turns.append(Turn(False, b"535 no\r\n"))
    turns.append(Turn(True, b"".join(lines)))
    result, dialogue = translate(policy, turns, apply=mode is Mode.ENFORCE), core(policy, turns, mode)
    assert of_core(dialogue) == of_model(result)
    assert dialogue.received_by_server == said(result.turns, True)


@given(
    lines=st.lists(line([begin for begin in BEGINS if begin != SECRET]), max_size=1).flatmap(
        lambda before: line(BEGINS).map(lambda last: [*before, last])
    ),
    cuts=st.sets(st.integers(1, 4000), max_size=4),
)
def test_long_lines_are_the_same_however_they_are_cut(lines: list[bytes], cuts: set[int]) -> None:
    policy = loose(load_profile("pix70"))
    octets = b"".join(lines)
    # What follows AUTH waits for its reply, in another segment; and a bare CR is made the end of a line.
    assume(not lines[-1].startswith(SECRET) or b"\r" not in lines[-1][:-2])
    places = [0, *sorted(cut for cut in cuts if cut < len(octets)), len(octets)]
    begin = [Turn(False, b"220 x\r\n")]
    whole = core(policy, [*begin, Turn(True, octets)], Mode.ENFORCE)
    cut = core(policy, [*begin, *(Turn(True, octets[a:b]) for a, b in pairwise(places))], Mode.ENFORCE)
    assert of_core(cut) == of_core(whole)
