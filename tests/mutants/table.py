"""The table of mutations, mutants.toml, and how one is applied to a tree.

Promises: a mutation whose text is not found exactly once is an error, never a mutation that
does nothing. Does not know how a tree is built or tested.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Mutant", "mutants", "rules", "tests_of"]

ROOT = Path(__file__).parents[2]
_RULE = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
_TEST = re.compile(r"^def (test_\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """One change of one file: ``old`` stands in it exactly once and becomes ``new``."""

    rule: str
    number: int
    what: str
    file: str
    old: str
    new: str

    @property
    def name(self) -> str:
        return f"{self.rule}-{self.number}"

    @property
    def digest(self) -> str:
        return hashlib.sha256("\0".join((self.file, self.old, self.new)).encode()).hexdigest()

    def changed(self, tree: Path) -> str:
        """The file's text with the mutation in it; ValueError when its text is not there, or not once."""
        text = (tree / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: found {text.count(self.old)} times in {self.file}: {self.old!r}")
        if self.old == self.new:
            raise ValueError(f"{self.name}: changes nothing")
        return text.replace(self.old, self.new)


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
