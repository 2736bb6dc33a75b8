"""Whether a gateway does what it should: healthy, or degraded with its reasons.

Promises: each reason is reported once when it begins and once when it ends, however often it is checked; it begins with
the first loss, and ends some time after the last. Does not know where the numbers come from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from nfmailguard.reports.summary import LOSSES

__all__ = ["COUNTED", "QUEUE_REASONS", "TROUBLES", "Health"]

#: Counters that grow only when something was lost or not inspected: the gateway is degraded while one grows, and
#: ``QUIET`` seconds longer. Counters that a peer alone can raise, for instance by malformed packets, are not among
#: them.
COUNTED: Mapping[str, str] = {
    **{
        name: LOSSES[name]
        for name in (
            *("queue.uninspected", "queue.kernel_queue_dropped", "queue.kernel_user_dropped", "queue.enobufs"),
            *("queue.truncated", "queue.verdict_errors", "queue.emit_errors", "flows_refused", "records_lost"),
            *("event_flows_forgotten", "internal_errors"),
        )
    },
    "flows_evicted_greeted": "open flows forgotten: limits.flows",
}
#: Names of conditions that make a gateway degraded while they last. QUEUE_REASONS are those of one queue, named ``queue
#: N NAME``.
TROUBLES = ("rules", "bypass", "log.eve", "syslog.target")
QUEUE_REASONS = ("full", "memory", "held", "stalled")
QUIET = 30.0


class _Reason:
    def __init__(self, text: str, now: float, before: int | None) -> None:
        self.text = text
        self.began = self.seen = now
        self.began_at = time.time()
        self.before = before  # The counter's value before the loss; None: the reason is a condition, not a counter.
        self.count: int | None = None


class Health:
    """The state of health. ``tell`` gets a line for each change, ``event`` the fields of a ``health`` event."""

    def __init__(
        self,
        tell: Callable[[str], None],
        event: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._event = event
        self._clock = clock
        self._reasons: dict[str, _Reason] = {}
        self._last: dict[str, int] = {}

    @property
    def degraded(self) -> bool:
        return bool(self._reasons)

    def reasons(self) -> list[dict[str, Any]]:
        """What is wrong now: name, text, since when (seconds since 1970), and for losses how many since then."""
        return [
            {"reason": name, "text": one.text, "since": round(one.began_at, 3), "count": one.count}
            for name, one in list(self._reasons.items())
        ]

    def look(self, counters: Mapping[str, int], troubles: Mapping[str, str]) -> None:
        """Updates the state. ``counters`` so far; ``troubles``: what is wrong at this moment, by name."""
        now = self._clock()
        for name, text in COUNTED.items():
            count, last = counters.get(name, 0), self._last.get(name, 0)
            if count > last:
                reason = self._begin(name, text, now, last, count - last)
                reason.seen, reason.count = now, count - (reason.before or 0)
            self._last[name] = max(count, last)
        for name, text in troubles.items():
            self._begin(name, text, now, None, 0).seen = now
        for name, reason in list(self._reasons.items()):
            quiet = 0.0 if reason.before is None else QUIET
            if reason.seen < now and now - reason.seen >= quiet:
                self._end(name, reason, now)

    def _begin(self, name: str, text: str, now: float, before: int | None, lost: int) -> _Reason:
        reason = self._reasons.get(name)
        if reason is None:
            reason = self._reasons[name] = _Reason(text, now, before)
            reason.count = lost if before is not None else None
            self._tell(f"nfmailguard: degraded: {name}: {f'{lost} ' if lost else ''}{text}")
            self._event({"state": "degraded", "reason": name, "text": text, **({"count": lost} if lost else {})})
        return reason

    def _end(self, name: str, reason: _Reason, now: float) -> None:
        del self._reasons[name]
        seconds = round(now - reason.began)
        state = "degraded" if self._reasons else "healthy"
        count = f"{reason.count} " if reason.count else ""
        self._tell(f"nfmailguard: {state}{' still' if self._reasons else ' again'}: {name} has ended after {seconds} s:"
                   f" {count}{reason.text}")  # fmt: skip
        body: dict[str, Any] = {"state": state, "ended": name, "text": reason.text, "seconds": seconds}
        self._event(body | ({"count": reason.count} if reason.count else {}))
