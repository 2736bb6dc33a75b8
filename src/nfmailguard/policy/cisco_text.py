"""Configuration text of a PIX, ASA, FWSM or IOS box as numbered lines in sections, and what became of each.

Promises: any text becomes sections, in time linear in its length; a line stands in one
section. Does not know what a line means, but for the words that can stand inside a
section: text pasted out of a manual has no indentation to go by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.plain import printable

__all__ = ["Ledger", "Line", "Section", "Statement", "Status", "sections", "statements"]

_LARGEST = 64 * 1024 * 1024
_MOST_LINES = 1_000_000
_PROMPT = re.compile(r"[\w./-]{1,80}(?:\((config[\w-]{0,40})\))?[#>][ \t]*")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SHOWN = 160
_MORE = "<--- More --->"

_OF_A_MAP = """
match class parameters description exit drop drop-connection mask reset log rate-limit
mask-banner mail-relay special-character allow-tls
"""
#: Words that begin a line inside each kind of section, where indentation does not tell.
_INSIDE = {
    "policy-map": frozenset({"class", "description", "inspect", "set", "police", "priority", "exit"}),
    "class-map": frozenset({"match", "description", "exit"}),
    "inspect": frozenset(_OF_A_MAP.split()),
}
#: Words that end a section which has no indentation.
_OUTSIDE = """
aaa access-group access-list arp asdm banner boot ciscoasa class-map clock console context crypto cryptochecksum:
dhcpd dhcprelay dns domain-name enable end established failover filter firewall fixup flow-export fragment ftp
global group-policy hostname http icmp interface ip ipv6 ldap logging mac mailhost management monitor mtu name
nameif names nat no ntp object object-group pager passwd password pim policy-map privilege prompt quit regex route
router same-security-traffic security-level service service-policy sla snmp-server ssh ssl static sysopt tcp-map
telnet terminal tftp-server threat-detection time-range timeout track tunnel-group url-cache url-server username
version virtual vpn vpdn vpn-addr-assign vpn-group-policy webvpn write xlate
"""
_ENDS = frozenset(_OUTSIDE.split())


class Status(StrEnum):
    """What became of a line that has to do with mail inspection."""

    HONOURED = "honoured"
    NOT_HONOURED = "not honoured"
    ERROR = "error"


class Line(msgspec.Struct, frozen=True):
    """One line and what became of it; ``what`` says as what, or why not."""

    number: int
    text: str
    status: Status
    what: str

    def __str__(self) -> str:
        text = printable(self.text[:_SHOWN])
        more = "..." if len(self.text) > _SHOWN else ""
        return f"line {self.number}: {text}{more}: {self.status}: {self.what}"


@dataclass(frozen=True)
class Statement:
    """One line that says something: its number from 1, how deep it stands, its words."""

    number: int
    depth: int
    text: str
    words: tuple[str, ...]

    @property
    def keywords(self) -> tuple[str, ...]:
        """The words in lower case: a Cisco box takes keywords in any."""
        return tuple(word.lower() for word in self.words)


@dataclass
class Section:
    """A line and those that belong to it."""

    header: Statement
    body: list[Statement] = field(default_factory=list)


class Ledger:
    """What has been said of each line: an error counts more than "not honoured", and that more than "honoured"."""

    def __init__(self) -> None:
        self._lines: dict[int, Line] = {}

    def honoured(self, statement: Statement, what: str) -> None:
        self._note(statement, Status.HONOURED, what)

    def not_honoured(self, statement: Statement, what: str) -> None:
        self._note(statement, Status.NOT_HONOURED, what)

    def error(self, statement: Statement, what: str) -> None:
        self._note(statement, Status.ERROR, what)

    def __contains__(self, statement: Statement) -> bool:
        return statement.number in self._lines

    def status(self, statement: Statement) -> Status | None:
        line = self._lines.get(statement.number)
        return line.status if line else None

    def lines(self) -> tuple[Line, ...]:
        """All of them, in the text's order."""
        return tuple(self._lines[number] for number in sorted(self._lines))

    def _note(self, statement: Statement, status: Status, what: str) -> None:
        before = self._lines.get(statement.number)
        order = list(Status)
        if before is None or order.index(status) > order.index(before.status):
            self._lines[statement.number] = Line(statement.number, statement.text, status, what)


def statements(text: str) -> list[Statement]:
    """The lines that are neither empty nor comments; ConfigError when this is no text."""
    if len(text) > _LARGEST:
        raise ConfigError(f"{len(text)} characters: no configuration is longer than {_LARGEST}")
    if text.count("\n") + text.count("\r") > 2 * _MOST_LINES:
        raise ConfigError(f"no configuration has more than {_MOST_LINES} lines")
    if "\0" in text:
        number = len(_LINE_END.findall(text[: text.index("\0")])) + 1
        raise ConfigError(
            f"line {number}: a NUL: this is no configuration text; give the output of `show running-config`"
        )
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    found = []
    for number, line in enumerate(_LINE_END.split(text), start=1):
        statement = _statement(number, line.expandtabs(8) if "\t" in line else line)
        if statement is not None:
            found.append(statement)
    return found


def _statement(number: int, line: str) -> Statement | None:
    stripped = line.strip()
    depth = len(line) - len(line.lstrip())
    prompt = _PROMPT.match(stripped)
    if prompt:
        # The prompt tells how deep the line stands: (config-pmap-p) is two below (config).
        depth = (prompt[1] or "config").count("-")
        stripped = stripped[prompt.end() :].strip()
    if not stripped or stripped[0] in "!:" or stripped == _MORE:
        return None
    return Statement(number, depth, stripped, tuple(stripped.split()))


def _kind(words: tuple[str, ...]) -> str | None:
    """Which words may stand inside a section that begins like this; None: anything deeper."""
    if words[0] == "policy-map":
        return "inspect" if words[1:2] == ("type",) else "policy-map"
    return "class-map" if words[0] == "class-map" else None


def sections(found: Iterable[Statement]) -> Iterator[Section]:
    """Each header with what stands deeper; without any depth, with what can only stand inside it."""
    section: Section | None = None
    kind: str | None = None
    for statement in found:
        if section is not None and _belongs(section, kind, statement):
            section.body.append(statement)
            continue
        if section is not None:
            yield section
        section, kind = Section(statement), _kind(statement.keywords)
    if section is not None:
        yield section


def _belongs(section: Section, kind: str | None, statement: Statement) -> bool:
    depth = section.header.depth
    if statement.depth > depth:
        return True
    if kind is None or statement.depth < depth or (section.body and section.body[0].depth > depth):
        return False
    words = statement.keywords
    word = words[1] if words[0] == "no" and len(words) > 1 else words[0]
    if word in _INSIDE[kind]:
        return True
    # A line nobody knows stays in a map of mail inspection, so that it is named there.
    return section.header.keywords[1:4] == ("type", "inspect", "esmtp") and word not in _ENDS
