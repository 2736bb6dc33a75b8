"""The tutorial, from its first command to its last, in a lab of its own: it prints what the page says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nfmailguard.lab import standing
from tests.support.documents import differs, steps
from tests.unit.test_documents import ROOT, place, ran

pytestmark = [pytest.mark.live, pytest.mark.sources]


def test_the_tutorial_prints_what_it_says(tmp_path: Path) -> None:
    if standing.DEFAULT in standing.names():
        pytest.skip("somebody works in a lab here")
    environment = place(tmp_path)
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], check=False, capture_output=True, text=True)
    if os.geteuid() != 0 or probe.returncode:
        pytest.skip(f"no namespaces here: {probe.stderr.strip()}")
    try:
        done = 0
        for step in steps((ROOT / "docs" / "tutorial.md").read_text()):
            printed = ran(step, tmp_path / "examples", environment)
            assert differs(step.lines, printed) == "", step.command
            done += 1
        assert done >= 12
    finally:
        standing.down()
