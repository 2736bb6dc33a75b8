"""Reads dialogues from files: event logs, or one or two captures.

Promises: a file that is none of these raises ConfigError or CaptureError, in a line with its name. Does not know how
they are shown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nfmailguard.errors import ConfigError
from nfmailguard.events.outlook import lines_of
from nfmailguard.plain import printable
from nfmailguard.transcripts.logged import Log
from nfmailguard.transcripts.model import Dialogue
from nfmailguard.transcripts.recorded import dialogues

__all__ = ["is_capture", "read"]

_CAPTURES = (b"\xa1\xb2", b"\xd4\xc3", b"\x4d\x3c", b"\x0a\x0d\x0d\x0a")


def is_capture(path: Path) -> bool:
    """Whether a file begins as a capture, compressed or not; False for a file that cannot be read."""
    if str(path) == "-":
        return False
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except (OSError, ValueError):
        return False
    return head.startswith(_CAPTURES) or (head.startswith(b"\x1f\x8b") and ".pcap" in path.name)


def read(paths: Sequence[Path], ports: Sequence[int], *, sides: bool = False) -> tuple[tuple[list[Dialogue], int], str]:
    """Dialogues, how much was left out for lack of memory, and a name for them."""
    name = printable(", ".join(map(str, paths)), 200)
    captures = [path for path in paths if is_capture(path)]
    if captures:
        if len(captures) < len(paths) or len(paths) > 2:
            raise ConfigError(
                f"{name}: name one capture, or that of what came and that of what left; or event logs only"
            )
        return dialogues(paths[0], paths[1] if len(paths) == 2 else None, ports=ports, sides=sides), name
    log = Log()
    for path in paths:
        log.read(sys.stdin.buffer if str(path) == "-" else lines_of(path))
    if not log.dialogues and log.unreadable:
        raise ConfigError(f"{name}: neither a capture nor an event log (its lines are no JSON events)")
    return (log.dialogues, log.left_out), name
