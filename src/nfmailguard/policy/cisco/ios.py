"""Mail inspection in IOS configurations: ``ip inspect`` on interfaces, and the zone-based firewall.

Promises: lines are processed in order, the last one wins; each that affects the inspection of mail is noted in the
import report. Does not know profiles: it gives where which kind of inspection is on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nfmailguard.policy.cisco.text import ImportReport, Section, Statement

__all__ = ["IosInspection", "inspect_ios"]

_MAIL = ("smtp", "esmtp")
_TRANSPORT = ("tcp", "udp", "icmp")
_MODES = ("match-any", "match-all")
_LOGGING = ("alert", "audit-trail")
_NEAREST = "IOS' zone-based firewall inspects mail here; nearest is profile ios-esmtp"


@dataclass(frozen=True)
class IosInspection:
    """One inspection: the program's ``profile`` for it, and the line; ``exact``: it is that profile, otherwise the
    nearest.

    ``layer7``: the ``policy-map type inspect smtp`` with further settings.
    """

    profile: str
    statement: Statement
    exact: bool = True
    layer7: str | None = None


@dataclass
class _Set:
    """One ``ip inspect name``, after the lines read so far."""

    mail: dict[str, Statement] = field(default_factory=dict)
    transport: dict[str, Statement] = field(default_factory=dict)
    applied: dict[tuple[str, str], Statement] = field(default_factory=dict)
    #: `ip inspect NAME in` lines of interfaces that are no longer in force, each with the later line that replaced or
    #: removed it.
    before: list[tuple[Statement, Statement]] = field(default_factory=list)


def inspect_ios(sections: Sequence[Section], report: ImportReport) -> list[IosInspection]:
    """The inspections that are applied, in the text's order."""
    reader = _Sets(report)
    zones = _Zones(report)
    for section in sections:
        zones.section(section)
        for statement in (section.header, *section.body):
            reader.statement(statement)
    return [*reader.result(), *zones.result()]


class _Sets:
    """Reader of ``ip inspect`` lines."""

    def __init__(self, report: ImportReport) -> None:
        self.report = report
        self.sets: dict[str, _Set] = {}
        self.interface: str | None = None

    def statement(self, statement: Statement) -> None:
        words = statement.keywords
        off = words[0] == "no"
        words, raw = words[off:], statement.words[off:]
        if words[:1] == ("interface",):
            self.interface = " ".join(raw[1:])
        elif words[:3] == ("ip", "inspect", "name") and len(words) > 3:
            self._name(statement, raw[3], words[4:], off)
        elif words[:2] == ("ip", "inspect") and len(words) == 4 and words[3] in ("in", "out"):
            self._apply(statement, raw[2], words[3], off)

    def _name(self, statement: Statement, name: str, words: tuple[str, ...], off: bool) -> None:
        one = self.sets.setdefault(name, _Set())
        protocols = words[:1] if words else (*_MAIL, *_TRANSPORT)
        for protocol in protocols:
            kind = one.mail if protocol in _MAIL else one.transport if protocol in _TRANSPORT else {}
            before = kind.pop(protocol, None)
            if off and protocol in _MAIL:
                self.report.honoured(statement, "off")
            if before is not None and protocol in _MAIL:
                self.report.honoured(before, f"{statement.place} takes its place" if not off else "taken back")
            if not off:
                kind[protocol] = statement

    def _apply(self, statement: Statement, name: str, direction: str, off: bool) -> None:
        one = self.sets.setdefault(name, _Set())
        key = self.interface or "", direction
        before = one.applied.pop(key, None)
        if before is not None:
            one.before.append((before, statement))
        if not off:
            one.applied[key] = statement
        elif before is not None:
            one.before.append((statement, statement))

    def result(self) -> list[IosInspection]:
        found = []
        # A text in which no interface applies an `ip inspect` set is an excerpt of a configuration: its sets are taken
        # as applied.
        whole = self.interface is not None or any(one.applied for one in self.sets.values())
        mail = any(one.mail for one in self.sets.values())
        for name, one in self.sets.items():
            for protocol, statement in one.mail.items():
                if whole and not one.applied:
                    self.report.not_honoured(statement, f"not applied: no interface has `ip inspect {name} in` or out")
                    continue
                found.append(IosInspection(f"ios-{protocol}", statement))
                self._options(statement, f"ios-{protocol}")
            for before, after in one.before if one.mail else ():
                what = "off" if before is after else f"{after.place} takes its place"
                self.report.honoured(before, what)
            for (interface, direction), statement in one.applied.items() if one.mail else ():
                where = f"{interface or 'one interface'}, {direction}"
                self.report.not_honoured(statement, f'only on {where}: a [[rule]] says so (in = "...")')
            for protocol, statement in one.transport.items() if not mail and "tcp" in one.transport else ():
                if protocol == "tcp":
                    self.report.not_honoured(statement, "follows connections, and reads no SMTP: no mail inspection")
        return found

    def _options(self, statement: Statement, profile: str) -> None:
        """Reports the options after the protocol: logging options change no byte, all others are
        named as not honoured.
        """
        words = list(statement.keywords[5:])
        left = []
        while words:
            if words[0] in _LOGGING and words[1:2] in (["on"], ["off"]):
                del words[:2]
            else:
                left.append(words.pop(0))
        if left:
            self.report.not_honoured(statement, f"profile {profile} on port 25; `{' '.join(left)}` is not")


@dataclass
class _Zoned:
    """A ``class-map`` or ``policy-map`` of ``type inspect``; if it is given in parts, it has several headers."""

    headers: list[Statement] = field(default_factory=list)
    body: list[Statement] = field(default_factory=list)


class _Zones:
    """Reader of the zone-based firewall: ``class-map type inspect``, ``policy-map type inspect``, ``zone-pair``."""

    def __init__(self, report: ImportReport) -> None:
        self.report = report
        self.classes: dict[str, _Zoned] = {}
        self.policies: dict[str, _Zoned] = {}
        # The service-policy lines of each zone pair; the last line is in force.
        self.services: dict[str, list[Statement]] = {}
        self.pairs: dict[str, list[Statement]] = {}
        self.pair = ""

    def section(self, section: Section) -> None:
        header, words = section.header, section.header.keywords
        off = words[0] == "no"
        words = words[off:]
        for statement in (header, *section.body):
            self._pair(statement)
        if words[1:3] != ("type", "inspect") or words[0] not in ("class-map", "policy-map"):
            return
        rest, name = [word for word in words[3:] if word not in _MODES], header.words[-1]
        if len(rest) == 1:
            known = self.classes if words[0] == "class-map" else self.policies
            if off:
                known.pop(name, None)
            else:
                one = known.setdefault(name, _Zoned())
                one.headers.append(header)
                one.body.extend(section.body)

    def _pair(self, statement: Statement) -> None:
        words = statement.keywords
        off = words[0] == "no"
        words, raw = words[off:], statement.words[off:]
        if words[:2] == ("zone-pair", "security") and len(words) > 2:
            self.pair = raw[2]
            if off:
                self.services.pop(self.pair, None)
                self.pairs.pop(self.pair, None)
            else:
                self.pairs.setdefault(self.pair, []).append(statement)
        elif words[:3] == ("service-policy", "type", "inspect") and len(words) == 4:
            services = self.services.setdefault(self.pair, [])
            if off:
                services.clear()
            else:
                services.append(statement)

    def result(self) -> list[IosInspection]:
        mail = self._mail_classes()
        used = {services[-1].words[-1] for services in self.services.values() if services}
        found = []
        for name, policy in self.policies.items():
            lines = self._inspecting(policy, mail)
            if not lines:
                continue
            applied = name in used or not self.pairs
            why = _NEAREST if applied else f"not applied: no zone-pair has `service-policy type inspect {name}`"
            for statement in (*policy.headers, *lines):
                self.report.not_honoured(statement, why)
            self._between(name)
            if applied:
                found += [
                    IosInspection("ios-esmtp", line, exact=False, layer7=layer7) for line, layer7 in self._layer7(lines)
                ]
        return found

    def _between(self, name: str) -> None:
        """Reports the zone pairs that have this policy, or have had it."""
        for pair, services in self.services.items():
            for service in services:
                if service.words[-1] == name:
                    for line in self.pairs.get(pair, ()):
                        self.report.not_honoured(line, f"{_NEAREST}, between these zones")
                    if service is services[-1]:
                        self.report.not_honoured(service, f"{_NEAREST}, between these zones")
                    else:
                        self.report.honoured(service, f"{services[-1].place} takes its place")

    @staticmethod
    def _layer7(lines: list[Statement]) -> list[tuple[Statement, str | None]]:
        """The lines that inspect, each with the layer 7 map named below it."""
        found: list[tuple[Statement, str | None]] = []
        for line in lines:
            if line.keywords[0] == "inspect":
                found.append((line, None))
            elif line.keywords[0] == "service-policy":
                if found:
                    found.pop()
                found.append((line, line.words[-1]))
        return found

    def _mail_classes(self) -> set[str]:
        """Names of the classes that match mail, directly or through another class."""
        parents: dict[str, list[tuple[str, Statement]]] = {}
        left = []
        for name, one in self.classes.items():
            for statement in one.body:
                words = statement.keywords
                if words[:2] == ("match", "protocol") and words[2:3] in (("smtp",), ("esmtp",)):
                    left.append(name)
                    self.report.not_honoured(statement, _NEAREST)
                elif words[:2] == ("match", "class-map") and len(words) == 3:
                    parents.setdefault(statement.words[2], []).append((name, statement))
        mail: set[str] = set()
        while left:
            name = left.pop()
            if name in mail:
                continue
            mail.add(name)
            for header in self.classes[name].headers:
                self.report.not_honoured(header, _NEAREST)
            for parent, statement in parents.get(name, ()):
                self.report.not_honoured(statement, _NEAREST)
                left.append(parent)
        return mail

    def _inspecting(self, policy: _Zoned, mail: set[str]) -> list[Statement]:
        """The lines by which a policy inspects mail; a line that passes or drops mail does not inspect it."""
        lines: list[Statement] = []
        selector: Statement | None = None
        for statement in policy.body:
            words = statement.keywords
            if words[:3] == ("class", "type", "inspect"):
                selector = statement if statement.words[-1] in mail else None
            elif words[0] == "class":
                selector = None
            elif selector is not None and words[0] == "inspect":
                lines += [selector, statement]
            elif words[:2] in (("service-policy", "smtp"), ("service-policy", "esmtp")):
                lines.append(statement)
            elif selector is not None and words[0] in ("pass", "drop"):
                self.report.honoured(statement, f"mail of class {selector.words[-1]} is not inspected")
                self.report.honoured(selector, "no inspection")
        return lines
