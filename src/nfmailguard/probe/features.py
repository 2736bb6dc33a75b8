"""What the server's answers show about the path: one feature each, and which of them each profile would give.

Promises: a feature that the answers do not show is None, and contradicts nothing. The profiles themselves are examined,
not a list of them: a new one is known as soon as its file exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from nfmailguard.policy.model import BannerRule, EhloMask, Policy, UnknownCommand
from nfmailguard.probe.talk import NONSENSE, Answer, Talk
from nfmailguard.smtp.restore import banner_masked, keyword_masked

__all__ = ["Features", "contradictions", "observe"]

PASSED, MASKED, NOOP, OK = "passed", "masked", "made NOOP", "answered OK"
_FORMS = {
    UnknownCommand.XVERB: MASKED,
    UnknownCommand.XALL: MASKED,
    UnknownCommand.NOOP: NOOP,
    UnknownCommand.OK: OK,
}


@dataclass(frozen=True)
class Features:
    """Features of a path. ``letter``: the letter that masks verbs; ``bypass``: after a refused DATA
    the filter is open.
    """

    banner: str | None = None
    ehlo: str | None = None
    nonsense: str | None = None
    help: str | None = None
    vrfy: str | None = None
    letter: str | None = None
    keywords: frozenset[str] | None = None
    masked_keywords: int = 0
    starttls: str | None = None
    #: TLS as far as this path shows: "offered", "stripped" or "absent"; None: not asked.
    tls: str | None = None
    bypass: bool | None = None
    cut: bool | None = None
    #: Which of EHLO and the nonsense command were answered with a code of 500 or more.
    refused: frozenset[str] = frozenset()

    @property
    def positive(self) -> list[str]:
        """Features that no server shows by itself."""
        found = []
        if self.banner not in (None, "clear", "decorated"):
            found.append("the greeting is masked")
        if self.letter:
            found.append(f"verbs become {self.letter * 4}")
        if self.nonsense in (NOOP, OK):
            found.append(f"an unknown command is {self.nonsense}")
        if self.masked_keywords:
            found.append(f"{self.masked_keywords} lines of the EHLO reply are masked")
        if self.cut:
            found.append("a NOOP in two packets is refused")
        return found


def _fate(command: str, answer: Answer | None, noop: Answer | None, nonsense: Answer | None) -> tuple[str | None, str]:
    """What became of a command, and the letter that masked it; None: the answer does not show it."""
    if answer is None or not answer.code:
        return None, ""
    verb, text = command.split(" ", maxsplit=1)[0], "\n".join(answer.texts)
    over = re.search(rf"(?<![Xx])(?:X{{{len(verb)}}}|x{{{len(verb)}}})(?![Xx])", text)
    if over:
        return MASKED, over[0][0]
    if answer.code == 250 and re.fullmatch(r"OK {2,}", answer.texts[-1]):
        return OK, ""
    if verb.lower() in text.lower() or (answer.code < 400 and verb.upper() != "EHLO" and answer != noop):
        return PASSED, ""
    if answer.code == 250 and noop is not None and answer.texts == noop.texts:
        return NOOP, ""
    if nonsense is not None and verb != NONSENSE and answer.code >= 500:
        return (PASSED if answer != nonsense else None), ""
    return None, ""


def _banner(greeting: Answer) -> str:
    texts = [text.encode("latin-1") for text in greeting.texts]
    if len(texts) > 1 and any(b"*" in text for text in texts):
        return "stars" if all(banner_masked(text) or not text.strip(b"*") for text in texts) else "decorated"
    text = texts[-1]
    if not banner_masked(text) and not (set(text) <= set(b"*") and b"*" in text):
        return "clear"
    if text.startswith(b"SMTP"):
        return "cmap"
    if re.search(rb"(?<!0) ", text):
        # Rule B51 keeps a space only after a 0 (S-HVERA), the other rules keep none; so this greeting is decorated by
        # the server itself.
        return "decorated"
    return "stars but 2 and 0" if re.search(rb"[20]", text) else "stars"


def observe(talk: Talk, after_data: tuple[Answer, Answer] | None) -> Features:
    """The features of a path."""
    answers: Mapping[str, Answer] = talk.answers
    noop, nonsense = answers.get("NOOP"), answers.get(NONSENSE)
    fates = {}
    letters = []
    for command in (NONSENSE, "HELP", "VRFY", "STARTTLS"):
        fates[command], letter = _fate(command, answers.get(command), noop, nonsense)
        letters.append(letter)
    ehlo = answers.get("EHLO")
    if ehlo is not None and ehlo.code == 250 and len(ehlo.lines) > 1:
        # A firewall that turns denied commands into NOOP lets no EHLO through: here the server itself gives the same
        # reply to all commands.
        fates = {command: None if fate == NOOP else fate for command, fate in fates.items()}
    keywords, masked = None, 0
    ehlo_fate: str | None = None
    if ehlo is not None and ehlo.code == 250 and len(ehlo.lines) > 1:
        ehlo_fate = PASSED
        lines = [text.encode("latin-1") for text in ehlo.texts[1:]]
        for line in lines:
            masked += keyword_masked(line, masked)
        words = [line for line in lines if not re.fullmatch(rb"X+[A-Z]", line)]
        keywords = frozenset(re.split(rb"[ =]", word)[0].decode("latin-1").upper() for word in words)
    elif ehlo is not None:
        ehlo_fate, letter = _fate("EHLO", ehlo, noop, nonsense)
        letters.append(letter)
    cut = answers.get("cut NOOP")
    bypass = None
    if after_data is not None and after_data[0].code >= 400:
        fate, _ = _fate(NONSENSE, after_data[1], noop, None)
        bypass = {PASSED: True, MASKED: False, NOOP: False, OK: False}.get(fate or "")
    return Features(
        banner=_banner(talk.greeting),
        ehlo=ehlo_fate,
        nonsense=fates[NONSENSE],
        help=fates["HELP"],
        vrfy=fates["VRFY"],
        letter=next((letter for letter in letters if letter), None),
        keywords=keywords,
        masked_keywords=masked,
        starttls=fates["STARTTLS"],
        tls=_tls(keywords, ehlo, answers.get("STARTTLS"), fates["STARTTLS"]),
        bypass=bypass if fates[NONSENSE] not in (None, PASSED) else None,
        refused=frozenset(name for name in ("EHLO", NONSENSE) if (said := answers.get(name)) and said.code >= 500),
        cut=noop.code == 250 and cut.code >= 500 if cut is not None and noop is not None else None,
    )


def _tls(keywords: frozenset[str] | None, ehlo: Answer | None, asked: Answer | None, fate: str | None) -> str | None:
    """Whether STARTTLS is offered, was removed on the way, or is missing as far as can be seen from here."""
    if keywords is None or ehlo is None:
        return None
    if "STARTTLS" in keywords:
        return "offered"
    masked = any(re.fullmatch(r"X{7}[A-Z]", text) for text in ehlo.texts[1:])
    if masked or fate in (MASKED, NOOP, OK) or (asked is not None and asked.code == 220):
        return "stripped"
    return "absent"


_BANNERS = {
    "clear": (BannerRule.NONE,),
    "decorated": (BannerRule.NONE,),
    "cmap": (BannerRule.B40,),
    "stars": (BannerRule.B44, BannerRule.B51, BannerRule.BASA),
    "stars but 2 and 0": (BannerRule.B51,),
}


def _expected(policy: Policy, verb: str) -> str:
    allowed = {name.upper() for name in policy.commands.allow}
    return PASSED if verb in allowed or "*" in allowed else _FORMS[policy.commands.unknown]


def contradictions(seen: Features, policy: Policy) -> list[str]:
    """Which of the features contradict a path under this policy."""
    wrong = []
    if seen.banner is not None and policy.banner.rule not in _BANNERS[seen.banner]:
        wrong.append("banner")
    verbs = {"ehlo": "EHLO", "nonsense": NONSENSE.upper(), "help": "HELP", "vrfy": "VRFY", "starttls": "STARTTLS"}
    for field in fields(seen):
        fate = getattr(seen, field.name)
        if field.name in verbs and fate is not None and fate != _expected(policy, verbs[field.name]):
            wrong.append(field.name)
    # Every server accepts NOOP: a command answered with 500 or more was not turned into NOOP on the way.
    if NONSENSE in seen.refused and seen.nonsense is None and _FORMS[policy.commands.unknown] in (NOOP, OK):
        wrong.append("nonsense")
    # Servers that repeat a command in the reply may do so in capitals: an X in the reply may have been an x.
    if seen.letter and (seen.letter not in (policy.commands.letter, "X") or _FORMS[policy.commands.unknown] != MASKED):
        wrong.append("letter")
    masks = policy.replies.ehlo is not EhloMask.NONE
    if seen.masked_keywords and not masks:
        wrong.append("keywords")
    if masks and seen.keywords and not seen.keywords <= {word.upper() for word in policy.replies.keywords}:
        wrong.append("keywords")
    if seen.bypass is not None and seen.bypass != policy.bugs.data_bypass:
        wrong.append("bypass")
    return wrong
