"""Every rule of docs/streams.md has a test here and a mutation in tests/mutants, and neither names another."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]
RULE = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
TEST = re.compile(r"^def test_(\w+)\(", re.MULTILINE)


def rules() -> list[str]:
    """The ids, in the order of the document."""
    return RULE.findall((ROOT / "docs" / "streams.md").read_text())


def rule_of(test: str) -> str | None:
    """The rule a test is named after: of several the longest, and something has to stand behind it."""
    return max((rule for rule in rules() if test.startswith(f"{rule}_")), key=len, default=None)


def names_of_tests() -> list[str]:
    files = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    return [name for path in sorted(files) for name in TEST.findall(path.read_text())]


def test_every_rule_has_a_test_named_after_it() -> None:
    proven = {rule_of(test) for test in names_of_tests()}
    assert [rule for rule in rules() if rule not in proven] == []
    assert len(rules()) > 50


def test_every_test_is_named_after_a_rule() -> None:
    assert [test for test in names_of_tests() if rule_of(test) is None] == []


def test_every_rule_is_told_once() -> None:
    assert [rule for rule, count in Counter(rules()).items() if count > 1] == []


def test_every_rule_has_a_mutation_and_every_mutation_a_rule() -> None:
    mutants = tomllib.loads((ROOT / "tests" / "mutants" / "mutants.toml").read_text())
    assert [rule for rule in rules() if not mutants.get(rule)] == []
    assert [rule for rule in mutants if rule not in rules()] == []
