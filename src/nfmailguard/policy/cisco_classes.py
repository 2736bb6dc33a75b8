"""Which traffic a configuration inspects: ``class-map``, ``policy-map``, ``access-list``, ``service-policy``.

Promises: every line that has a part in where mail is inspected is noted in the ledger; of
all it may say, ports are honoured, for hosts and interfaces are a ``[[rule]]``'s to say.
Does not know what an inspection does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nfmailguard.policy.cisco_match import Fault
from nfmailguard.policy.cisco_ports import MAIL, parse_range
from nfmailguard.policy.cisco_text import Ledger, Section, Statement

__all__ = ["Inspect", "inspect_traffic"]

#: Called with an ``inspect`` line, the ports it is for, and whether any service-policy applies it.
Inspect = Callable[[Statement, int, bool], None]

_ANY = frozenset({"any", "any4", "any6"})
_MODES = frozenset({"match-any", "match-all"})


def inspect_traffic(sections: Sequence[Section], ledger: Ledger, inspect: Inspect) -> None:
    """Calls ``inspect`` for each ``inspect esmtp`` or ``inspect smtp`` inside a class."""
    traffic = _Traffic(ledger)
    for section in sections:
        traffic.define(section)
    for section in sections:
        words = section.header.keywords
        if words[0] == "policy-map" and words[1:2] != ("type",) and len(words) == 2:
            traffic.policy_map(section, inspect)


def _inspects_mail(statement: Statement) -> bool:
    words = statement.keywords
    words = words[1:] if words[0] == "no" else words
    return words[0:1] == ("inspect",) and words[1:2] in (("esmtp",), ("smtp",))


class _Traffic:
    """What is defined, by name."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.classes: dict[str, list[Section]] = {}
        self.access_lists: dict[str, list[Statement]] = {}
        self.services: dict[str, list[Statement]] = {}
        self._ports: dict[str, int] = {}  # of classes and access lists that have been read

    def define(self, section: Section) -> None:
        header = section.header
        words = header.keywords
        if (
            words[0] == "class-map"
            and words[1:2] != ("type",)
            and len(words) - len(_MODES.intersection(words[1:2])) == 2
        ):
            self.classes.setdefault(header.words[-1], []).append(section)
        elif words[0] == "access-list" and len(words) > 2:
            self.access_lists.setdefault(header.words[1], []).append(header)
        elif words[0] == "service-policy" and len(words) > 2:
            self.services.setdefault(header.words[1], []).append(header)

    def policy_map(self, section: Section, inspect: Inspect) -> None:
        selector: Statement | None = None
        name = section.header.words[1]
        for statement in section.body:
            if statement.keywords[0] == "class" and len(statement.words) > 1:
                selector = statement
            elif _inspects_mail(statement):
                if selector is None:
                    self.ledger.error(statement, "stands in no class; write class NAME above it")
                elif statement.keywords[0] == "no":
                    self.ledger.honoured(statement, f"mail of class {selector.words[1]} is not inspected")
                else:
                    self.ledger.honoured(section.header, "where mail is inspected")
                    inspect(statement, self._of_class(selector), self._is_applied(name, statement))

    def _is_applied(self, name: str, statement: Statement) -> bool:
        if not self.services:
            return True  # a part of a configuration
        services = self.services.get(name)
        if services is None:
            self.ledger.not_honoured(statement, f"no service-policy applies policy-map {name}")
            return False
        while services:
            service = services.pop()  # told once, however many inspections it applies
            if service.keywords[2] == "global":
                self.ledger.honoured(service, "where mail is inspected")
            else:
                where = " ".join(service.words[2:4])
                self.ledger.not_honoured(service, f'only on {where}: a [[rule]] says so (in = "...")')
        return True

    def _of_class(self, selector: Statement) -> int:
        name = selector.words[1]
        self.ledger.honoured(selector, "where mail is inspected")
        if name not in self._ports:
            self._ports[name] = self._read_class(selector, name)
        return self._ports[name]

    def _read_class(self, selector: Statement, name: str) -> int:
        if name == "class-default":
            self.ledger.not_honoured(selector, "all traffic: port 25 is taken, gateway.ports may name more")
            return MAIL
        if name not in self.classes:
            if name != "inspection_default":  # a box has this one by itself
                self.ledger.error(selector, f"no class-map {name} in this text; give all of it")
            return MAIL
        ports = 0
        for section in self.classes[name]:
            self.ledger.honoured(section.header, "where mail is inspected")
            for statement in section.body:
                try:
                    ports |= self._match(statement)
                except Fault as fault:
                    (self.ledger.error if fault.syntax else self.ledger.not_honoured)(statement, str(fault))
        return ports or MAIL

    def _match(self, statement: Statement) -> int:
        words = statement.keywords
        if words[0] in ("description", "exit"):
            return 0
        ports = 0
        if words == ("match", "default-inspection-traffic"):
            ports = MAIL
        elif words[:4] == ("match", "port", "tcp", "eq") and len(words) == 5:
            ports = parse_range(words[4], words[4])
        elif words[:4] == ("match", "port", "tcp", "range") and len(words) == 6:
            ports = parse_range(words[4], words[5])
        elif words[:2] == ("match", "access-list") and len(words) == 3:
            ports = self._of_access_list(statement, statement.words[2])
        else:
            raise Fault("traffic is told apart by its port alone", syntax=False)
        self.ledger.honoured(statement, "where mail is inspected")
        return ports

    def _of_access_list(self, statement: Statement, name: str) -> int:
        if name not in self.access_lists:
            raise Fault(f"no access-list {name} in this text; give all of it")
        key = f"access-list {name}"
        if key not in self._ports:
            ports = 0
            for entry in self.access_lists[name]:
                try:
                    ports |= self._entry(entry)
                except Fault as fault:
                    self.ledger.not_honoured(entry, str(fault))
            self._ports[key] = ports
        return self._ports[key]

    def _entry(self, entry: Statement) -> int:
        """The ports of one entry; hosts it names are not honoured."""
        words = list(entry.keywords[2:])
        if words[0] == "remark":
            return 0
        if words[0] == "line":
            del words[:2]
        words = words[words[:1] == ["extended"] :]
        if words[:2] != ["permit", "tcp"]:
            raise Fault("only `permit tcp` is looked at; a [[rule]] says which flows are inspected and which are not")
        ports = 0
        for place, word in enumerate(words[-5:], start=max(0, len(words) - 5)):
            if word == "eq" and place + 1 < len(words):
                ports = parse_range(words[place + 1], words[place + 1])
            elif word == "range" and place + 2 < len(words):
                ports = parse_range(words[place + 1], words[place + 2])
        if not (len(words) > 4 and words[2] in _ANY and words[3] in _ANY and words[4] in ("eq", "range")):
            self.ledger.not_honoured(entry, "its ports are taken; a [[rule]] says which hosts (from, to)")
        else:
            self.ledger.honoured(entry, "where mail is inspected")
        return ports
