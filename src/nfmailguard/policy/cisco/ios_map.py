"""Layer 7 of IOS' zone-based firewall: translates ``class-map`` and ``policy-map type inspect smtp`` into ASA lines.

Promises: each line is noted in the import report, as those of ``type inspect esmtp`` are; what such a map does not
mention is as in profile ios-esmtp. Sources: the guide "Application Inspection and Control for SMTP" and the command
reference of IOS. Does not know which map is applied where.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nfmailguard.policy.cisco.map import Definitions, read_map
from nfmailguard.policy.cisco.text import ImportReport, Section, Statement
from nfmailguard.policy.model import Policy

__all__ = ["BASE", "read_layer7"]

#: The profile that has the settings an IOS map leaves open.
BASE = "ios-esmtp"
_SMTP = ("type", "inspect", "smtp")
_MODES = ("match-any", "match-all")
#: Match subjects that IOS names differently: the IOS words, and the ASA's words for the same subject.
_SUBJECTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("recipient", "count"), ("cmd", "rcpt", "count")),
    (("recipient", "invalid", "count"), ("invalid-recipients", "count")),
    (("reply", "ehlo"), ("ehlo-reply-parameter",)),
    (("data-length",), ("body", "length")),
)
_NO_PATTERNS = "texts are not compared with patterns"
_REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("body", "regex"), _NO_PATTERNS),
    (("header", "regex"), _NO_PATTERNS),
    (("recipient", "address", "regex"), _NO_PATTERNS),
    (("sender", "address", "regex"), _NO_PATTERNS),
    (("mime", "content-type", "regex"), _NO_PATTERNS),
    (("mime", "encoding"), "MIME parts are not read"),
)


def read_layer7(sections: Iterable[Section], report: ImportReport) -> dict[str, tuple[Policy, int, dict[str, str]]]:
    """The policies by name, each with its line's number and, for each key, the line it comes from."""
    classes: dict[str, Section] = {}
    maps: dict[str, Section] = {}
    for section in sections:
        words = section.header.keywords
        off = words[0] == "no"
        kind, rest = "".join(words[off : off + 1]), [word for word in words[off + 1 :] if word not in _MODES]
        known = {"class-map": classes, "policy-map": maps}.get(kind)
        if known is None or tuple(rest[:3]) != _SMTP or len(rest) > 4:
            continue
        if len(rest) != 4:
            report.error(section.header, f"write {kind} type inspect smtp NAME")
        elif off:
            taken = known.pop(section.header.words[-1], None)
            report.honoured(section.header, "off")
            for statement in (taken.header, *taken.body) if taken else ():
                report.honoured(statement, f"taken back by {section.header.place}")
        else:
            _define(known, section, report)
    used: dict[tuple[str, str], str] = {}
    definitions = Definitions({}, {}, {name: _class(one, report) for name, one in classes.items()}, used)
    found = {}
    for name, one in maps.items():
        policy, sources = read_map(_map(one), name, definitions, report, base=BASE)
        found[name] = policy, one.header.number, sources
    for name, one in classes.items():
        if ("class", name) not in used:
            for statement in (one.header, *one.body):
                report.not_honoured(statement, "no map of mail inspection names this class")
    return found


def _define(known: dict[str, Section], section: Section, report: ImportReport) -> None:
    before = known.get(section.header.words[-1])
    if before is None:
        known[section.header.words[-1]] = Section(section.header, list(section.body))
    else:
        before.body.extend(section.body)
        report.honoured(section.header, f"goes on with {before.header.place}")


def _map(section: Section) -> Section:
    """A map with ``class type inspect smtp NAME`` written as ``class NAME``."""
    body = [
        replace(line, words=("class", line.words[-1]))
        if line.keywords[:4] == ("class", *_SMTP) and len(line.words) == 5
        else line
        for line in section.body
    ]
    return Section(section.header, body)


def _class(section: Section, report: ImportReport) -> Section:
    """A class with its matches in ASA words; matches the ASA does not have are reported, and left as they are."""
    return Section(section.header, [_match(line, report) for line in section.body])


def _match(line: Statement, report: ImportReport) -> Statement:
    words = line.keywords
    if words[0] != "match":
        return line
    for subject, why in _REFUSED:
        if words[1 : 1 + len(subject)] == subject:
            report.not_honoured(line, why)
    for subject, ours in _SUBJECTS:
        if words[1 : 1 + len(subject)] == subject:
            if subject == ("data-length",):
                report.not_honoured(line, "the header counts there, too: only the body does for data.body_length")
            return replace(line, words=("match", *ours, *line.words[1 + len(subject) :]))
    return line
