"""Tutorial and lesson, from the first command to the last, in a lab of their own: they print what the page says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nfmailguard.lab import standing
from tests.support.documents import differs, steps
from tests.unit.test_documents import ROOT, place, ran

pytestmark = [pytest.mark.live, pytest.mark.sources]


@pytest.mark.parametrize(("page", "fewest"), [("tutorial.md", 12), ("lesson.md", 9)])
def test_a_page_of_the_lab_prints_what_it_says(page: str, fewest: int, tmp_path: Path) -> None:
    if standing.DEFAULT in standing.names():
        pytest.skip("somebody works in a lab here")
    environment = place(tmp_path)
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], check=False, capture_output=True, text=True)
    if os.geteuid() != 0 or probe.returncode:
        pytest.skip(f"no namespaces here: {probe.stderr.strip()}")
    try:
        done = 0
        for step in steps((ROOT / "docs" / page).read_text()):
            printed = ran(step, tmp_path / "examples", environment)
            assert differs(step.lines, printed) == "", step.command
            done += 1
        assert done >= fewest
    finally:
        standing.down()
