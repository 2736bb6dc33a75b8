"""The statements of ``policy-map type inspect esmtp``: matches and actions.

Promises: a statement becomes a value, or the reason why it cannot; old (8.x) and new (9.x) forms alike. Sources:
S-ASA13, S-ASA1-35, S-CSM. Does not know policies.
"""

from __future__ import annotations

from dataclasses import dataclass

from nfmailguard.policy.cisco.text import Statement
from nfmailguard.policy.limits import LIMITS, MOST, PolicyLimit
from nfmailguard.policy.model import Action

__all__ = [
    "KEYWORDS",
    "OTHERS",
    "VERBS",
    "CiscoAction",
    "Fault",
    "Match",
    "number",
    "parse_action",
    "parse_match",
]

#: Stands for every verb or keyword that has no name of its own: Cisco's `others` and `unknown`.
OTHERS = "others"
#: ``match ehlo-reply-parameter`` NAME -> EHLO keyword (recalled, not re-read; ``binaryname`` is Cisco's own
#: misspelling).
KEYWORDS = {
    "8bitmime": "8BITMIME",
    "auth": "AUTH",
    "binarymime": "BINARYMIME",
    "binaryname": "BINARYMIME",
    "checkpoint": "CHECKPOINT",
    "dsn": "DSN",
    "ecode": "ENHANCEDSTATUSCODES",
    "etrn": "ETRN",
    "pipelining": "PIPELINING",
    "size": "SIZE",
    "vrfy": "VRFY",
    "others": OTHERS,
}
_KNOWN_VERBS = "AUTH DATA EHLO ETRN EXPN HELO HELP MAIL NOOP QUIT RCPT RSET SAML SEND SOML VRFY STARTTLS VERB"
#: ``match cmd verb`` NAME -> verb: fifteen are from S-COMM2; EXPN, STARTTLS, VERB (IOS has all three) and unknown are
#: recalled.
VERBS = {
    **{name.lower(): name for name in _KNOWN_VERBS.split()},
    "unknown": OTHERS,
    "others": OTHERS,
}


#: ``match`` words, lower case, of each limit that an ASA can set.
_LIMITS = {tuple(limit.cisco.lower().split()): limit for limit in LIMITS if limit.cisco}
_NAMES: dict[tuple[str, ...], dict[str, str] | str] = {
    ("cmd", "verb"): VERBS,
    ("ehlo-reply-parameter",): KEYWORDS,
    ("mime", "encoding"): "MIME parts are not read",
}
_PATTERNS = {
    ("sender-address", "regex"): "addresses are not compared with patterns",
    ("mime", "filetype", "regex"): "MIME parts are not read",
}
_FIRST = "body, cmd, ehlo-reply-parameter, header, invalid-recipients, mime, sender-address"


class Fault(Exception):  # noqa: N818, told of a line, never raised to a caller
    """A statement that cannot be used; ``syntax``: it is a known statement, wrongly written."""

    def __init__(self, what: str, *, syntax: bool = True) -> None:
        super().__init__(what)
        self.syntax = syntax


@dataclass(frozen=True)
class Match:
    """One ``match``. ``refusal`` says why it cannot be evaluated here.

    ``limit`` with ``most``: matches above it. ``subject`` with ``names``: matches those. ``pattern``: the regex, or the
    class of regexes, it needs.
    """

    statement: Statement
    negated: bool
    subject: tuple[str, ...]
    limit: PolicyLimit | None = None
    most: int = 0
    names: tuple[str, ...] = ()
    pattern: str | None = None
    pattern_is_class: bool = False
    refusal: str | None = None


@dataclass(frozen=True)
class CiscoAction:
    """An action. ``action`` None: not available here; ``note``: the part that is not honoured."""

    statement: Statement
    action: Action | None
    note: str | None = None


def number(text: str, unit: str) -> int:
    """A count of ``unit``, at least 1; the Fault says what is legal."""
    # At most ten digits are converted: int() of a very long line of digits takes more than linear time.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= MOST):
        raise Fault(f"{text[:40]!r} is no number of {unit}; write one from 1 to {MOST}")
    return int(text)


def parse_match(statement: Statement) -> Match:
    """Parses ``match [not] SUBJECT ...``; Fault if it is no match."""
    words = statement.keywords[1:]
    negated = words[:1] == ("not",)
    words = words[negated:]
    raw = statement.words[1 + negated :]
    for size in (3, 2, 1):
        subject, rest = words[:size], words[size:]
        if subject in _LIMITS:
            return _limit(statement, negated, subject, rest)
        if subject in _NAMES:
            return _names(statement, negated, subject, rest)
        if subject in _PATTERNS:
            return _pattern(statement, negated, subject, raw[size:])
    raise Fault(f"no match of mail inspection known here; known are {_FIRST}", syntax=False)


def _limit(statement: Statement, negated: bool, subject: tuple[str, ...], rest: tuple[str, ...]) -> Match:
    known = _LIMITS[subject]
    if len(rest) != 2 or rest[0] != "gt":
        raise Fault(f"write match {' '.join(subject)} gt NUMBER")
    most = number(rest[1], known.unit)
    refusal = "a limit turned round by `not` has no counterpart" if negated else None
    return Match(statement, negated, subject, limit=known, most=most, refusal=refusal)


def _names(statement: Statement, negated: bool, subject: tuple[str, ...], rest: tuple[str, ...]) -> Match:
    known = _NAMES[subject]
    if not rest:
        raise Fault(f"write match {' '.join(subject)} NAME [NAME ...]")
    if isinstance(known, str):
        return Match(statement, negated, subject, refusal=known)
    strange = [name for name in rest if name not in known]
    refusal = f"{strange[0]!r} is none of {', '.join(known)}" if strange else None
    names = tuple(dict.fromkeys(known[name] for name in rest if name in known))
    return Match(statement, negated, subject, names=names, refusal=refusal)


def _pattern(statement: Statement, negated: bool, subject: tuple[str, ...], rest: tuple[str, ...]) -> Match:
    is_class = len(rest) == 2 and rest[0].lower() == "class"
    if len(rest) != 1 + is_class:
        raise Fault(f"write match {' '.join(subject)} NAME, or ... class NAME")
    return Match(statement, negated, subject, pattern=rest[-1], pattern_is_class=is_class, refusal=_PATTERNS[subject])


_ACTIONS = {
    "log": Action.LOG,
    "mask": Action.MASK,
    "reset": Action.RESET,
    "drop-connection": Action.DROP_CONNECTION,
    # `drop` drops only the packet (S-ASA1-35), but TCP retransmits it and it is dropped again, so the connection is
    # over either way: treated as drop-connection.
    "drop": Action.DROP_CONNECTION,
}


def parse_action(statement: Statement) -> CiscoAction:
    """Parses actions such as ``drop-connection log``; Fault if it is none."""
    words = statement.keywords
    first, rest = words[0], list(words[1:])
    if first == "rate-limit":
        if len(rest) != 1:
            raise Fault("write rate-limit MESSAGES-A-SECOND")
        number(rest[0], "messages a second")
        return CiscoAction(statement, None, "the rate of messages is not limited")
    if first not in _ACTIONS:
        raise Fault(f"not known in a map; actions are {', '.join(_ACTIONS)}, rate-limit", syntax=False)
    note = None
    if first == "drop":
        note = "one packet is not dropped by itself: read as drop-connection"
    if first in ("drop", "drop-connection") and rest[:1] == ["send-protocol-error"]:
        note = "no protocol error is sent: read as drop-connection"
        del rest[0]
    if rest not in ([], ["log"]) or (first == "log" and rest):
        raise Fault(f"{' '.join(rest)!r} does not belong here; write {first}{'' if first == 'log' else ' [log]'}")
    return CiscoAction(statement, _ACTIONS[first], note)
