"""The answer of a running gateway to ``status``, as lines.

Does not query the gateway; shows the given answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["configuration", "confinement", "reasons", "render", "span", "taken_over"]


def render(status: Mapping[str, Any]) -> Iterator[str]:
    """State first, then its reasons, then each queue."""
    yield f"{status['state']}: {status['summary']}"
    yield from reasons(status)
    yield f"nfmailguard {status['version']}, process {status['pid']}, up {span(status['uptime'])}"
    if status.get("taken_over"):
        yield taken_over(status["taken_over"])
    yield f"rules: {status['rules']}{_uninspected(status['uninspected'])}{_open_before(status['open_before'])}"
    yield from confinement(status["confinement"])
    yield from configuration(status["configuration"])
    for queue in status["queues"]:
        yield (
            f"queue {queue['number']}: {queue['waiting']} of {queue['length']} packets waiting, {queue['held']} held;"
            f" {queue['flows']} of {queue['most_flows']} flows; {queue['memory'] / 2**20:.1f} of"
            f" {queue['most_memory'] / 2**20:.0f} MiB; {queue['packets']} packets so far"
        )


def reasons(status: Mapping[str, Any]) -> Iterator[str]:
    """Why it is degraded, a line each."""
    for reason in status["reasons"]:
        since = time.strftime("%H:%M:%S", time.localtime(reason["since"]))
        count = f"{reason['count']} " if reason["count"] else ""
        yield f"  {reason['reason']}: {count}{reason['text']} (since {since})"


def configuration(standing: Mapping[str, Any]) -> Iterator[str]:
    """Which configuration is in force, if it is not that of the start."""
    if standing["generation"] > 1:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(standing["since"]))
        under = f"{standing['flows_under_older']} flows are under {standing['older']} older ones"
        yield f"configuration: generation {standing['generation']} since {since}; {under}"


def taken_over(standing: Mapping[str, Any], reason: str = "") -> str:
    """From which process a gateway took over, and what; ``reason``: why it took over only the queues."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(standing["at"]))
    whose = f"process {standing['process']} (nfmailguard {standing['version']})"
    if reason:
        return (
            f"took the queues over from {whose} at {since}, and nothing else: {reason}; as after a crash, open flows"
            " count as open since before, and what was held is dropped"
        )
    return (
        f"taken over from {whose} at {since}: {standing['flows']} flows, {standing['held']} packets held; for"
        f" {standing['unread']} ms packets waited"
    )


def confinement(standing: Mapping[str, Any]) -> Iterator[str]:
    """What the gateway kept of its privileges, and what it could not give up."""
    kept = ", ".join(standing["capabilities"]) or "no capability"
    calls = f"{standing['system_calls']} system calls" if standing["system_calls"] else "every system call"
    files = f"files by Landlock {standing['landlock']}" if standing["landlock"] else "every file of that user"
    state = "confined" if standing["confined"] else "not confined" if not standing["missing"] else "confined in part"
    yield f"{state}: user {standing['user']}, {kept}, {calls}, {files}"
    yield from (f"  {line}" for line in standing["missing"])


def _open_before(flows: int) -> str:
    return f"; {flows} open since before, uninspected (on.midstream_at_start)" if flows else ""


def _uninspected(count: int | None) -> str:
    return "" if count is None else f"; {count} packets passed uninspected"


def span(seconds: int) -> str:
    """A duration as readable text."""
    days, rest = divmod(seconds, 86400)
    hours, minutes, seconds = rest // 3600, rest // 60 % 60, rest % 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
