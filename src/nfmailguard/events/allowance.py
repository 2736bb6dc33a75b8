"""Rate limit for logs: a rate for all sources, and a share for each.

Promises: what is withheld is counted by kind, and reported in a line at most every ten seconds. A source may use as
much as is left (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998), so
that the source that writes most is limited first and quiet sources are heard; memory is bounded. Events that packets
with forged source addresses can cause, which may have any number of sources, get an eighth of the rate and nothing of
the rest, as in the ring buffer (cext/record.pyx). Time is the records' own, so that a capture gives the same result
whenever it is read. Does not know what is written.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

__all__ = ["FORGEABLE_PART", "Allowance", "Rate", "source_of"]

_SECOND = 1_000_000_000
#: Burst size: how many seconds' worth of the rate may be written at once. A short burst is not treated as a flood.
_BURST = 10
_TELL = 10 * _SECOND
_MOST_SOURCES = 4096
#: One eighth of the log rate is reserved for events that packets with forged source addresses can cause.
FORGEABLE_PART = 8


def source_of(address: bytes) -> bytes:
    """Whom an address is counted for: an IPv6 host has 2^64 addresses, so its /64 counts (RFC 4291 2.5.1)."""
    return address if len(address) == 4 else address[:8]


class Rate:
    """A budget of ``rate`` bytes per second, and how much of it each source has used; None: no limit."""

    def __init__(self, rate: int | None) -> None:
        self._used = 0.0  # Bytes of the burst that all sources together have used and that time has not yet restored.
        #: The bytes each source has used, stored divided by `_scale`. As time restores the budget, every source's use
        #: shrinks in proportion.
        self._by_source: OrderedDict[bytes, float] = OrderedDict()
        self._scale = 1.0
        self._now = 0
        self.change(rate)

    def change(self, rate: int | None) -> None:
        """Sets another rate; what was used stays used."""
        self._rate = rate
        self._most = (rate or 0) * _BURST

    @property
    def sources(self) -> int:
        """Number of sources whose use is remembered."""
        return len(self._by_source)

    def takes(self, source: bytes, octets: int, now: int) -> bool:
        """Whether so many bytes of a source may be written now."""
        if self._rate is None:
            return True
        self._pay_off(now, self._rate)
        used = self._by_source.pop(source, 0.0) * self._scale
        taken = used + octets <= self._most - self._used
        if taken:
            self._used += octets
            used += octets
        if used:
            self._by_source[source] = used / self._scale
            if len(self._by_source) > _MOST_SOURCES:
                self._by_source.popitem(last=False)
        return taken

    def _pay_off(self, now: int, rate: int) -> None:
        if now <= self._now:
            return
        left = self._used - (now - self._now) / _SECOND * rate
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


class Allowance:
    """The rate limit, ``rate`` bytes per second in two parts, and what was withheld; None: no limit."""

    def __init__(self, rate: int | None) -> None:
        self._proven, self._forgeable = Rate(None), Rate(None)
        self.change(rate)
        self._told = 0
        self._untold: Counter[str] = Counter()
        self._sources: set[bytes] = set()
        #: Number of log lines withheld so far, by event type.
        self.withheld: Counter[str] = Counter()

    def change(self, rate: int | None) -> None:
        """Sets another rate; what was used stays used."""
        part = (rate or 0) // FORGEABLE_PART
        self._proven.change(None if rate is None else rate - part)
        self._forgeable.change(None if rate is None else part)

    def takes(self, source: bytes, octets: int, kind: str, now: int, *, forgeable: bool = False) -> bool:
        """Whether so many bytes of a source may be written now; ``forgeable``: its address may be forged."""
        taken = (self._forgeable if forgeable else self._proven).takes(source, octets, now)
        if not taken:
            self.withheld[kind] += 1
            self._untold[kind] += 1
            if len(self._sources) < _MOST_SOURCES:
                self._sources.add(source)
        return taken

    def report(self, now: int) -> dict[str, int] | None:
        """What was withheld since the last report, by kind, and of how many sources; None: nothing to report yet."""
        if not self._untold or now < self._told + _TELL:
            return None
        return self.last_report(now)

    def last_report(self, now: int) -> dict[str, int] | None:
        """The same without waiting for the interval between two reports."""
        if not self._untold:
            return None
        told = {**self._untold, "sources": len(self._sources)}
        self._told = now
        self._untold.clear()
        self._sources.clear()
        return told
