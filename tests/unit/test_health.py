"""Health: a reason begins with the first loss, ends a while after the last, and each is told once."""

from __future__ import annotations

from typing import Any

from nfmailguard.service.health import QUIET, Health


class Watched:
    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.health = Health(self.lines.append, self.events.append, lambda: self.now)

    def look(self, at: float, troubles: dict[str, str] | None = None, **counters: int) -> list[str]:
        """The lines that were told."""
        self.now = at
        self.lines.clear()
        self.health.look(counters, troubles or {})
        return list(self.lines)


def test_losses_are_told_when_they_begin_and_when_they_have_ended() -> None:
    watched = Watched()
    assert watched.look(0, records_lost=0) == []
    assert not watched.health.degraded
    (line,) = watched.look(1, records_lost=117)
    assert line == "nfmailguard: degraded: records_lost: 117 events lost: written too slowly"
    assert watched.look(2, records_lost=9448) == []
    assert watched.health.reasons()[0]["count"] == 9448
    assert watched.look(2 + QUIET - 1, records_lost=9448) == []
    assert watched.health.degraded
    (line,) = watched.look(2 + QUIET, records_lost=9448)
    assert line == (
        f"nfmailguard: healthy again: records_lost has ended after {1 + QUIET:.0f} s:"
        " 9448 events lost: written too slowly"
    )
    assert not watched.health.degraded
    assert [event["state"] for event in watched.events] == ["degraded", "healthy"]
    (line,) = watched.look(100, records_lost=9449)
    assert "records_lost: 1 events lost" in line


def test_a_trouble_lasts_as_long_as_it_is_there() -> None:
    watched = Watched()
    full = {"log.eve": "/var/log/eve.json: No space left on device; events are lost"}
    assert watched.look(1, full) == [f"nfmailguard: degraded: log.eve: {full['log.eve']}"]
    assert watched.look(2, full) == []
    assert watched.look(3, full | {"rules": "gone"}) == ["nfmailguard: degraded: rules: gone"]
    (line,) = watched.look(4, {"rules": "gone"})
    assert line.startswith("nfmailguard: degraded still: log.eve has ended after 3 s")
    (line,) = watched.look(5)
    assert line.startswith("nfmailguard: healthy again: rules has ended after 2 s")


def test_a_peer_alone_degrades_nothing() -> None:
    watched = Watched()
    losses = {"drop.checksum": 10, "drop.malformed": 5, "malformed": 5, "flows_reset": 3, "held_expired": 1}
    assert watched.look(1, **losses) == []
    assert not watched.health.degraded
