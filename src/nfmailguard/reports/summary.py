"""What a gateway did, in a few lines, when it ends.

Does not count anything; shows what the counters said.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

__all__ = ["open_before", "render"]

#: Counters of losses and errors, with a description of what they count.
LOSSES = {
    "queue.uninspected": "packets passed uninspected",
    "queue.kernel_queue_dropped": "packets dropped: queue full",
    "queue.kernel_user_dropped": "packets dropped: socket full",
    "queue.enobufs": "socket overruns",
    "queue.truncated": "packets longer than queue.copy_range",
    "queue.verdict_errors": "verdicts the kernel refused",
    "queue.emit_errors": "resets not sent",
    "drop.checksum": "packets dropped: wrong checksum",
    "drop.malformed": "packets dropped: malformed",
    "drop.fragment": "fragments dropped",
    "drop.window": "packets dropped: beyond the receiver's window",
    "drop.condition": "packets dropped: limits",
    "flows_refused": "flows refused: limits.flows",
    "flows_evicted": "flows forgotten early: limits.flows",
    "records_lost": "events lost: written too slowly",
    "events_lost": "events that could not be written",
    "events_unmade": "events for which there was no memory",
    "log_lines_lost": "log lines that could not be sent",
    "events_withheld": "events withheld: limits.log_rate",
    "log_lines_withheld": "log lines withheld: limits.log_rate",
    "event_flows_forgotten": "flows forgotten by the log: limits.event_memory",
    "internal_errors": "internal errors (please report)",
}


def open_before(counters: Mapping[str, int]) -> int:
    """Flows whose beginning was not seen and that passed uninspected, mostly those open before the start."""
    return max(0, counters.get("flows_midstream", 0) - counters.get("drop.midstream", 0))


def render(counters: Mapping[str, int], console: Console) -> None:
    """Packets and flows, then findings, then losses; nothing if there is nothing to report."""
    count = counters.get
    findings = {name.removeprefix("finding."): value for name, value in counters.items() if name.startswith("finding.")}
    lines = {
        "done": f"{count('packets', 0)} packets of {count('flows_opened', 0) + count('flows_midstream', 0)} flows in "
        f"{count('uptime', 0)} s: {count('replaced', 0)} changed, {count('dropped', 0)} dropped, "
        f"{count('flows_reset', 0)} flows reset{_before(open_before(counters))}",
        "findings": ", ".join(f"{name} {value}" for name, value in sorted(findings.items()) if value),
        "losses": ", ".join(f"{value} {what}" for name, what in LOSSES.items() if (value := count(name, 0))),
    }
    for title, line in lines.items():
        if line:
            style = "bold yellow" if title == "losses" else "bold"
            console.print(Text.assemble("nfmailguard: ", (f"{title}:", style), f" {line}"), soft_wrap=True)


def _before(flows: int) -> str:
    return f"; {flows} open since before, uninspected" if flows else ""
