"""The table of mutations, mutants.toml, and how one is applied to a tree.

A mutation names the function it changes and a fragment of it, not a file or a line, so that functions can
move and lines be wrapped without a change of the table. Promises: a mutation whose place is not found
exactly once, or which changes nothing but space and comments, is an error, never a mutation that does
nothing. Does not know how a tree is built or tested.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Mutant", "mutants", "rules", "sources", "tests_of"]

ROOT = Path(__file__).parents[2]
_RULE = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
_TEST = re.compile(r"^def (test_\w+)\(", re.MULTILINE)
#: Where a function may begin: in Cython and Python at the margin or as a method, in a header as `static`.
_BEGINNING = {
    ".h": re.compile(r"^static [^\n;={]*?\b(?P<name>\w+)\((?P<arguments>)", re.MULTILINE),
    "": re.compile(
        r"^(?P<indent> *)(?:cdef|cpdef|def)\b(?! (?:enum|struct|union|class|extern)\b)[^\n=(]*?\b(?P<name>\w+)\(",
        re.MULTILINE,
    ),
}
_CLASS = re.compile(r"^(?:cdef )?class (\w+)", re.MULTILINE)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_COMMENT = re.compile(r"#[^\n\"']*$|/\*.*?\*/", re.MULTILINE | re.DOTALL)
_GAP = r"(?:\s|\\\n|#[^\n]*\n)*"


def _behind_arguments(text: str, at: int) -> int:
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at


@lru_cache(maxsize=512)
def functions_of(text: str, header: bool) -> list[tuple[str, int, int]]:
    """Each function that has a body here, with where it begins and ends; a method as `Class.method`."""
    found = []
    for match in _BEGINNING[".h" if header else ""].finditer(text):
        indent = "" if header else match["indent"]
        behind = _behind_arguments(text, match.end())
        line = text[behind : text.find("\n", behind)].partition("#")[0]
        if not line.rstrip().endswith(("{", "}") if header else ":") and ("{" if header else ":") not in line:
            continue  # declared, not defined
        end = re.compile(rf"^(?! {{{len(indent) + 1}}}|\n|[)}}]|{indent} *#)", re.MULTILINE).search(text, behind)
        name = match["name"]
        if indent:
            name = f"{[*_CLASS.finditer(text, 0, match.start())][-1][1]}.{name}"
        found.append((name, match.start(), end.start() if end else len(text)))
    return found


class Source(NamedTuple):
    """A file of the core or the package, with the name it is imported by."""

    module: str
    path: Path
    text: str


def sources(tree: Path) -> list[Source]:
    """All of them, as they are now."""
    return [
        Source(".".join((package, *path.relative_to(tree / top).with_suffix("").parts)), path, path.read_text())
        for top, package in (("cext", "nfmailguard.cext"), ("src/nfmailguard", "nfmailguard"))
        for path in sorted((tree / top).rglob("*"))
        if path.suffix in {".pyx", ".pxd", ".h", ".py"}
    ]


def _pattern(fragment: str) -> re.Pattern[str]:
    """Finds a fragment however it is spaced, wrapped and commented between its tokens."""
    tokens = _TOKEN.findall(fragment)
    edges = [r"(?<!\w)" if tokens[0][0].isalnum() else "", r"(?!\w)" if tokens[-1][-1].isalnum() else ""]
    return re.compile(edges[0] + _GAP.join(map(re.escape, tokens)) + edges[1])


def _code(text: str) -> str:
    return " ".join(_TOKEN.findall(_COMMENT.sub("", text)))


@dataclass(frozen=True)
class Mutant:
    """One change of one function: the fragment ``find`` is in it exactly once and becomes ``put``.

    ``module`` is the end of a module's dotted name. It is needed where two modules have a function of that name,
    where no function is meant but what is around them, and for anything outside the core.
    """

    rule: str
    number: int
    what: str
    find: str
    put: str
    function: str = ""
    module: str = ""

    @property
    def name(self) -> str:
        return f"{self.rule}-{self.number}"

    @property
    def where(self) -> str:
        return ".".join(part for part in (self.module, self.function) if part)

    @property
    def digest(self) -> str:
        parts = (self.module, self.function, self.find, self.put)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _spans(self, within: list[Source]) -> list[tuple[Source, int, int]]:
        """Every function of the name, or every file of the module."""
        spans = []
        for source in within:
            if not self.module and not source.module.startswith("nfmailguard.cext."):
                continue
            if self.module and not f".{source.module}".endswith(f".{self.module}"):
                continue
            if not self.function:
                spans.append((source, 0, len(source.text)))
                continue
            functions = functions_of(source.text, source.path.suffix == ".h")
            spans += [(source, begin, end) for name, begin, end in functions if name == self.function]
        return spans

    def changed(self, within: list[Source]) -> tuple[Path, str]:
        """Its file, and that file's text with the mutation in it; ValueError when there is no one place for it."""
        spans = self._spans(within)
        if self.function and len(spans) != 1:
            raise ValueError(f"{self.name}: {len(spans)} functions are named {self.where}")
        pattern = _pattern(self.find)
        found = [(source, match) for source, *span in spans for match in pattern.finditer(source.text, *span)]
        if len(found) != 1:
            raise ValueError(f"{self.name}: found {len(found)} times in {self.where}: {self.find!r}")
        if _code(self.find) == _code(self.put):
            raise ValueError(f"{self.name}: changes nothing")
        source, match = found[0]
        return source.path, _replaced(source.text, match.start(), match.end(), self.put)


def _replaced(text: str, begin: int, end: int, put: str) -> str:
    """``put`` in that place: its further lines as deep as the first; nothing takes out the lines it leaves blank."""
    line = text.rfind("\n", 0, begin) + 1
    indent = re.match(" *", text[line:])[0]  # type: ignore[index]
    lines = put.strip("\n").split("\n")
    lines[1:] = [indent + further if further else further for further in lines[1:]]
    if not put.strip() and not text[line:begin].strip() and text[end : end + 1] == "\n":
        begin, end = line, end + 1
    return text[:begin] + "\n".join(lines) + text[end:]


def rules() -> list[str]:
    """The ids of docs/streams.md, in its order."""
    return _RULE.findall((ROOT / "docs" / "streams.md").read_text())


def mutants(only: Iterable[str] = ()) -> list[Mutant]:
    """The mutations in the order of the rules; ``only`` of these rules, or with these names."""
    table = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text())
    order = rules()
    found = [
        Mutant(rule, number, **row)
        for rule, rows in sorted(table.items(), key=lambda item: order.index(item[0]))
        for number, row in enumerate(rows, start=1)
    ]
    wanted = set(only)
    unknown = wanted - {name for mutant in found for name in (mutant.rule, mutant.name)}
    if unknown:
        raise ValueError(f"no such rule or mutation: {', '.join(sorted(unknown))}")
    return [mutant for mutant in found if not wanted or wanted & {mutant.rule, mutant.name}]


def rule_of(test: str) -> str | None:
    """The rule a test function is named after: of several the longest, and something stands behind it."""
    return max((rule for rule in rules() if test.startswith(f"test_{rule}_")), key=len, default=None)


def tests_of(rule: str, tree: Path) -> list[str]:
    """The node ids of the own tests a rule has in a tree."""
    return [
        f"tests/rules/{path.name}::{test}"
        for path in sorted((tree / "tests" / "rules").glob("test_*.py"))
        for test in _TEST.findall(path.read_text())
        if rule_of(test) == rule
    ]
