"""The list of cases from the field in docs/testing.md names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "testing.md"
SECTION = PAGE.read_text().partition("## Cases from the field\n")[2].partition("\n## ")[0]
ROWS = [line for line in SECTION.splitlines() if line.startswith("| ")][1:]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def functions(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_is_a_row_for_every_case() -> None:
    assert len(ROWS) >= 26


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split(" | ")[0].strip("| ")[:60])
def test_a_case_is_held_by_tests_that_are_there(row: str) -> None:
    case, right, held, siblings = (cell.strip() for cell in row.strip("|").split(" | "))
    named = NAMED.findall(held)
    assert all((case, right, named, siblings))
    for file, function in named:
        assert function.startswith("test_")
        assert function in functions(file)
