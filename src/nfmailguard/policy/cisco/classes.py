"""Which traffic a configuration inspects: ``class-map``, ``policy-map``, ``access-list``, ``service-policy``.

Promises: lines are processed in order, as a Cisco device does, and the last one wins; every line that affects where
mail is inspected is noted in the import report; what holds only for some interfaces or hosts becomes a DraftedRule.
Does not know what an inspection does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nfmailguard.policy.cisco.lists import Entry, Lists
from nfmailguard.policy.cisco.match import Fault
from nfmailguard.policy.cisco.ports import EVERY, MAIL, parse_range
from nfmailguard.policy.cisco.text import ImportReport, Section, Statement

__all__ = ["Inspection", "Traffic", "inspect_traffic"]

_MODES = frozenset({"match-any", "match-all"})
_MAIL_PROTOCOLS = ("esmtp", "smtp")


@dataclass(frozen=True)
class Inspection:
    """One ``inspect esmtp`` or ``inspect smtp`` that is in force at the end, and where it applies.

    ``interface`` None: all. ``entries``: those of its class's access lists, in order; none: every host.
    """

    statement: Statement
    ports: int
    applied: bool
    interface: str | None = None
    service: Statement | None = None
    entries: tuple[Entry, ...] = ()


@dataclass
class Traffic:
    """The traffic a configuration inspects. ``exceptions``: interfaces where mail is not inspected, though it is
    elsewhere.
    """

    inspections: list[Inspection] = field(default_factory=list)
    exceptions: list[tuple[str, Statement]] = field(default_factory=list)
    #: The configuration line that switched a mail inspection off, with no later line switching it on again; None: no
    #: such line.
    off: Statement | None = None


@dataclass
class _Class:
    """A class inside a policy-map, after the lines read so far; ``selectors``: each line that selects its traffic."""

    selectors: list[Statement]
    mail: dict[str, Statement] = field(default_factory=dict)
    others: bool = False
    off: Statement | None = None

    @property
    def name(self) -> str:
        return self.selectors[0].words[-1]


@dataclass
class _PolicyMap:
    headers: list[Statement]
    classes: dict[str, _Class] = field(default_factory=dict)

    @property
    def inspects(self) -> bool:
        return any(one.mail or one.others or one.off for one in self.classes.values())

    @property
    def inspects_mail(self) -> bool:
        return any(one.mail for one in self.classes.values())


def inspect_traffic(sections: Sequence[Section], report: ImportReport) -> Traffic:
    """The mail inspections that are in force after all lines, in order, each with its ports and where it is applied."""
    reader = _Reader(report)
    for section in sections:
        reader.section(section)
    return reader.result()


class _Reader:
    """All definitions by name, after the lines read so far."""

    def __init__(self, report: ImportReport) -> None:
        self.report = report
        self.lists = Lists()
        self.classes: dict[str, list[Section]] = {}
        self.policies: dict[str, _PolicyMap] = {}
        #: The service-policy line of each interface (None: global); a Cisco firewall has one policy for each.
        self.services: dict[str | None, Statement] = {}
        self.said_services = False
        # Pairs of service-policy lines: one that was replaced, and the later one that replaced it.
        self.replaced: list[tuple[Statement, Statement]] = []
        self.traffic = Traffic()
        self._read: dict[str, tuple[int, tuple[Entry, ...]]] = {}

    def section(self, section: Section) -> None:
        header, words = section.header, section.header.keywords
        self.lists.define(section)
        off = words[0] == "no"
        words = words[off:]
        names = header.words[off:]
        if words[:1] == ("class-map",) and words[1:2] != ("type",):
            if off:
                self.classes.pop(names[-1], None)
            elif len(words) - len(_MODES.intersection(words[1:2])) == 2:
                self.classes.setdefault(names[-1], []).append(section)
        elif words[:1] == ("service-policy",) and len(words) > 2:
            self._service(header, names, off)
        elif words[:1] == ("policy-map",) and words[1:2] != ("type",) and len(words) == 2:
            if off:
                self._remove(self.policies.pop(names[1], None), header)
            else:
                self._policy_map(section)
        elif words[:2] == ("clear", "configure"):
            self._clear(header, words[2:3])

    def _service(self, header: Statement, names: tuple[str, ...], off: bool) -> None:
        where = names[2].lower()
        if where not in ("global", "interface"):
            return
        self.said_services = True
        interface = names[3] if where == "interface" and len(names) > 3 else None
        if not off:
            before = self.services.get(interface)
            if before is not None:
                self.replaced.append((before, header))
            self.services[interface] = header
        elif interface in self.services:
            before = self.services.pop(interface)
            if before.words[1] in self.policies and self.policies[before.words[1]].inspects_mail:
                self.traffic.off = header
                self.report.honoured(header, "off")
                self.report.honoured(before, f"taken back by {header.place}")

    def _clear(self, header: Statement, what: tuple[str, ...]) -> None:
        if what in (("service-policy",), ("all",)) and self.services:
            self.services.clear()
            self.traffic.off = header
            self.report.honoured(header, "off")
        if what in (("policy-map",), ("all",)):
            for known in self.policies.values():
                self._remove(known, header)
            self.policies.clear()

    def _remove(self, known: _PolicyMap | None, header: Statement) -> None:
        if known is None:
            return
        for one in known.classes.values():
            self._switch_off(one, header)

    def _switch_off(self, one: _Class, header: Statement) -> None:
        for before in one.mail.values():
            self.report.honoured(before, f"taken back by {header.place}")
            self.report.honoured(header, f"off: {before.place} is taken back")
            self.traffic.off = one.off = header
        one.mail.clear()

    # Section: reading policy maps.

    def _policy_map(self, section: Section) -> None:
        known = self.policies.setdefault(section.header.words[1], _PolicyMap([]))
        known.headers.append(section.header)
        one: _Class | None = None
        for statement in section.body:
            words = statement.keywords
            off = words[0] == "no"
            kind = words[off : off + 1]
            if kind == ("class",) and len(words) > 1 + off:
                name = statement.words[-1]
                if off and name in known.classes:
                    self._switch_off(known.classes.pop(name), statement)
                elif not off:
                    one = known.classes.setdefault(name, _Class([]))
                    one.selectors.append(statement)
            elif kind == ("inspect",):
                self._inspect(one, statement, words[1 + off : 2 + off], off)

    def _inspect(self, one: _Class | None, statement: Statement, protocol: tuple[str, ...], off: bool) -> None:
        mail = "".join(protocol) in _MAIL_PROTOCOLS
        if one is None:
            if mail:
                self.report.error(statement, "stands in no class; write class NAME above it")
        elif not mail:
            one.others = one.others or not off
        elif off:
            before = one.mail.pop(protocol[0], None)
            one.off = self.traffic.off = statement
            self.report.honoured(statement, f"mail of class {one.name} is not inspected")
            if before is not None:
                self.report.honoured(before, f"taken back by {statement.place}")
        else:
            before = one.mail.get(protocol[0])
            if before is not None and before is not statement:
                self.report.honoured(before, f"{statement.place} takes its place")
            one.mail[protocol[0]], one.off = statement, None

    # Section: the result, from the lines that are still in force at the end of the text.

    def result(self) -> Traffic:
        used = {name: known for name, known in self.policies.items() if known.inspects_mail}
        # A text without any service-policy line is an excerpt of a configuration: all its policies are taken as
        # applied.
        if not self.said_services:
            for known in used.values():
                self._left(known, applied=True)
            return self.traffic
        by_policy: dict[str, list[tuple[str | None, Statement]]] = {}
        for interface, service in self.services.items():
            by_policy.setdefault(service.words[1], []).append((interface, service))
        for name, known in used.items():
            if name not in by_policy:
                self._left(known, applied=False)
            for interface, service in by_policy.get(name, ()):
                self._left(known, applied=True, interface=interface, service=service)
        self._replaced(used)
        whole = None in self.services and self.services[None].words[1] in used
        for interface, service in self.services.items():
            other = self.policies.get(service.words[1])
            if interface is None or not whole:
                continue
            if other is None:
                self.report.not_honoured(service, "its policy-map is not in this text: mail may be an exception there")
            elif other.inspects and not other.inspects_mail:
                self._exception(interface, service, other)
        return self.traffic

    def _replaced(self, used: Mapping[str, _PolicyMap]) -> None:
        """Reports the service-policy lines of mail inspection that later lines have replaced."""
        for before, after in self.replaced:
            if before.words[1] in used:
                self.report.honoured(before, f"{after.place} takes its place")

    def _exception(self, interface: str, service: Statement, known: _PolicyMap) -> None:
        # "Interface service policies take precedence over the global service policy for a given feature" (S-MPF).
        why = f"on interface {interface} mail is not inspected: a [[rule]] says so"
        self.report.not_honoured(service, why)
        for one in known.classes.values():
            if one.off is not None:
                self.report.not_honoured(one.off, why)
        self.traffic.exceptions.append((interface, service))

    def _left(
        self, known: _PolicyMap, *, applied: bool, interface: str | None = None, service: Statement | None = None
    ) -> None:
        for header in known.headers:
            self.report.honoured(header, "where mail is inspected")
        if service is not None and interface is None:
            self.report.honoured(service, "where mail is inspected")
        elif service is not None:
            self.report.not_honoured(service, f'only on interface {interface}: a [[rule]] says so (in = "...")')
        for one in known.classes.values():
            for statement in one.mail.values():
                if not applied:
                    self.report.not_honoured(
                        statement, f"no service-policy applies policy-map {known.headers[0].words[1]}"
                    )
                for selector in one.selectors[1:]:
                    self.report.honoured(selector, f"goes on with {one.selectors[0].place}")
                ports, entries = self._of_class(one.selectors[0])
                self.traffic.inspections.append(Inspection(statement, ports, applied, interface, service, entries))

    def _of_class(self, selector: Statement) -> tuple[int, tuple[Entry, ...]]:
        name = selector.words[-1]
        self.report.honoured(selector, "where mail is inspected")
        if name not in self._read:
            self._read[name] = self._read_class(selector, name)
        return self._read[name]

    def _read_class(self, selector: Statement, name: str) -> tuple[int, tuple[Entry, ...]]:
        if name == "class-default":
            self.report.not_honoured(selector, "all traffic: port 25 is taken, gateway.ports may name more")
            return MAIL, ()
        if name not in self.classes:
            # The class inspection_default exists on every firewall, so it need not be in the text.
            if name != "inspection_default":
                self.report.error(selector, f"no class-map {name} in this text; give all of it")
            return MAIL, ()
        ports, entries, default = 0, [], False
        for section in self.classes[name]:
            self.report.honoured(section.header, "where mail is inspected")
            for statement in section.body:
                try:
                    some, more = self._match(statement)
                except Fault as fault:
                    (self.report.error if fault.syntax else self.report.not_honoured)(statement, str(fault))
                    continue
                default |= statement.keywords == ("match", "default-inspection-traffic")
                ports |= some
                entries += more
        # If a class matches the default inspection traffic, its access list only selects hosts; the list's ports are
        # ignored (S-ASA13).
        return MAIL if default else ports or MAIL, tuple(entries)

    def _match(self, statement: Statement) -> tuple[int, list[Entry]]:
        words = statement.keywords
        if words[0] in ("description", "exit"):
            return 0, []
        ports, entries = 0, []
        if words == ("match", "default-inspection-traffic"):
            ports = MAIL
        elif words[:4] == ("match", "port", "tcp", "eq") and len(words) == 5:
            ports = parse_range(words[4], words[4])
        elif words[:4] == ("match", "port", "tcp", "range") and len(words) == 6:
            ports = parse_range(words[4], words[5])
        elif words[:2] == ("match", "access-list") and len(words) == 3:
            entries = list(self._of_access_list(statement.words[2]))
            for entry in entries:
                ports |= entry.ports if entry.permit else 0
        elif words == ("match", "any"):
            raise Fault("all traffic: port 25 is taken, gateway.ports may name more", syntax=False)
        else:
            raise Fault("traffic is told apart by its port alone", syntax=False)
        self.report.honoured(statement, "where mail is inspected")
        return ports, entries

    def _of_access_list(self, name: str) -> Iterator[Entry]:
        if name not in self.lists.entries:
            raise Fault(f"no access-list {name} in this text; give all of it")
        for statement in self.lists.entries[name].values():
            try:
                entry = self.lists.entry(statement)
            except Fault as fault:
                self.report.not_honoured(statement, str(fault))
                continue
            if entry is None:
                continue
            if entry.ports == EVERY:
                entry = Entry(statement, entry.permit, entry.source, entry.destination, MAIL, entry.uses)
            for used in entry.uses:
                self.report.honoured(used, "the hosts and ports of access-lists")
            if entry.permit and entry.of_all:
                self.report.honoured(statement, "where mail is inspected")
            elif entry.permit:
                self.report.not_honoured(statement, "its ports are taken; which hosts says a [[rule]] (from, to)")
            else:
                self.report.not_honoured(statement, "not inspected: a [[rule]] says so (from, to)")
            yield entry
