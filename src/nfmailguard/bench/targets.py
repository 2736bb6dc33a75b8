"""The targets: what inspection may cost, and whether a report shows that it costs no more.

Promises: a figure is the median of paired ratios; what was not measured is neither met nor missed. Change a target by
changing its row.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

from nfmailguard.bench.results import Answer, Report, interval, spread

__all__ = ["answers"]

ENFORCE = "enforce pix63"


class Target(NamedTuple):
    """One comparison: ``case`` over ``base`` in ``group`` of a benchmark, or a value by itself."""

    number: str
    says: str
    benchmark: str
    group: str
    case: str
    #: The case to divide by; None: the value itself is compared with the limit.
    base: str | None
    figure: str | None
    limit: float
    #: True: the figure must be at least the limit; False: at most.
    at_least: bool
    digits: int = 2


def _ratio(number: str, says: str, benchmark: str, groups: tuple[str, ...], case: str, base: str, limit: float,
           at_least: bool = True, figure: str | None = None) -> Iterator[Target]:  # fmt: skip
    for group in groups:
        yield Target(number, f"{group}: {says}", benchmark, group, case, base, figure, limit, at_least)


SIZES = ("1 KiB", "10 KiB", "1 MiB")
TARGETS: tuple[Target, ...] = (
    *_ratio("1", "mails, of accept-all", "queue", SIZES, ENFORCE, "accept-all", 0.97),
    *_ratio("1", "mails, of a bare C loop", "queue", SIZES, ENFORCE, "C accept-all", 0.95),
    *_ratio("2", "mails, of Suricata", "queue", ("1 MiB",), ENFORCE, "Suricata", 1.6),
    *_ratio("2", "mails, of Suricata", "queue", ("1 KiB",), ENFORCE, "Suricata", 1.05),
    *_ratio("2", "round trip p50, of Suricata", "latency", ("alone",), ENFORCE, "Suricata", 0.95, False),
    *_ratio("3", "round trip p50, of accept-all", "latency", ("alone",), ENFORCE, "accept-all", 1.05, False),
    *_ratio("3", "the same with busy polling", "latency", ("alone",), f"{ENFORCE}, busy polling", "accept-all", 0.7,
            False),
    Target("4", "commands from memory, million packets/s", "engine", "commands", ENFORCE, None, "packets/s", 3.0, True),
    Target("4", "bulk from memory, Gbit/s", "engine", "bulk", ENFORCE, None, "rate", 20.0, True, 1),
    Target("4", "replay without output, CPU of Suricata's -r", "replay", "", "replay", "suricata", None, 0.2, False),
    Target("4", "denied in every packet, time of allowed", "engine", "denied in every packet", ENFORCE, "", "time", 2.0,
           False),
    Target("5", "octets an idle flow", "flows", "1,000,000 flows", ENFORCE, None, "memory", 320.0, False, 0),
    Target("5", "time a packet at 1,000,000 flows, of that at 1,000", "flows", "1,000,000 flows", ENFORCE, "", "time",
           2.0, False),
    Target("6", "start to first packet, s", "start", "start", "nfmailguard run", None, "first packet", 0.4, False),
    Target("6", "resident memory idle, MB", "start", "start", "nfmailguard run", None, "memory", 60.0, False, 0),
    Target("7", "packets lost with a 208 KiB buffer, eight bulk flows", "unprivileged", "8 bulk flows", ENFORCE, None,
           "lost", 0.0, False, 0),
)  # fmt: skip
#: Groups that are compared with another group of the same case instead of with another case.
GROUP_BASE = {"denied in every packet": "allowed in every packet", "1,000,000 flows": "1,000 flows"}


def _values(report: Report, target: Target) -> list[float]:
    found = report.benchmark(target.benchmark)
    if not found:
        return []
    group = target.group or next(iter(found.groups), "")
    if target.base is None:
        return found.values(group, target.case, target.figure)
    if target.base == "":
        mine = found.values(group, target.case, target.figure)
        other = found.values(GROUP_BASE[group], target.case, target.figure)
        return [one / two for one, two in zip(mine, other, strict=False)]
    return found.ratios(group, target.case, target.base, target.figure)


def answers(report: Report) -> list[Answer]:
    """Every target with the measured value."""
    found = []
    for target in TARGETS:
        values = _values(report, target)
        times = "" if target.base is None else "x "
        said = f"{target.says}: {'at least' if target.at_least else 'at most'} {times}{target.limit:g}"
        if not values:
            found.append(Answer(target.number, said, "not measured", None))
            continue
        median = statistics.median(values)
        met: bool | None = median >= target.limit if target.at_least else median <= target.limit
        low, high = interval(values)
        # The limit lies within the range of the measurement: another run could give the opposite answer.
        noisy = low < target.limit < high
        figure = f"{times}{spread(values).text(target.digits)}"
        if target.case.endswith("busy polling") and (cpu := _cpu(report, target)):
            figure += f", CPU x {cpu:.2f}"
        found.append(Answer(target.number, said, figure, None if noisy else met, noisy))
    return found


def _cpu(report: Report, target: Target) -> float | None:
    bench = report.benchmark(target.benchmark)
    ratios = bench.ratios(target.group, target.case, target.base, "CPU") if bench else []
    return statistics.median(ratios) if ratios else None
