"""How much may be written: a rate for all, and a share for each source.

Promises: what is withheld is counted by kind, and told in a line at most every ten seconds. A
source may use as much as is left (Choudhury and Hahne, "Dynamic queue length thresholds for
shared-memory packet switches", 1998), so that the loudest gives way first and who says little is
heard; memory is bounded. Time is the records' own, so that a capture reads the same whenever it
is read. Does not know what is written.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

__all__ = ["Allowance", "source_of"]

_SECOND = 1_000_000_000
#: Seconds of the rate that may be written at once: a burst is no flood.
_BURST = 10
_TELL = 10 * _SECOND
_MOST_SOURCES = 4096


def source_of(address: bytes) -> bytes:
    """Who an address belongs to: an IPv6 host has 2^64 of them, so its /64 counts (RFC 4291 2.5.1)."""
    return address if len(address) == 4 else address[:8]


class Allowance:
    """``rate`` octets a second; None: as much as comes."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._most = (rate or 0) * _BURST
        self._used = 0.0  # of the burst, by all; what has been paid off is not used
        #: The same by source, times `_scale`: what is paid off is everybody's, by what he has used.
        self._by_source: OrderedDict[bytes, float] = OrderedDict()
        self._scale = 1.0
        self._now = 0
        self._told = 0
        self._untold: Counter[str] = Counter()
        self._sources: set[bytes] = set()
        #: Lines withheld so far, by kind.
        self.withheld: Counter[str] = Counter()

    def change(self, rate: int | None) -> None:
        """Another rate; what was used is used."""
        self._rate = rate
        self._most = (rate or 0) * _BURST

    def takes(self, source: bytes, octets: int, kind: str, now: int) -> bool:
        """Whether so many octets of a source may be written now."""
        if self._rate is None:
            return True
        self._pay_off(now)
        used = self._by_source.pop(source, 0.0) * self._scale
        taken = used + octets <= self._most - self._used
        if taken:
            self._used += octets
            used += octets
        else:
            self.withheld[kind] += 1
            self._untold[kind] += 1
            if len(self._sources) < _MOST_SOURCES:
                self._sources.add(source)
        if used:
            self._by_source[source] = used / self._scale
            if len(self._by_source) > _MOST_SOURCES:
                self._by_source.popitem(last=False)
        return taken

    def _pay_off(self, now: int) -> None:
        if now <= self._now:
            return
        assert self._rate is not None
        left = self._used - (now - self._now) / _SECOND * self._rate
        self._now = now
        if left < 1:
            self._used, self._scale = 0.0, 1.0
            self._by_source.clear()
            return
        self._scale *= left / self._used
        self._used = left
        if self._scale < 1e-100:
            for source in self._by_source:
                self._by_source[source] *= self._scale
            self._scale = 1.0

    def report(self, now: int) -> dict[str, int] | None:
        """What was withheld since the last report, by kind, and of how many sources; None: nothing to tell yet."""
        if not self._untold or now < self._told + _TELL:
            return None
        return self.last_report(now)

    def last_report(self, now: int) -> dict[str, int] | None:
        """The same, however long ago the last one was."""
        if not self._untold:
            return None
        told = {**self._untold, "sources": len(self._sources)}
        self._told = now
        self._untold.clear()
        self._sources.clear()
        return told
