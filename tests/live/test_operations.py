"""Every operation a core can ask for, carried out by the kernel driver on a real queue."""

import subprocess
import sys
from pathlib import Path

import pytest
from queue_router import router_or_skip

pytestmark = pytest.mark.live

PROGRAM = Path(__file__).with_name("scripted_core.py")


@pytest.mark.parametrize(
    "scenario",
    [
        "changed_dropped_and_passed",
        "held_until_released",
        "held_until_the_end",
        "held_until_the_deadline",
        "emitted_behind_what_it_follows",
        "too_long_for_a_verdict",
    ],
)
def test_an_operation_is_carried_out_and_tapped(scenario: str) -> None:
    with router_or_skip():
        pass
    command = [sys.executable, "-W", "error", str(PROGRAM), scenario]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
