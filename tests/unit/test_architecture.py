"""docs/architecture.md names every module of the core, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_module_of_the_core_is_named() -> None:
    named = set(re.findall(r"\w+", (ROOT / "docs" / "architecture.md").read_text()))
    modules = {path.stem for path in (ROOT / "cext").rglob("*.p[yx][xd]")} - {"__init__"}
    assert len(modules) > 80
    assert sorted(modules - named) == []


def test_every_function_of_the_last_table_is_in_the_module_beside_it() -> None:
    rows = (ROOT / "docs" / "architecture.md").read_text().partition("## Where to look")[2].partition("\n## ")[0]
    sources = "".join(
        path.read_text() for path in (*(ROOT / "cext").rglob("*.p[yx][xd]"), *(ROOT / "src").rglob("*.py"))
    )
    names = re.findall(r"`([a-z_]+_[a-z_]+|hold|decide|VERBS|Limits|QueueLoop\.\w+)`", rows)
    assert len(names) > 10
    for name in names:
        assert re.search(rf"\b{name.rpartition('.')[2]}\b", sources), name
