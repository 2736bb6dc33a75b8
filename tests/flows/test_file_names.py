"""MIME file names: the core against the obvious model, however a message is cut."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.policy.model import Action, DataPolicy, Mode, Policy
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Turn
from tests.flows.test_reference_agrees import core, of_core, of_model

PIECES = [
    "Content-Disposition:",
    "Content-Type :",
    "content-type:",
    "Content-Typ:",
    "X: y",
    "attachment",
    ";",
    "; ",
    " ",
    "\t",
    "=",
    " = ",
    "filename",
    "FileName",
    "name",
    "filename*",
    "filename*0*",
    "filename*1",
    "names",
    '"',
    "\\",
    "abcdef",
    "a",
    "\r\n",
    "\r\n ",
    "\r\n\t",
    "\r\n\r\n",
    "\r\n--b",
    "\r\n-",
    "--",
    "\r",
    "\n",
    "text/plain",
    "\r\nContent-Type: a/b; name=",
    "*",
]
LIMIT = Policy("limit", data=DataPolicy(filename_length=5), actions={"mime.filename_too_long": Action.LOG})
BEGIN = [Turn(False, b"220 x\r\n"), Turn(True, b"DATA\r\n"), Turn(False, b"354 go\r\n")]


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    field = draw(
        st.sampled_from(["", "Content-Disposition: a; filename=", "Content-Type: a/b; name=", "--b\r\nContent-Type:"])
    )
    return (field + "".join(draw(st.lists(st.sampled_from(PIECES), max_size=25)))).encode()


@given(text=texts(), cuts=st.sets(st.integers(1, 200), max_size=4))
def test_file_names_are_what_the_model_says_however_the_message_is_cut(text: bytes, cuts: set[int]) -> None:
    body = text + b"\r\n.\r\n"
    places = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    whole = [*BEGIN, Turn(True, body)]
    cut = [*BEGIN, *(Turn(True, body[a:b]) for a, b in pairwise(places))]
    expected = [f for f in of_model(translate(LIMIT, whole)) if f[2] == "mime.filename_too_long"]
    for turns in (whole, cut):
        assert [f for f in of_core(core(LIMIT, turns, Mode.ENFORCE)) if f[2] == "mime.filename_too_long"] == expected


LONG = "y" * 256
NAMES = {
    "a token": f"Content-Disposition: attachment; filename={LONG}",
    "quoted": f'Content-Disposition: attachment; filename="{LONG}"',
    "of a part": f'S: x\r\n\r\n--b\r\nContent-Type: a/b;\r\n name="{LONG}"\r\n\r\n--b--',
    "RFC 2231, in sections": f"Content-Disposition: a; filename*0={LONG[:200]}; filename*1={LONG[200:]}",
    "RFC 2231, with a language": f"content-disposition: a; filename*=utf-8''{LONG}",
    "folded everywhere": f"Content-Type:\r\n a/b\r\n ;\r\n name\r\n =\r\n {LONG}",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_long_file_name_ends_the_connection(name: str) -> None:
    policy = msgspec.structs.replace(LIMIT, data=DataPolicy(filename_length=255), actions={})
    dialogue = core(policy, [*BEGIN, Turn(True, NAMES[name].encode() + b"\r\n.\r\n")], Mode.ENFORCE)
    assert [(f.name, f.action) for f in dialogue.findings if f.name.startswith("mime")] == [
        ("mime.filename_too_long", "drop-connection")
    ]


@pytest.mark.parametrize(
    "text",
    [
        f"Content-Disposition: attachment; filename={LONG[1:]}",
        f"X-Content-Disposition: attachment; filename={LONG}",
        f"S: x\r\n\r\nContent-Disposition: attachment; filename={LONG}",
        f"Content-Type: text/plain; charset={LONG}",
        f'Content-Type: text/plain; x="; name={LONG}"',
        f"Content-Disposition: a; filename={LONG[:200]}; filename={LONG[:200]}",
    ],
)
def test_what_is_no_long_file_name_passes(text: str) -> None:
    policy = msgspec.structs.replace(LIMIT, data=DataPolicy(filename_length=255), actions={})
    dialogue = core(policy, [*BEGIN, Turn(True, text.encode() + b"\r\n.\r\n")], Mode.ENFORCE)
    assert "mime.filename_too_long" not in [f.name for f in dialogue.findings]
