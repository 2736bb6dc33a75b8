"""Every rule of docs/streams.md has a test here and a mutation in tests/mutants, and neither names another."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.table import ROOT, Mutant, mutants, rule_of, rules, sources

pytestmark = pytest.mark.sources

HERE = sources(ROOT)
TEST = re.compile(r"^def (test_\w+)\(", re.MULTILINE)


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


def test_every_rule_has_a_mutation() -> None:
    mutated = {mutant.rule for mutant in mutants()}  # ValueError: one of no rule
    assert [rule for rule in rules() if rule not in mutated] == []


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_every_mutation_has_one_place(mutant: Mutant) -> None:
    path, text = mutant.changed(HERE)  # ValueError: no place, or several, or it changes nothing
    assert text != path.read_text()
