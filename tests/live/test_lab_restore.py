"""A firewall between two restoring gateways, live: what it masks is what comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfmailguard.lab.restore import BEFORE, BEHIND, FIREWALL, WANTED, compare
from nfmailguard.lab.topology import Topology

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"nc{os.getpid()}-", (BEFORE, FIREWALL, BEHIND)) as made:
        yield made


@pytest.mark.parametrize(("profile", "family"), [("pix63", 4), ("asa", 6), ("pix44", 6)])
def test_mail_uses_what_a_firewall_masks_between_two_restoring_gateways(
    topology: Topology, tmp_path: Path, profile: str, family: int
) -> None:
    outcome = compare(topology, profile, tmp_path / "run", family)
    assert outcome.good
    assert outcome.ehlo
    assert outcome.extensions == WANTED
    assert outcome.commands.damaged + outcome.replies.damaged > 0
    assert outcome.replies.left == 0


def test_the_page_of_a_comparison_has_a_dialogue_for_each_profile(tmp_path: Path) -> None:
    page = tmp_path / "restore.html"
    argv = ["lab", "restore", "--profile", "asa", "--profile", "pix63", "--report", str(page)]
    command = [sys.executable, "-m", "nfmailguard", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    if "cannot make namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "asa, between two restoring gateways" in text
    assert "pix63, between two restoring gateways" in text
    assert "<caption>Bytes masked by the firewall that were put back</caption>" in text
