"""What a running gateway does at the moment: two of its answers, a moment apart, as a screen.

Does not query the gateway; rates are differences of counters, and without an earlier answer there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nfmailguard.reports.standing import reasons, span
from nfmailguard.reports.summary import LOSSES

__all__ = ["Sample", "render"]

_MOST_FINDINGS = 12
#: Counters that are shown as a rate per second, with the name shown.
_RATES = {
    "packets": "packets",
    "queue.bytes": "bytes",
    "flows_opened": "new flows",
    "replaced": "changed",
    "dropped": "dropped",
    "events_written": "events",
}


class Sample(NamedTuple):
    """``status`` and ``stats`` as they were answered, and when (seconds, of any clock)."""

    at: float
    status: Mapping[str, Any]
    stats: Mapping[str, int]


def render(now: Sample, before: Sample | None) -> RenderableType:
    """State and reasons, rates, queues, findings, losses."""
    state = str(now.status["state"])
    head = Text.assemble(
        (state, "bold green" if state == "healthy" else "bold red"),
        f": {now.status['summary']}, up {span(now.status['uptime'])}, rules {now.status['rules']}",
    )
    why = [Text(line, style="red") for line in reasons(now.status)]
    return Group(head, *why, Text(_rates(now, before)), _queues(now), _findings(now, before), Text(_losses(now)))


def _rate(name: str, now: Sample, before: Sample | None) -> float | None:
    """The rate per second; None: not known yet."""
    if before is None or now.at <= before.at:
        return None
    return max(0, now.stats.get(name, 0) - before.stats.get(name, 0)) / (now.at - before.at)


def _number(rate: float | None) -> str:
    if rate is None:
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= max(size, 1e4):
            return f"{rate / size:.1f} {unit}"
    return f"{rate:.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _rates(now: Sample, before: Sample | None) -> str:
    shown = [f"{_number(_rate(name, now, before))} {what}" for name, what in _RATES.items() if name in now.stats]
    return f"a second: {', '.join(shown)}; {now.stats.get('flows_now', 0)} flows open"


def _queues(now: Sample) -> Table:
    table = Table("queue", box=None, pad_edge=False)
    for name in ("waiting", "of", "held", "flows", "of", "MiB", "of", "dropped by kernel"):
        table.add_column(name, justify="right")
    for queue in now.status["queues"]:
        memory = (f"{queue['memory'] / 2**20:.1f}", f"{queue['most_memory'] / 2**20:.0f}")
        places = (queue["waiting"], queue["length"], queue["held"], queue["flows"], queue["most_flows"])
        table.add_row(str(queue["number"]), *map(str, places), *memory, str(queue["dropped_by_kernel"]))
    return table


def _findings(now: Sample, before: Sample | None) -> RenderableType:
    counts = {name: count for name, count in now.stats.items() if name.startswith("finding.") and count}
    if not counts:
        return Text("no findings")
    table = Table("finding", box=None, pad_edge=False)
    table.add_column("so far", justify="right")
    table.add_column("a second", justify="right")
    by_rate = sorted(counts, key=lambda name: (-(_rate(name, now, before) or 0), -counts[name], name))
    for name in by_rate[:_MOST_FINDINGS]:
        table.add_row(name.removeprefix("finding."), str(counts[name]), _number(_rate(name, now, before)))
    return table


def _losses(now: Sample) -> str:
    lost = [f"{count} {what}" for name, what in LOSSES.items() if (count := now.stats.get(name, 0))]
    return f"losses: {', '.join(lost) or 'none'}"
