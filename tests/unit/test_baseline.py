"""The recorded baseline says the same of the same, and sees what a case does otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from nfmailguard.engine import Engine, OperationKind
from tests.baseline import differences, record

DELIVERIES = 200


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.baseline.RUNS_A_CASE", 2)


def deliveries() -> list[str]:
    return record([], ["machine"], DELIVERIES)


def test_the_same_tree_gives_the_same_lines() -> None:
    lines = deliveries()
    assert len(lines) > 10
    assert sum(int(line.split("\t")[1]) for line in lines) >= DELIVERIES
    assert differences(lines, deliveries()) == []


def test_a_verdict_that_is_another_one_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = deliveries()
    expire = Engine.expire

    def dropped(engine: Engine, now: int) -> Any:
        answers = expire(engine, now)
        return [(OperationKind.ACCEPT, number, None, way) for _, number, _, way in answers]

    monkeypatch.setattr(Engine, "expire", dropped)
    assert any("outputs" in told for told in differences(before, deliveries()))


def test_every_difference_has_its_line() -> None:
    before = ["a\t1\to\te\tc\tv", "b\t1\to\te\tc\tv", "c\t1\to\te\tc\tv"]
    now = ["a\t1\to\te\tc\tv", "b\t2\to\te\tC\tv", "d\t1\to\te\tc\tv"]
    assert differences(before, now) == ["c: gone", "d: new", "b: packets, counters"]
