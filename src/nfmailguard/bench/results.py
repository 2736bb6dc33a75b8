"""The results of benchmarks: every value of every round, stored as JSON.

Promises: a ratio pairs values of the same round, and is quoted as median and range; a file of another version is read,
or refused in one line. Does not measure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nfmailguard.errors import BenchError, ConfigError
from nfmailguard.reading import octets_of

__all__ = ["Answer", "Benchmark", "Report", "Spread", "interval", "load", "save", "spread"]

_MOST = 64 << 20  # Largest report file in bytes.


class Spread(NamedTuple):
    """Median and range."""

    median: float
    least: float
    most: float

    def text(self, digits: int) -> str:
        """``0.98 (0.95-1.01)``; one value stands alone."""
        if self.least == self.most:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}-{self.most:,.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The range in which the median of many more rounds would be, 95 times of 100: between two of the values (sign
    test).

    With fewer than six values it is their range.
    """
    ranked, count = sorted(values), len(values)
    left_out, tail = 0, 0.5**count
    while tail <= 0.025 and left_out < count // 2:
        left_out += 1
        tail += math.comb(count, left_out) * 0.5**count
    cut = max(0, left_out - 1)
    return ranked[cut], ranked[count - 1 - cut]


class Benchmark(msgspec.Struct):
    """One benchmark: values by group (a size, a capture), case (a candidate) and figure, one per round."""

    name: str
    title: str
    #: Unit of each figure by its name; the first figure is the one that is plotted and compared.
    units: dict[str, str]
    #: The case that all other cases are compared with.
    base: str
    #: True if a larger first figure is better.
    more: bool = True
    groups: dict[str, dict[str, dict[str, list[float]]]] = {}
    #: Notes a reader needs to understand the figures.
    notes: list[str] = []

    @property
    def figure(self) -> str:
        """The name of the first figure."""
        return next(iter(self.units))

    def add(self, group: str, case: str, **figures: float) -> None:
        """One round's values of a case."""
        there = self.groups.setdefault(group, {}).setdefault(case, {})
        for figure, value in figures.items():
            there.setdefault(figure, []).append(value)

    def values(self, group: str, case: str, figure: str | None = None) -> list[float]:
        """Values by round; empty if it was not measured."""
        return self.groups.get(group, {}).get(case, {}).get(figure or self.figure, [])

    def ratios(self, group: str, case: str, base: str | None = None, figure: str | None = None) -> list[float]:
        """Ratios of values of the same rounds; empty if either was not measured."""
        mine, other = self.values(group, case, figure), self.values(group, base or self.base, figure)
        return [one / two for one, two in zip(mine, other, strict=False) if two]

    def cases(self) -> list[str]:
        """The cases, in the order in which they were first measured."""
        return list(dict.fromkeys(case for cases in self.groups.values() for case in cases))


class Answer(msgspec.Struct):
    """A target, what was measured, and whether it is met; ``met`` None: it could not be measured here.

    ``noisy``: it was measured, and the rounds differ too much to decide.
    """

    number: str
    target: str
    found: str
    met: bool | None
    noisy: bool = False


class Report(msgspec.Struct):
    """What one run of ``nfmailguard bench`` found, with the machine it ran on."""

    version: str
    date: str
    machine: dict[str, str]
    benchmarks: list[Benchmark] = []
    answers: list[Answer] = []

    def benchmark(self, name: str) -> Benchmark | None:
        return next((one for one in self.benchmarks if one.name == name), None)


def save(report: Report, path: Path) -> None:
    """Raises BenchError."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    except OSError as error:
        raise BenchError(f"{path}: cannot write: {error.strerror}") from error


def load(path: Path) -> Report:
    """Raises BenchError."""
    try:
        return msgspec.json.decode(octets_of(path, _MOST, f"{path}: cannot read"), type=Report)
    except ConfigError as error:
        raise BenchError(str(error)) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise BenchError(f"{path}: not a report of `nfmailguard bench --json`: {error}") from error


def compare(old: Report, new: Report, tolerance: float) -> list[str]:
    """Where ``new`` is worse than ``old`` by more than ``tolerance``, one line each: in ratios where there are pairs.

    Absolute rates vary between machines and hours; the ratio of a case to its base does not.
    """
    found = []
    for mine in new.benchmarks:
        before: Any = old.benchmark(mine.name)
        for group, cases in mine.groups.items() if before else ():
            for case in cases:
                now, then = mine.ratios(group, case), before.ratios(group, case)
                if case == mine.base or not now or not then:
                    continue
                change = statistics.median(now) / statistics.median(then)
                worse = 1 / change if mine.more else change
                # If the rounds of the two runs overlap, or a run had only one round, no change can be proved.
                overlap = min(then) <= max(now) and min(now) <= max(then)
                if worse > 1 + tolerance and not overlap and min(len(now), len(then)) > 1:
                    found.append(
                        f"{mine.name}, {group}, {case}: x {statistics.median(then):.2f} of {mine.base} before,"
                        f" x {statistics.median(now):.2f} now"
                    )
    return found
