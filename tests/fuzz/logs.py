"""Target ``logs``: bytes as the log that ``diagnose`` reads.

Whatever they are there is an answer, or one line of an error; what is shown is printable, and what is counted adds
up. Captures are the target ``captures``. Does not know what a line means.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from nfmailguard.errors import CaptureError
from nfmailguard.probe import traces
from nfmailguard.probe.signs import KINDS
from nfmailguard.reports import probed
from nfmailguard.reports.console import Console

__all__ = ["parse"]

_FD = os.memfd_create("fuzz.log")
_PATH = Path(f"/proc/self/fd/{_FD}")


def _printable(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


def parse(data: bytes) -> None:
    """One input; whatever it raises is a fault."""
    if data.startswith(traces.CAPTURES):
        return
    os.ftruncate(_FD, 0)
    os.pwrite(_FD, data, 0)
    found, told = None, ""
    try:
        found = traces.read(_PATH)
    except CaptureError as error:
        told = str(error)
    if found is None:
        assert told
        assert _printable(told)
        assert "\n" not in told
        return
    assert found.exit_code in (0, 1, 3)
    for trace in found.traces:
        assert trace.kind in KINDS
        assert trace.count > 0
        assert trace.peers_with <= trace.peers_seen or not trace.peers_seen
        assert sum(trace.details.values()) <= trace.count
        assert _printable("".join((trace.shown, *trace.peers, *trace.details))), trace
    json.dumps(traces.as_json(found))
    shown = io.StringIO()
    probed.render_traces(found, Console(file=shown))
    assert _printable(shown.getvalue())
