"""Whether systemd restarts a service or stops it: can be known only to a command that it runs at the service's end
(ExecStopPost=).

Promises: if it cannot be determined, or the service did not end well, the answer is no. Does not know what depends on
it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

__all__ = ["is_restarted"]

_PATIENCE = 10.0


def is_restarted(unit: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a unit that has just ended well (systemd.exec(5), SERVICE_RESULT) is started again by the same job."""
    if environment.get("SERVICE_RESULT") != "success" or environment.get("EXIT_STATUS") != "0":
        return False
    command = ["systemctl", "list-jobs", "--no-legend", "--no-pager", "--plain", "--full"]
    try:
        jobs = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    # `systemctl list-jobs` prints one job per line: its number, the unit, the job type ("restart"), and whether it is
    # running.
    return any(words[1:3] == [unit, "restart"] for words in map(str.split, jobs.splitlines()))
