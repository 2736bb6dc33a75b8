"""The answer of a running gateway to ``flows``, as lines. Does not query the gateway; shows the given answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nfmailguard.events.records import end_text
from nfmailguard.reports.standing import span

__all__ = ["render"]

HEADINGS = ("AGE", "IDLE", "CLIENT", "SERVER", "STATE", "RULE", "PACKETS", "BYTES", "WAITS FOR")


def render(answer: Mapping[str, Any]) -> Iterator[str]:
    """One line per flow, the oldest first, in columns; then their number."""
    rows = [HEADINGS, *(_row(flow) for flow in answer["flows"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    if answer["flows"]:
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    shown, count = len(answer["flows"]), answer["of"]
    yield f"{count} flows" if shown == count else f"the {shown} oldest of {count} flows"


def _row(flow: Mapping[str, Any]) -> tuple[str, ...]:
    place = "" if flow["rule"] is None else f" (rule {flow['rule']})"
    state = flow["smtp_state"] if flow["state"] == "established" else flow["state"]
    return (
        span(int(flow["age"])),
        span(int(flow["idle"])),
        end_text(flow["client"], flow["client_port"]),
        end_text(flow["server"], flow["server_port"]),
        state if flow["inspection"] == "inspected" else flow["inspection"],
        f"{flow['mode']} {flow['profile']}{place}",
        f"{flow['pkts_toserver']}/{flow['pkts_toclient']}",
        f"{flow['bytes_toserver']}/{flow['bytes_toclient']}",
        flow["waits_for"],
    )
