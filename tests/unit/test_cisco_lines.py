"""Every line of mail inspection is honoured or named, whatever stands around it and however the text has come.

Configurations are made line by line, each line with the mark whether it has to do with the inspection of mail; then
they are put into the forms in which people send them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfmailguard.errors import ConfigError
from nfmailguard.policy.cisco.read import Import, read
from nfmailguard.policy.cisco.text import Status
from tests.support.cisco import ASA, DEFAULT_MAP, PIX
from tests.unit.test_cisco_field import CONTEXTS, ESA, GLOBAL, MAP, SETS, ZONES


@dataclass(frozen=True)
class Written:
    """One line. ``ours``: it has to do with the inspection of mail; ``around``: as long as there is one inside it."""

    text: str
    ours: bool = True
    around: bool = False


def ours(*lines: str) -> list[Written]:
    return [Written(line) for line in lines]


def others(*lines: str) -> list[Written]:
    return [Written(line, ours=False) for line in lines]


NUMBERS = st.integers(1, 3000).map(str)
ACTIONS = ["drop-connection", "drop-connection log", "reset", "reset log", "mask", "mask log", "log", "rate-limit 9"]
ACTIONS += ["drop", "drop send-protocol-error log", "fly"]
MATCHES = ["cmd line length gt 512", "cmd RCPT count gt 100", "body line length gt 998", "header line length gt 998"]
MATCHES += [
    "sender-address length gt 320",
    "MIME filename length gt 255",
    "ehlo-reply-parameter others",
    "body length gt 9",
]
MATCHES += ["cmd verb VRFY", "header to-fields count gt 5", "invalid-recipients count gt 5", "mime encoding base64"]
MATCHES += ["sender-address regex bad", "mime filetype regex class bad", "cmd verb wiz", "something else"]
PARAMETERS = ["mask-banner", "no mask-banner", "allow-tls", "allow-tls action log", "special-character action log"]
PARAMETERS += ["mail-relay example.com action log", "no mail-relay", "mask-banner twice"]
IOS_MATCHES = ["data-length gt 5", "recipient count gt 5", "cmd verb EXPN", "reply ehlo auth", "header regex bad"]
APART = ["hostname fw", "interface outside", "route outside 0.0.0.0 0.0.0.0 192.0.2.1 1", "snmp-server location x"]
APART += ["access-list unused extended permit tcp any any eq smtp", "logging host inside 10.0.0.1", "ssh timeout 5"]
APART += ["static (inside,outside) tcp interface smtp 10.0.0.2 smtp netmask 255.255.255.255"]


@st.composite
def esmtp_map(draw: st.DrawFn) -> list[Written]:
    name = draw(st.sampled_from(("M", "mail-in", "_default_esmtp_map")))
    lines = ours(f"policy-map type inspect esmtp {name}")
    if draw(st.booleans()):
        lines += ours(" parameters", *(f"  {one}" for one in draw(st.lists(st.sampled_from(PARAMETERS), max_size=3))))
    for match in draw(st.lists(st.sampled_from(MATCHES), max_size=4)):
        negated = draw(st.sampled_from(("", "", "not ")))
        lines += ours(f" match {negated}{match}", f"  {draw(st.sampled_from(ACTIONS))}")
    return lines


@st.composite
def modular(draw: st.DrawFn) -> list[Written]:
    """A policy-map that inspects mail, and where it is applied."""
    name = draw(st.sampled_from(("global_policy", "P2")))
    mail = draw(st.sampled_from(("inspect esmtp", "inspect smtp", "no inspect esmtp", "inspect esmtp GONE")))
    around = [Written(f"policy-map {name}", around=True), Written(" class inspection_default", around=True)]
    lines = [*around, *others("  inspect dns"), *ours(f"  {mail}"), *others("  inspect ftp")]
    where = draw(st.sampled_from(("global", "interface dmz", "")))
    return lines + ([Written(f"service-policy {name} {where}", around=True)] if where else [])


@st.composite
def old(draw: st.DrawFn) -> list[Written]:
    off = draw(st.sampled_from(("", "no ")))
    line = draw(
        st.sampled_from(("fixup protocol smtp 25", "fixup protocol smtp 2500-2510", "mailhost 192.0.2.1 10.0.0.1"))
    )
    return ours(off + line) + others("fixup protocol ftp 21")


@st.composite
def ios(draw: st.DrawFn) -> list[Written]:
    match draw(st.sampled_from(("set", "layer7", "zones"))):
        case "set":
            protocol = draw(st.sampled_from(("smtp", "esmtp", "smtp timeout 9")))
            lines = ours(f"ip inspect name OUT {protocol}") + others("ip inspect name OUT ftp")
            return lines + (others("interface e0") + ours(" ip inspect OUT in") if draw(st.booleans()) else [])
        case "layer7":
            lines = ours("class-map type inspect smtp match-any C7", f" match {draw(st.sampled_from(IOS_MATCHES))}")
            lines += ours("policy-map type inspect smtp P7", " class type inspect smtp C7")
            return lines + ours(f"  {draw(st.sampled_from(('reset', 'log', 'mask', 'fly')))}")
        case _:
            lines = ours("class-map type inspect match-any Z", " match protocol smtp") + others(" match protocol http")
            lines += ours("policy-map type inspect ZP", " class type inspect Z", "  inspect")
            return lines + ours("zone-pair security A source a destination b", " service-policy type inspect ZP")


BLOCKS = st.lists(
    st.one_of(esmtp_map(), modular(), old(), ios(), st.sampled_from(APART).map(others)),
    min_size=1,
    max_size=5,
).map(lambda blocks: [line for block in blocks for line in block])

#: Forms that keep each line where it is.
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda line: line,
    "quoted": lambda line: f"> {line}",
    "quoted twice": lambda line: f"> > {line}",
    "indented": lambda line: f"    {line}",
    "HTML": lambda line: f"{line.replace(' ', '&nbsp;')}<br>",
    "a comment": lambda line: f"{line}   ! see below",
    "an arrow": lambda line: f"{line} <--- here",
    "capitals": lambda line: re.sub(r"\b(?:match|inspect|policy-map)\b", lambda word: word[0].upper(), line),
    "double blanks": lambda line: line[: len(line) - len(line.lstrip())] + "  ".join(line.split()),
    "CR": lambda line: f"{line}\r",
    "trailing blanks": lambda line: f"{line}  ",
}
PROMPTS = ("fw(config)# ", "fw(config-pmap)# ", "fw(config-pmap-c)# ")


def prompted(line: str) -> str:
    return PROMPTS[min(2, len(line) - len(line.lstrip()))] + line.strip()


def names(found: Import) -> set[int]:
    return {line.number for line in found.lines}


def unnamed(text: str, lines: list[Written]) -> list[str]:
    """The lines of mail inspection that nothing was said of."""
    said = names(read(text))
    taken_back = any(line.text.strip() == "no inspect esmtp" for line in lines)
    return [
        line.text
        for number, line in enumerate(lines, start=1)
        if line.ours and number not in said and not (line.around and taken_back)
    ]


@pytest.mark.parametrize("form", [*FORMS, "prompts", "no indentation"])
@given(lines=BLOCKS)
def test_no_line_of_mail_inspection_is_lost_in_silence(form: str, lines: list[Written]) -> None:
    change = {"prompts": prompted, "no indentation": str.strip, **FORMS}[form]
    assert unnamed("\n".join(change(line.text) for line in lines), lines) == []


@given(lines=BLOCKS)
def test_what_is_honoured_in_one_form_is_in_all(lines: list[Written]) -> None:
    plain = read("\n".join(line.text for line in lines))
    for change in FORMS.values():
        found = read("\n".join(change(line.text) for line in lines))
        assert found.policies == plain.policies
        assert [(line.number, line.status) for line in found.lines] == [
            (line.number, line.status) for line in plain.lines
        ]


# And of whole configurations, when words of them are changed.

TEXTS = [ASA, PIX, DEFAULT_MAP, GLOBAL, MAP, ESA, SETS, ZONES, *CONTEXTS]
#: What no line of another matter says, written apart from what the reader looks for.
SAYS_MAIL = re.compile(
    r"\s*(?:no\s+)*(?:inspect\s+e?smtp|fixup\s+protocol\s+smtp|mailhost\s+\d|allow-tls|mail-relay|special-character"
    r"|match\s+(?:not\s+)?(?:ehlo-reply-parameter|sender-address|invalid-recipients)"
    r"|(?:\S+\s+)?type\s+inspect\s+e?smtp)(?=\s|$)",
    re.IGNORECASE,
)
WORDS = [
    "no",
    "match",
    "inspect",
    "esmtp",
    "smtp",
    "gt",
    "log",
    "mask",
    "class",
    "parameters",
    "policy-map",
    "42",
    "X",
    "",
]


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A configuration with words replaced, lines doubled, swapped and taken out."""
    lines = draw(st.sampled_from(TEXTS)).splitlines()
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, max(0, len(lines) - 1)))
        match draw(st.sampled_from(("word", "double", "take", "indent"))):
            case "word" if lines:
                words = lines[at].split(" ")
                words[draw(st.integers(0, len(words) - 1))] = draw(st.sampled_from(WORDS))
                lines[at] = " ".join(words)
            case "double" if lines:
                lines.insert(draw(st.integers(0, len(lines))), lines[at])
            case "take" if len(lines) > 1:
                del lines[at]
            case _ if lines:
                lines[at] = lines[at].strip()
    return "\n".join(lines)


@given(text=changed())
def test_a_line_that_speaks_of_mail_inspection_is_named_in_a_damaged_text_too(text: str) -> None:
    try:
        found = read(text)
    except ConfigError:
        return
    if any("choose it with --context" in line.what for line in found.lines):
        return  # the lines of another context, or another box, are named by its first one
    said = names(found)
    free = ("remark", "banner", "regex", "!", ":")
    lost = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if SAYS_MAIL.match(line) and number not in said and not line.strip().startswith(free)
    ]
    assert lost == []
    assert all(line.what for line in found.lines)
    assert {line.status for line in found.lines} <= set(Status)
