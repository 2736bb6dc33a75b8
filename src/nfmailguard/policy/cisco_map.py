"""The lines of one ``policy-map type inspect esmtp``, in order, become a Policy.

Promises: each line is noted in the ledger: honoured and as what, not honoured and why, or
an error. Does not know what a Policy can express (``cisco_draft``), nor the rest of a
configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nfmailguard.policy.cisco_draft import Draft, Rule
from nfmailguard.policy.cisco_match import Deed, Fault, Match, parse_deed, parse_match
from nfmailguard.policy.cisco_text import Ledger, Section, Statement
from nfmailguard.policy.model import Action, Policy

__all__ = ["Definitions", "read_map"]

#: Many maps may name one long class: what they stand for is bounded, as the text is.
_MOST_CONDITIONS = 10_000
_FORMS = {
    "mask-banner": "mask-banner",
    "mail-relay": "mail-relay DOMAIN action drop-connection or log",
    "special-character": "special-character action drop-connection or log",
    "allow-tls": "allow-tls, or allow-tls action log",
}


@dataclass
class Definitions:
    """What a map may name, by name; ``used`` collects the classes and patterns that are named, with the line."""

    regexes: Mapping[str, Section]
    regex_classes: Mapping[str, Section]
    mail_classes: Mapping[str, Section]
    used: dict[tuple[str, str], str]
    conditions: int = 0  # that classes have stood for


def read_map(section: Section, name: str, known: Definitions, ledger: Ledger) -> tuple[Policy, dict[str, str]]:
    """The policy of a map, and for each key of it the line it comes from."""
    ledger.honoured(section.header, f"policy {name}")
    reader = _Reader(Draft(name, ledger), known, ledger)
    for statement in section.body:
        reader.statement(statement)
    reader.close()
    return reader.draft.policy(reader.rules), reader.draft.sources


class _Reader:
    """The map's lines in order: rules are collected, parameters go into the draft."""

    def __init__(self, draft: Draft, known: Definitions, ledger: Ledger) -> None:
        self.draft = draft
        self.known = known
        self.ledger = ledger
        self.rules: list[Rule] = []
        self._open: Statement | None = None  # a match or class that waits for its action
        self._matches: list[Match] = []
        self._done: Deed | None = None

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
                self.ledger.error(statement, str(fault))
            else:
                self.ledger.not_honoured(statement, str(fault))
            if word in ("match", "class") or self._open is None or self._done is not None:
                self.close()
                self._open = statement  # what is done then belongs to it

    def close(self) -> None:
        """What waits for an action gets none."""
        if self._open is not None and self._done is None and self._open not in self.ledger:
            self.ledger.not_honoured(self._open, "no action follows it")
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
        self.ledger.honoured(section.header, "with the maps that name it")
        self.known.conditions += len(section.body)
        if self.known.conditions > _MOST_CONDITIONS:
            raise Fault(f"classes stand for more than {_MOST_CONDITIONS} conditions by now", syntax=False)
        found = []
        for line in section.body:
            if line.keywords[0] == "match":
                try:
                    found.append(parse_match(line))
                except Fault as fault:
                    (self.ledger.error if fault.syntax else self.ledger.not_honoured)(line, str(fault))
            elif line.keywords[0] in ("description", "exit"):
                self.ledger.honoured(line, "changes nothing")
            else:
                self.ledger.not_honoured(line, "not known inside a class of mail inspection")
        if not found:
            raise Fault(f"class {name} has no match that can be read", syntax=False)
        if len(found) > 1 and "match-any" not in section.header.keywords:
            for match in found:
                self.ledger.not_honoured(match.statement, "match-all: only one condition at a time is looked at")
            raise Fault(f"class {name} wants all of its lines to match", syntax=False)
        return found

    def _plain(self, statement: Statement, word: str) -> None:
        if word == "description" and len(statement.words) > 1:
            self.draft.set("title", " ".join(statement.words[1:]), statement)
            self.ledger.honoured(statement, "the title")
        else:
            self.ledger.honoured(statement, "changes nothing by itself")

    def _act(self, statement: Statement) -> None:
        deed = parse_deed(statement)
        if self._open is None:
            raise Fault("an action without a match before it")
        if self._done is not None:
            raise Fault(f"a match has one action here, that of {self._done.statement.place}", syntax=False)
        self._done = deed
        if self.ledger.status(self._open) is not None and not self._matches:
            self.ledger.not_honoured(statement, f"belongs to {self._open.place}")
            return
        for match in self._matches:
            rule = Rule(match, deed, self._open if match.statement is not self._open else None)
            refusal = self._refusal(match) or (None if deed.action else deed.note)
            if refusal:
                self.draft.refuse(rule, refusal)
            else:
                self.rules.append(rule)

    def _refusal(self, match: Match) -> str | None:
        if match.pattern is not None:
            kind = "class-map type regex" if match.pattern_is_class else "regex"
            defined = self.known.regex_classes if match.pattern_is_class else self.known.regexes
            self.known.used.setdefault((kind, match.pattern), match.statement.place)
            if match.pattern not in defined:
                self.ledger.error(match.statement, f"no {kind} {match.pattern} in this text; give all of it")
        return match.refusal

    def _parameter(self, statement: Statement) -> bool:
        """``mask-banner`` and its like, or one with ``no``; whether it is one."""
        words = statement.keywords
        off = words[0] == "no"
        name, rest = "".join(words[off : off + 1]), words[off + 1 :]
        if name not in _FORMS:
            return False
        if off:
            self.draft.parameter(name, None, statement)
        elif name == "mask-banner" and not rest:
            self.draft.parameter(name, Action.MASK, statement)
        elif name == "allow-tls" and rest in ((), ("action", "log")):
            self.draft.parameter(name, Action.LOG if rest else Action.PASS, statement)
        elif name == "special-character" and rest[:1] == ("action",):
            self.draft.parameter(name, self._parameter_action(name, rest[1:]), statement)
        elif name == "mail-relay" and rest[1:2] == ("action",):
            self._parameter_action(f"{name} DOMAIN", rest[2:])
            self.ledger.not_honoured(statement, "recipients' domains are not looked at")
        else:
            raise Fault(f"write {_FORMS[name]}")
        return True

    def _parameter_action(self, name: str, words: tuple[str, ...]) -> Action:
        if words not in (("log",), ("drop-connection",), ("drop-connection", "log")):
            raise Fault(f"write {name} action drop-connection or log")
        return Action(words[0])
