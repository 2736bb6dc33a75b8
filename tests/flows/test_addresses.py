"""The length of MAIL's address: the core against the obvious model, and what ends an address."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nfmailguard.policy.model import Action, AddressPolicy, Mode, Policy
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Turn
from tests.flows.test_reference_agrees import core, of_core, of_model

LIMIT = Policy("limit", address=AddressPolicy(sender_length=5), actions={"address.too_long": Action.LOG})
BEGIN = [Turn(False, b"220 x\r\n"), Turn(True, b"HELO x\r\n"), Turn(False, b"250 x\r\n")]


def findings(argument: str, cut: int = 0) -> list[tuple[object, ...]]:
    line = f"MAIL FROM{argument}\r\n".encode()
    turns = [*BEGIN, *(Turn(True, part) for part in (line[:cut], line[cut:]) if part)]
    return [f for f in of_core(core(LIMIT, turns, Mode.ENFORCE)) if f[2] == "address.too_long"]


@pytest.mark.parametrize(
    ("argument", "too_long"),
    [
        (":<12345>", False),
        (":<123456>", True),
        (":12345 6", False),
        (":123456", True),
        (':<"1>"3456>', True),
        (':<"1>"3> BODY=8BITMIME', False),
        (":<1\\>456>", True),
        (":<1\\>45> X", False),
        (':<"\\">"6>', True),
        (':<"2345', False),
        (':<"23456', True),
        (':"a b"', False),
        (':"a b"67', True),
        (":a <123456>", True),
        (":a <12345>", False),
        (":<> <123456>", True),
        (":<12345> AUTH=<>", False),
        (':"<a>" <123456>', True),
        ("<123456>", True),
    ],
)
def test_an_address_ends_where_its_bracket_is_neither_quoted_nor_escaped(argument: str, too_long: bool) -> None:
    assert bool(findings(argument)) == too_long


@given(argument=st.text(alphabet='<>"\\ :a', max_size=24), cut=st.integers(0, 30))
@example(argument=':"<a> ', cut=0)
@example(argument=':a<"\\', cut=12)
def test_the_length_of_an_address_is_what_the_model_says_however_the_line_is_cut(argument: str, cut: int) -> None:
    whole = [*BEGIN, Turn(True, f"MAIL FROM{argument}\r\n".encode())]
    expected = [f for f in of_model(translate(LIMIT, whole)) if f[2] == "address.too_long"]
    assert findings(argument, cut) == findings(argument) == expected


@pytest.mark.parametrize("verb", ["MAIL FROM", "RCPT TO", "SEND FROM", "SOML FROM", "SAML FROM"])
def test_illegal_characters_are_blanked_however_the_line_is_cut(verb: str) -> None:
    policy = Policy("p", address=AddressPolicy(characters="|", brackets=True))
    line = f"{verb}:<a|b@c>>\r\n".encode()
    for cut in range(len(line)):
        turns = [*BEGIN, *(Turn(True, part) for part in (line[:cut], line[cut:]) if part)]
        dialogue = core(policy, turns, Mode.ENFORCE)
        assert dialogue.received_by_server.endswith(f"{verb}:<a b@c> \r\n".encode())
        assert of_core(dialogue) == of_model(translate(policy, turns))
