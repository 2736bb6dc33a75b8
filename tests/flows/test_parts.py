"""Header and body lengths, To fields, refused recipients: the core against the obvious model, however cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.policy.model import Action, AddressPolicy, DataPolicy, Mode, Policy
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Turn
from tests.flows.test_reference_agrees import core, of_core, of_model

NAMES = ("header.too_long", "data.too_long", "header.to_fields_too_many", "recipients.invalid_too_many")
BEGIN = [Turn(False, b"220 x\r\n"), Turn(True, b"DATA\r\n"), Turn(False, b"354 go\r\n")]
PIECES = [
    "To:",
    "to: x",
    "tO",
    "T",
    ": ",
    "abcdefgh",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\n\n",
    ".",
    "\r\n.",
    " To:",
    "",
    "\r\nTo: a",
]


def limits(header: int, body: int, fields: int, action: Action = Action.LOG) -> Policy:
    data = DataPolicy(header_length=header or None, body_length=body or None, to_fields=fields or None)
    return Policy("limits", data=data, actions=dict.fromkeys(NAMES, action))


@given(
    text=st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
    cuts=st.sets(st.integers(1, 100), max_size=4),
    most=st.tuples(st.sampled_from([0, 1, 9, 20]), st.sampled_from([0, 1, 9, 20]), st.integers(0, 2)),
)
def test_parts_are_what_the_model_says_however_the_message_is_cut(
    text: str, cuts: set[int], most: tuple[int, int, int]
) -> None:
    policy, body = limits(*most), text.encode() + b"\r\n.\r\n"
    places = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    whole = [*BEGIN, Turn(True, body)]
    cut = [*BEGIN, *(Turn(True, body[a:b]) for a, b in pairwise(places))]
    expected = [found for found in of_model(translate(policy, whole)) if found[2] in NAMES]
    for turns in (whole, cut):
        assert [found for found in of_core(core(policy, turns, Mode.ENFORCE)) if found[2] in NAMES] == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"S: " + b"x" * 15 + b"\r\n\r\n", "header.too_long"),
        (b"\r\n" + b"x" * 19 + b"\r\n", "data.too_long"),
        (b"To: a\r\ntO: b\r\nTO: c\r\n\r\n", "header.to_fields_too_many"),
    ],
)
def test_one_more_than_the_limit_ends_the_connection(text: bytes, name: str) -> None:
    turns = [*BEGIN, Turn(True, text + b".\r\n")]
    for policy, names in ((limits(20, 20, 2, Action.RESET), [name]), (limits(24, 22, 3, Action.RESET), [])):
        dialogue = core(policy, turns, Mode.ENFORCE)
        assert [finding.name for finding in dialogue.findings if finding.name in NAMES] == names
        assert bool(dialogue.emitted) is bool(names)


def test_refused_recipients_are_counted_for_each_mail() -> None:
    policy = Policy("refused", address=AddressPolicy(invalid_recipients=1))
    mail = [Turn(True, b"MAIL FROM:<a@b>\r\n"), Turn(False, b"250 ok\r\n")]
    no = [Turn(True, b"RCPT TO:<c@d>\r\n"), Turn(False, b"550 no\r\n")]
    later = [Turn(True, b"RCPT TO:<c@d>\r\n"), Turn(False, b"450 later\r\n")]
    for turns, found in (
        ([*mail, *no, *later, *later], []),
        ([*mail, *no, *mail, *no], []),
        ([*mail, *no, *later, *no], ["recipients.invalid_too_many"]),
    ):
        dialogue = core(policy, [BEGIN[0], *turns], Mode.ENFORCE)
        assert [f.name for f in dialogue.findings] == found
        assert of_core(dialogue) == of_model(translate(policy, [BEGIN[0], *turns]))
