"""Configuration text of a PIX, ASA, FWSM or IOS device as numbered lines in sections, and what became of each.

Promises: any text becomes sections, in time linear in its length; a line is in one section. Does not know what a line
means, except which words can occur inside a section: text pasted from a manual has lost its indentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.plain import printable
from nfmailguard.policy.cisco import source

__all__ = ["ImportReport", "Line", "Section", "Statement", "Status", "sections", "statements"]

_LARGEST = 64 * 1024 * 1024
_MOST_LINES = 1_000_000
_PROMPT = re.compile(r"([\w./-]{1,80})(?:\((config[\w-]{0,40})\))?[#>][ \t]*")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SHOWN = 160

_OF_A_MAP = """
match class parameters description exit drop drop-connection mask reset log rate-limit
mask-banner mail-relay special-character allow-tls
"""
_OF_AN_OBJECT = """
network-object port-object group-object service-object protocol-object host subnet range fqdn service description exit
"""
#: First words of lines inside each kind of section, used where the text has lost its indentation.
_INSIDE = {
    "policy-map": frozenset({"class", "description", "inspect", "set", "police", "priority", "exit"}),
    "class-map": frozenset({"match", "description", "exit"}),
    "inspect": frozenset(_OF_A_MAP.split()),
    "zones": frozenset({"class", "description", "inspect", "pass", "drop", "police", "service-policy", "exit"}),
    "object-group": frozenset(_OF_AN_OBJECT.split()),
    "object": frozenset(_OF_AN_OBJECT.split()),
}
_MAIL = ("smtp", "esmtp")
#: First words that occur only inside sections: such a line belongs to the section even if it has lost its indentation.
_NOWHERE_ELSE = frozenset({"class", "match", "inspect", "parameters"})
#: First words that end a section in a text without indentation.
_ENDS = source.FIRST_WORDS


class Status(StrEnum):
    """What became of a line that concerns mail inspection."""

    HONOURED = "honoured"
    NOT_HONOURED = "not honoured"
    ERROR = "error"


class Line(msgspec.Struct, frozen=True):
    """One line and what became of it; ``what`` says how it was honoured, or why not."""

    number: int
    text: str
    status: Status
    what: str
    #: Name of the file that the line is from, if several files were read; else None.
    file: str | None = None

    def __str__(self) -> str:
        text = printable(self.text[:_SHOWN])
        more = "..." if len(self.text) > _SHOWN else ""
        return f"line {self.number}: {text}{more}: {self.status}: {self.what}"


@dataclass(frozen=True)
class Statement:
    """One line with content: its number from 1, its depth of indentation, its words.

    ``file``: which of several files it is from. ``context``: the context named in the prompt before the line.
    """

    number: int
    depth: int
    text: str
    words: tuple[str, ...]
    file: str | None = None
    context: str | None = None

    @property
    def place(self) -> str:
        """The line's place as readable text."""
        return f"line {self.number}" if self.file is None else f"line {self.number} of {self.file}"

    @property
    def keywords(self) -> tuple[str, ...]:
        """The words in lower case, because a Cisco device ignores case in keywords."""
        return tuple(word.lower() for word in self.words)


@dataclass
class Section:
    """A header line and the lines that belong to it."""

    header: Statement
    body: list[Statement] = field(default_factory=list)


class ImportReport:
    """What was reported about each line: an error outranks "not honoured", and that outranks "honoured"."""

    def __init__(self) -> None:
        # What was reported about each line, by file and line number, in the order of the files and then of their lines.
        self._lines: dict[tuple[str | None, int], Line] = {}
        self._order: dict[str | None, int] = {}

    def honoured(self, statement: Statement, what: str, *, anew: bool = False) -> None:
        """Reports a line as honoured. ``anew``: replaces an earlier report that it was honoured."""
        if anew and self.status(statement) is Status.HONOURED:
            del self._lines[statement.file, statement.number]
        self._note(statement, Status.HONOURED, what)

    def not_honoured(self, statement: Statement, what: str) -> None:
        self._note(statement, Status.NOT_HONOURED, what)

    def error(self, statement: Statement, what: str) -> None:
        self._note(statement, Status.ERROR, what)

    def __contains__(self, statement: Statement) -> bool:
        return (statement.file, statement.number) in self._lines

    def status(self, statement: Statement) -> Status | None:
        line = self._lines.get((statement.file, statement.number))
        return line.status if line else None

    def lines(self) -> tuple[Line, ...]:
        """All reported lines, in the text's order."""
        return tuple(self._lines[key] for key in sorted(self._lines, key=lambda key: (self._order[key[0]], key[1])))

    def _note(self, statement: Statement, status: Status, what: str) -> None:
        self._order.setdefault(statement.file, len(self._order))
        key = statement.file, statement.number
        before = self._lines.get(key)
        order = list(Status)
        if before is None or order.index(status) > order.index(before.status):
            self._lines[key] = Line(statement.number, statement.text, status, what, statement.file)


def statements(text: str, file: str | None = None) -> list[Statement]:
    """The lines that are neither empty nor comments; ConfigError if this is no text."""
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
    numbered = enumerate(source.lines(text), start=1)
    return [found for number, line in numbered if (found := _statement(number, line, file)) is not None]


def _statement(number: int, line: str, file: str | None) -> Statement | None:
    stripped = line.strip()
    depth = len(line) - len(line.lstrip())
    context = None
    prompt = _PROMPT.match(stripped)
    if prompt:
        # The prompt shows how deep the line is nested: (config-pmap-p) is two levels below (config).
        depth = (prompt[2] or "config").count("-")
        _, slash, name = prompt[1].partition("/")
        context = name if slash else None
        stripped = stripped[prompt.end() :].strip()
    stripped = source.without_comment(stripped)
    if not stripped or stripped[0] in "!:":
        return None
    return Statement(number, depth, stripped, tuple(stripped.split()), file, context)


def _kind(words: tuple[str, ...]) -> str | None:
    """Which kind of section begins with these words, and so which words may be inside; None: any deeper line."""
    if words[0] == "policy-map" and words[1:3] == ("type", "inspect") and len(words) == 4:
        return "inspect" if words[3] in _MAIL else "zones"
    if words[0] == "policy-map":
        return "inspect" if words[1:2] == ("type",) else "policy-map"
    return words[0] if words[0] in _INSIDE else None


def sections(found: Iterable[Statement]) -> Iterator[Section]:
    """Sections: each header with the deeper lines; without any indentation, with the lines that can
    only be inside it.
    """
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
    if kind is None or statement.depth < depth:
        return False
    words = statement.keywords
    word = words[1] if words[0] == "no" and len(words) > 1 else words[0]
    if section.body and section.body[0].depth > depth and word not in _NOWHERE_ELSE:
        return False
    if word == "service-policy":
        # `service-policy smtp NAME` belongs to a class of a zone policy; other service-policy lines belong to an
        # interface or a zone pair.
        return kind == "zones" and len(words) == 3 and words[2] != "global"
    if word in _INSIDE[kind]:
        return True
    # An unknown line stays in a map of mail inspection, so that it is reported as part of that map.
    header = section.header.keywords
    return len(header) > 3 and header[1:3] == ("type", "inspect") and header[3] in _MAIL and word not in _ENDS
