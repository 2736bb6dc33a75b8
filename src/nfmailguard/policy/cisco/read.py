"""Turns PIX, ASA, FWSM and IOS configuration text into Policies; no line of it is lost silently.

Promises: ``read`` raises nothing but ConfigError, in time linear in the text; every line that concerns mail inspection
is in ``Import.lines`` with what became of it; all others are counted. Does not know how a Policy is enforced, nor how
it is written back (``write``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from nfmailguard.policy.cisco.builder import profile as built_in_profile
from nfmailguard.policy.cisco.classes import Inspection, Traffic, inspect_traffic
from nfmailguard.policy.cisco.contexts import VERSION, Unit, split
from nfmailguard.policy.cisco.ios import IosInspection, inspect_ios
from nfmailguard.policy.cisco.ios_map import read_layer7
from nfmailguard.policy.cisco.map import Definitions, read_map
from nfmailguard.policy.cisco.match import Fault
from nfmailguard.policy.cisco.ports import MAIL, every, listed, parse_ports, runs
from nfmailguard.policy.cisco.rules import DraftedRule, rules_of
from nfmailguard.policy.cisco.text import ImportReport, Line, Section, Statement, Status, sections, statements
from nfmailguard.policy.model import Policy

__all__ = ["Import", "Imported", "read", "read_all"]

_LOG_IDS = frozenset(f"10800{digit}" for digit in range(2, 8))
#: Matches lines that only mail inspection uses. Where no reader understood such a line, it is still listed in the
#: report.
_OURS = re.compile(
    r"(?:no )*(?:fixup protocol e?smtp|mailhost|inspect e?smtp|ip inspect name \S+ e?smtp|service-policy e?smtp"
    r"|mask-banner|mail-relay|allow-tls|special-character|(?:\S{1,40} )?type inspect e?smtp"
    r"|match (?:not )?(?:cmd|ehlo-reply-parameter|sender-address|invalid-recipients|mime))(?: |$)",
    re.IGNORECASE,
)
#: The lines among these that occur in no other inspection's map (an FTP map, for example, may also have mask-banner).
_OURS_ALONE = re.compile(
    r"(?:no )*(?:mail-relay|allow-tls|special-character|inspect e?smtp|(?:\S{1,40} )?type inspect e?smtp"
    r"|match (?:not )?(?:ehlo-reply-parameter|sender-address|invalid-recipients))(?: |$)",
    re.IGNORECASE,
)

#: Matches output of a device's show commands for inspection counters: no configuration, though it contains the same
#: names.
_SHOWN = re.compile(
    r"(?:Inspect: e?smtp|Service-policy(?: inspect)? ?:|Inspection Rule Configuration|Session audit trail is"
    r"|Inspection name )",
    re.IGNORECASE,
)


class Imported(msgspec.Struct, frozen=True):
    """One policy of a configuration.

    ``ports``: where an ``inspect``, ``fixup`` or ``mailhost`` applies it, like ``25`` or ``2500-2510``; none: nowhere.
    ``sources``: for each key that a line set, that line. ``profile``: the program's profile it equals, if no map
    changes it. ``everywhere``: on all interfaces. ``nearest``: no profile is exactly this device's, this one is
    similar.
    """

    policy: Policy
    line: int
    ports: tuple[str, ...] = ()
    sources: dict[str, str] = {}
    profile: str | None = None
    everywhere: bool = True
    nearest: bool = False


class Import(msgspec.Struct, frozen=True):
    """A configuration as read: its policies, all the ports they are for, what became of each line.

    ``rules``: what holds only for some interfaces or hosts. ``contexts``: those of the text that inspect mail; the one
    that was read is first. ``off``: the line that switched mail inspection off. ``shows``: a line that is no
    configuration, but output of a command that shows counters.
    """

    maps: tuple[Imported, ...]
    ports: tuple[int, ...]
    lines: tuple[Line, ...]
    unrelated: int
    rules: tuple[DraftedRule, ...] = ()
    rules_left_out: int = 0
    contexts: tuple[str, ...] = ()
    off: str | None = None
    shows: str | None = None

    @property
    def policies(self) -> tuple[Policy, ...]:
        return tuple(found.policy for found in self.maps)

    @property
    def inspects(self) -> bool:
        """Whether any mail is inspected, as far as the text shows: a map alone may be an excerpt."""
        return bool(self.maps) and self.off is None

    def of(self, status: Status) -> tuple[Line, ...]:
        """The lines with this status."""
        return tuple(line for line in self.lines if line.status is status)


def read(text: str) -> Import:
    """The policies of a configuration, or of an excerpt of one.

    Raises ConfigError for what is no configuration text. A faulty line is in the result's ``lines`` with
    ``Status.ERROR``.
    """
    return read_all([(None, text)])


def read_all(texts: Iterable[tuple[str | None, str]], context: str | None = None) -> Import:
    """The same for several files, which are parts of one configuration or contexts of one device.

    ``context``: which of several contexts; none: the first that inspects mail. The lines of the others are reported.
    """
    found = [statement for file, text in texts for statement in statements(text, file)]
    units = split(found)
    read_units = [(unit, _Configuration(unit.statements).result()) for unit in units]
    mail = [(unit, result) for unit, result in read_units if result.maps or result.off]
    known = tuple(dict.fromkeys(unit.name for unit, _ in mail)) if len(units) > 1 else ()
    chosen = [(unit, result) for unit, result in mail if context in (None, unit.name)]
    unit, result = next(iter(chosen or mail or _with_lines(read_units)))
    report = ImportReport()
    for other, its in read_units:
        if other is not unit and its.lines:
            where = f"of context {other.name}" if len(known) > 1 else "before or after the configuration that was read"
            report.not_honoured(other.statements[0], f"{where}: choose it with --context {other.name}")
    lines = tuple(sorted((*result.lines, *report.lines()), key=lambda line: line.number if line.file is None else 0))
    names = tuple(sorted(known, key=lambda name: name != unit.name))
    return msgspec.structs.replace(result, lines=lines, unrelated=len(found) - len(lines), contexts=names)


def _with_lines(units: Sequence[tuple[Unit, Import]]) -> Sequence[tuple[Unit, Import]]:
    return [one for one in units if one[1].lines] or units


class _Configuration:
    """One configuration while it is read."""

    def __init__(self, found: list[Statement]) -> None:
        self.statements = found
        self.sections = list(sections(found))
        self.report = ImportReport()
        self.box, self.version, self.version_line = self._version()
        self.maps: dict[str, Imported] = {}  # The policies read from inspection maps in the text, by the map's name.
        self.built_in: dict[str, Imported] = {}
        # Port sets of the policies that are applied, by (is a built-in profile, name).
        self.ports: dict[tuple[bool, str], int] = {}
        self.fixup: Statement | None = None
        self.fixup_ports = 0
        self.mailhost: Statement | None = None
        self.off: Statement | None = None
        self.placed: dict[tuple[bool, str], bool] = {}

    def result(self) -> Import:
        """Reads everything; definitions before the lines that refer to them."""
        self._read_maps()
        traffic = inspect_traffic(self.sections, self.report)
        targets = [(one, self._inspect(one)) for one in traffic.inspections]
        for one in inspect_ios(self.sections, self.report):
            self._ios(one)
        for section in self.sections:
            self._single(section)
        if self.fixup is not None and self.fixup_ports:
            self._apply_profile(self._release(), self.fixup, self.fixup_ports)
        if self.mailhost is not None:
            self._apply_profile("pix40", self.mailhost, MAIL)
        for section in self.sections:
            self._strays(section)
        ports = 0
        for some in self.ports.values():
            ports |= some
        found = (*self._with_ports(False, self.maps), *self._with_ports(True, self.built_in))
        lines = self.report.lines()
        rules, left_out = rules_of(targets, traffic.exceptions)
        return Import(
            found,
            every(ports or (MAIL if found else 0)),
            lines,
            len(self.statements) - len(lines),
            rules,
            left_out,
            off=self._switched_off(traffic),
            shows=next((one.place for one in self.statements if _SHOWN.match(one.text)), None),
        )

    def _switched_off(self, traffic: Traffic) -> str | None:
        """The line that switched mail inspection off."""
        line = traffic.off or self.off
        return f"{line.place}: {line.text}" if line is not None and not any(self.ports.values()) else None

    def _with_ports(self, built_in: bool, maps: dict[str, Imported]) -> Iterator[Imported]:
        for name, found in maps.items():
            yield msgspec.structs.replace(found, ports=runs(self.ports.get((built_in, name), 0)))

    def _version(self) -> tuple[str, tuple[int, int, int], Statement | None]:
        for statement in self.statements:
            found = VERSION.match(statement.text)
            if found:
                box, release = found[1].upper(), (int(found[2]), int(found[3]), int(found[4] or 0))
                if box.startswith(("NGFW", "FIREPOWER")):
                    # Firepower Threat Defense inspects mail like the ASA it contains, whose release number is higher
                    # than its own.
                    return "ASA", (9, 4, 1), statement
                return "ASA" if box.startswith("ADAPTIVE") else box, release, statement
        return "", (0, 0, 0), None

    # Section: inspection maps.

    def _named(self, *kind: str) -> dict[str, Section]:
        """The sections whose header begins with ``kind`` and ends in a name; a section given in parts is joined."""
        found: dict[str, Section] = {}
        for section in self.sections:
            words = section.header.keywords
            if words[: len(kind)] != kind:
                continue
            between = words[len(kind) : -1]
            if len(words) == len(kind) or (between and between not in (("match-any",), ("match-all",))):
                self.report.error(section.header, f"write {' '.join(kind)} NAME")
            elif (known := found.get(section.header.words[-1])) is not None:
                known.body.extend(section.body)
                self.report.honoured(section.header, f"goes on with {known.header.place}")
            else:
                found[section.header.words[-1]] = Section(section.header, list(section.body))
        return found

    def _read_maps(self) -> None:
        regexes = {
            section.header.words[1]: section
            for section in self.sections
            if section.header.keywords[0] == "regex" and len(section.header.words) > 2
        }
        used: dict[tuple[str, str], str] = {}
        regex_classes = self._regex_classes()
        known = Definitions(regexes, regex_classes, self._named("class-map", "type", "inspect", "esmtp"), used)
        for name, section in self._named("policy-map", "type", "inspect", "esmtp").items():
            policy, sources = read_map(section, name, known, self.report)
            self.maps[name] = Imported(policy, section.header.number, sources=sources)
        for name, section in known.mail_classes.items():
            if ("class", name) not in used:
                for statement in (section.header, *section.body):
                    self.report.not_honoured(statement, "no map of mail inspection names this class")
        for name, (policy, line, sources) in read_layer7(self.sections, self.report).items():
            self.maps.setdefault(name, Imported(policy, line, sources=sources, nearest=True))
        self._patterns(known)

    def _regex_classes(self) -> dict[str, Section]:
        # Most regex classes are for other inspections, so a malformed header is not reported as an error of mail
        # inspection.
        found = {}
        for section in self.sections:
            if section.header.keywords[:3] == ("class-map", "type", "regex") and len(section.header.words) in (4, 5):
                found[section.header.words[-1]] = section
        return found

    def _patterns(self, known: Definitions) -> None:
        """Reports the patterns that lines of mail inspection refer to; none of them is honoured."""
        needed = {name: line for (kind, name), line in known.used.items() if kind == "regex"}
        for (kind, name), line in known.used.items():
            section = known.regex_classes.get(name) if kind == "class-map type regex" else None
            if section is None:
                continue
            for statement in (section.header, *section.body):
                self.report.not_honoured(statement, f"needed by {line}, which is not honoured")
                if statement.keywords[:2] == ("match", "regex") and len(statement.words) == 3:
                    needed.setdefault(statement.words[2], line)
                    if statement.words[2] not in known.regexes:
                        self.report.error(statement, f"no regex {statement.words[2]} in this text; give all of it")
        for name, line in needed.items():
            if name in known.regexes:
                header = known.regexes[name].header
                self.report.not_honoured(header, f"needed by {line}, which is not honoured")

    def _strays(self, section: Section) -> None:
        """Reports lines that look like mail inspection and that no reader understood."""
        words = section.header.keywords
        others = words[0] in ("class-map", "policy-map") and words[1:3] == ("type", "inspect")
        for statement in (section.header, *section.body):
            form = _OURS_ALONE if others and statement is not section.header else _OURS
            if statement not in self.report and form.match(" ".join(statement.words[:6])):
                self.report.not_honoured(statement, "not understood where it stands")

    # Section: lines that apply inspections and maps.

    def _inspect(self, one: Inspection) -> str | None:
        """Handles ``inspect esmtp [MAP]`` or ``inspect smtp`` in a class: the profile's name or file; None: none."""
        statement, ports = one.statement, one.ports
        words = statement.words
        default = "_default_esmtp_map"
        if len(words) > 3 or (len(words) == 3 and statement.keywords[1] == "smtp"):
            self.report.error(statement, "write inspect esmtp [MAP], or inspect smtp")
            return None
        name = words[2] if len(words) == 3 else default
        if name in self.maps and statement.keywords[1] == "esmtp":
            self.report.honoured(statement, f"policy {name} on port {listed(ports)}")
            if one.applied:
                self.ports[False, name] = self.ports.get((False, name), 0) | ports
                self._mark(self.maps, name, one)
            return f"./{name}.toml"
        if name != default:
            self.report.error(statement, f"no policy-map type inspect esmtp {name} in this text; give all of it")
            return None
        profile = self._release_of_inspect(statement.keywords[1])
        if one.applied:
            self._apply_profile(profile, statement, ports)
            self._mark(self.built_in, profile, one)
            if profile == "asa" and self.box == "ASA" and self.version >= (9, 4, 1):
                known = "a box that is new with 9.4(1) or later has allow-tls in its default map: asa-tls (unverified)"
                self.report.honoured(statement, f"profile asa on port {listed(ports)}; {known}", anew=True)
        return profile

    def _mark(self, known: dict[str, Imported], name: str, one: Inspection) -> None:
        """Notes whether a policy is applied on all interfaces by any of its lines."""
        seen = self.placed.get((known is self.built_in, name), False) or one.interface is None
        self.placed[known is self.built_in, name] = seen
        known[name] = msgspec.structs.replace(known[name], everywhere=seen)

    def _ios(self, found: IosInspection) -> None:
        if found.layer7 is not None and found.layer7 in self.maps:
            self.ports[False, found.layer7] = MAIL
            return
        if found.layer7 is not None:
            self.report.error(found.statement, f"no policy-map type inspect smtp {found.layer7} in this text")
        self._apply_profile(found.profile, found.statement, MAIL)
        if not found.exact:
            self.built_in[found.profile] = msgspec.structs.replace(self.built_in[found.profile], nearest=True)

    def _release_of_inspect(self, protocol: str) -> str:
        if protocol == "smtp":
            return "pix63"  # S-FWSM3: only the seven verbs pass, all others are overwritten with X.
        if self.box == "FWSM" or (self.box in ("PIX", "ASA") and self.version < (7, 2)):
            return "pix70"
        # S-ZIMBRA is the source for release 8.4(1), profile asa84.
        return "asa84" if self.box == "ASA" and self.version == (8, 4, 1) else "asa"

    def _release(self) -> str:
        """The profile of a release that has ``fixup``; without a version line that of the last such releases."""
        if self.box == "FWSM":
            return "fwsm2"
        if self.box != "PIX":
            return "pix63"
        for first, profile in (((4, 2), "pix40"), ((4, 3), "pix42"), ((5, 1), "pix44"), ((6, 0), "pix51")):
            if self.version < first:
                return profile
        return "pix63"

    def _apply_profile(self, profile: str, statement: Statement, ports: int) -> None:
        self.report.honoured(statement, f"profile {profile} on port {listed(ports)}")
        if self.version_line is not None:
            self.report.honoured(self.version_line, f"the release: profile {profile}")
        self.built_in.setdefault(profile, Imported(built_in_profile(profile), statement.number, profile=profile))
        self.ports[True, profile] = self.ports.get((True, profile), 0) | ports

    # Section: configuration lines that need no section, such as fixup and mailhost.

    def _single(self, section: Section) -> None:
        header = section.header
        words = header.keywords
        off = words[0] == "no"
        words = words[off:]
        try:
            if words[:3] == ("fixup", "protocol", "smtp"):
                self._fixup(header, words[3:], off)
            elif words[:1] == ("mailhost",):
                self._mailhost(header, words[1:], off)
            elif words[:2] == ("logging", "message") and words[2:3] and words[2] in _LOG_IDS:
                self.report.not_honoured(header, "what is logged is said in [log], for all findings alike")
        except Fault as fault:
            self.report.error(header, str(fault))

    def _fixup(self, header: Statement, words: tuple[str, ...], off: bool) -> None:
        ports = parse_ports(words) if words else MAIL
        if off and words:
            self.fixup_ports &= ~ports
            self.off = header
            self.report.honoured(header, f"off on port {listed(ports)}")
            return
        # `no fixup protocol smtp` without a port restores the default, port 25.
        self.fixup_ports = MAIL if off else self.fixup_ports | ports
        self.fixup = self.fixup or header
        self.report.honoured(header, f"on port {listed(ports)}")

    def _mailhost(self, header: Statement, words: tuple[str, ...], off: bool) -> None:
        if off:
            self.off, self.mailhost = header, None
            self.report.honoured(header, "off")
            return
        if not 2 <= len(words) <= 4:
            raise Fault("write mailhost OUTSIDE-ADDRESS INSIDE-ADDRESS")
        self.mailhost = header
        self.report.honoured(header, f"profile pix40 on port {listed(MAIL)}")
        if any(word != "0" for word in words[2:]):
            self.report.not_honoured(header, "profile pix40 on port 25; connections are not counted")
