"""Lines for the operator, limited to a number that can be read.

Promises: of a flood the first lines are written, and then how many of which kind were not. Does not know where they go.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

__all__ = ["MOST", "PERIOD", "Notices"]

#: At most MOST lines are written within PERIOD seconds.
MOST, PERIOD = 40, 10.0


class Notices:
    """Passes lines to ``write``, which may not raise. A line's kind is its first part after ``nfmailguard: ``."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._since = clock()
        self._told = 0
        self._suppressed: Counter[str] = Counter()

    def tell(self, line: str) -> None:
        self.look()
        if self._told < MOST:
            self._told += 1
            self._write(line)
        else:
            self._suppressed[line.removeprefix("nfmailguard: ").partition(":")[0]] += 1

    def look(self) -> None:
        """Reports what was suppressed, when the period is over."""
        if self._clock() - self._since >= PERIOD:
            self.last()
            self._since, self._told = self._clock(), 0

    def last(self) -> None:
        """Reports what was suppressed, at once."""
        if self._suppressed:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._suppressed.items())
            self._suppressed.clear()
            self._write(f"nfmailguard: too many lines; not shown: {kinds}")
