"""Turns the lines of one ``policy-map type inspect esmtp``, in order, into a Policy.

Promises: each line is noted in the import report: honoured and how, not honoured and why, or an error. Does not know
what a Policy can express (``builder``), nor the rest of a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nfmailguard.policy.cisco.builder import PolicyBuilder, Rule
from nfmailguard.policy.cisco.match import CiscoAction, Fault, Match, parse_action, parse_match
from nfmailguard.policy.cisco.text import ImportReport, Section, Statement
from nfmailguard.policy.model import Action, Policy

__all__ = ["Definitions", "read_map"]

#: Most conditions that all classes named by maps may add up to: many maps may name the same long class, which would
#: make a short text expensive.
_MOST_CONDITIONS = 10_000
_FORMS = {
    "mask-banner": "mask-banner",
    "mail-relay": "mail-relay DOMAIN action drop-connection or log",
    "special-character": "special-character action drop-connection or log",
    "allow-tls": "allow-tls, or allow-tls action log",
}


@dataclass
class Definitions:
    """Definitions that a map may refer to, by name; ``used`` collects the classes and patterns referred to, with the
    line.
    """

    regexes: Mapping[str, Section]
    regex_classes: Mapping[str, Section]
    mail_classes: Mapping[str, Section]
    used: dict[tuple[str, str], str]
    conditions: int = 0  # Number of conditions so far that classes named by maps have added.


def read_map(
    section: Section, name: str, known: Definitions, report: ImportReport, *, base: str | None = None
) -> tuple[Policy, dict[str, str]]:
    """The policy of a map, and for each key of it the line it comes from.

    ``base``: the profile that has the settings the map does not mention; none: an ASA, whose maps replace its default
    one.
    """
    report.honoured(section.header, f"policy {name}")
    reader = _Reader(PolicyBuilder(name, report, base), known, report)
    for statement in section.body:
        reader.statement(statement)
    reader.close()
    return reader.builder.policy(reader.rules), reader.builder.sources


class _Reader:
    """Reads the map's lines in order: rules are collected, parameters go to the builder."""

    def __init__(self, builder: PolicyBuilder, known: Definitions, report: ImportReport) -> None:
        self.builder = builder
        self.known = known
        self.report = report
        self.rules: list[Rule] = []
        # The match or class line whose action line has not come yet; None: no line is waiting.
        self._open: Statement | None = None
        self._matches: list[Match] = []
        self._done: CiscoAction | None = None

    def statement(self, statement: Statement) -> None:
        word = statement.keywords[0]
        try:
            if word == "match":
                self._begin(statement, [parse_match(statement)])
            elif word == "class":
                self._begin(statement, self._class(statement))
            elif word in ("parameters", "description", "exit"):
                self.close()
                self._plain(statement, word)
            elif self._parameter(statement):
                self.close()
            elif word == "no":
                raise Fault("a line that takes one away: give the whole running configuration", syntax=False)
            else:
                self._act(statement)
        except Fault as fault:
            if fault.syntax:
                self.report.error(statement, str(fault))
            else:
                self.report.not_honoured(statement, str(fault))
            if word in ("match", "class") or self._open is None or self._done is not None:
                self.close()
                # Action lines that follow belong to this faulty line, not to the match or class line before it.
                self._open = statement

    def close(self) -> None:
        """Reports match or class lines that still wait for an action, as no action follows."""
        waiting = (self._open, *(match.statement for match in self._matches)) if self._done is None else ()
        for statement in waiting:
            if statement is not None and statement not in self.report:
                self.report.not_honoured(statement, "no action follows it")
        self._open, self._matches, self._done = None, [], None

    def _begin(self, statement: Statement, matches: list[Match]) -> None:
        self.close()
        self._open, self._matches = statement, matches

    def _class(self, statement: Statement) -> list[Match]:
        if len(statement.words) != 2:
            raise Fault("write class NAME")
        name = statement.words[1]
        section = self.known.mail_classes.get(name)
        if section is None:
            raise Fault(f"no class-map type inspect esmtp {name} in this text; give all of it")
        self.known.used.setdefault(("class", name), statement.place)
        self.report.honoured(section.header, "with the maps that name it")
        self.known.conditions += len(section.body)
        if self.known.conditions > _MOST_CONDITIONS:
            raise Fault(f"classes stand for more than {_MOST_CONDITIONS} conditions by now", syntax=False)
        found = []
        for line in section.body:
            if line.keywords[0] == "match":
                try:
                    found.append(parse_match(line))
                except Fault as fault:
                    (self.report.error if fault.syntax else self.report.not_honoured)(line, str(fault))
            elif line.keywords[0] in ("description", "exit"):
                self.report.honoured(line, "changes nothing")
            else:
                self.report.not_honoured(line, "not known inside a class of mail inspection")
        if not found:
            raise Fault(f"class {name} has no match that can be read", syntax=False)
        if len(found) > 1 and "match-any" not in section.header.keywords:
            for match in found:
                self.report.not_honoured(match.statement, "match-all: only one condition at a time is looked at")
            raise Fault(f"class {name} wants all of its lines to match", syntax=False)
        return found

    def _plain(self, statement: Statement, word: str) -> None:
        if word == "description" and len(statement.words) > 1:
            self.builder.set("title", " ".join(statement.words[1:]), statement)
            self.report.honoured(statement, "the title")
        else:
            self.report.honoured(statement, "changes nothing by itself")

    def _act(self, statement: Statement) -> None:
        cisco_action = parse_action(statement)
        if self._open is None:
            raise Fault("an action without a match before it")
        if self._done is not None:
            raise Fault(f"a match has one action here, that of {self._done.statement.place}", syntax=False)
        self._done = cisco_action
        if self.report.status(self._open) is not None and not self._matches:
            self.report.not_honoured(statement, f"belongs to {self._open.place}")
            return
        for match in self._matches:
            rule = Rule(match, cisco_action, self._open if match.statement is not self._open else None)
            refusal = self._refusal(match) or (None if cisco_action.action else cisco_action.note)
            if refusal:
                self.builder.refuse(rule, refusal)
            else:
                self.rules.append(rule)

    def _refusal(self, match: Match) -> str | None:
        if match.pattern is not None:
            kind = "class-map type regex" if match.pattern_is_class else "regex"
            defined = self.known.regex_classes if match.pattern_is_class else self.known.regexes
            self.known.used.setdefault((kind, match.pattern), match.statement.place)
            if match.pattern not in defined:
                self.report.error(match.statement, f"no {kind} {match.pattern} in this text; give all of it")
        return match.refusal

    def _parameter(self, statement: Statement) -> bool:
        """Applies a parameter such as ``mask-banner``, or one with ``no``; whether the line is one."""
        words = statement.keywords
        off = words[0] == "no"
        name, rest = "".join(words[off : off + 1]), words[off + 1 :]
        if name not in _FORMS:
            return False
        if off:
            self.builder.parameter(name, None, statement)
        elif name == "mask-banner" and not rest:
            self.builder.parameter(name, Action.MASK, statement)
        elif name == "allow-tls" and rest in ((), ("action", "log")):
            self.builder.parameter(name, Action.LOG if rest else Action.PASS, statement)
        elif name == "special-character" and rest[:1] == ("action",):
            self.builder.parameter(name, self._parameter_action(name, rest[1:]), statement)
        elif name == "mail-relay" and rest[1:2] == ("action",):
            self._parameter_action(f"{name} DOMAIN", rest[2:])
            self.report.not_honoured(statement, "recipients' domains are not looked at")
        else:
            raise Fault(f"write {_FORMS[name]}")
        return True

    def _parameter_action(self, name: str, words: tuple[str, ...]) -> Action:
        if words not in (("log",), ("drop-connection",), ("drop-connection", "log")):
            raise Fault(f"write {name} action drop-connection or log")
        return Action(words[0])
