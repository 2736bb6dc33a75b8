"""Where a gateway's events and log lines go: files, servers, and whoever follows them.

Promises: nothing here is waited for by a queue's thread; a target that takes nothing is known by the line
that says why (``troubles``). Does not know what an event says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from nfmailguard.config import Config
from nfmailguard.events.cisco import CiscoWriter
from nfmailguard.events.eve import EveWriter
from nfmailguard.events.sinks import Sink, open_sink
from nfmailguard.events.syslog import Syslog, open_syslog
from nfmailguard.service.worker import QueueWorker

__all__ = ["Logs"]


class _Published:
    """A sink, and besides it whoever follows."""

    def __init__(self, sink: Sink, publish: Callable[[list[bytes]], None]) -> None:
        self._sink = sink
        self._publish = publish

    @property
    def lost(self) -> int:
        return self._sink.lost

    @property
    def trouble(self) -> str | None:
        return self._sink.trouble

    def write(self, lines: list[bytes]) -> None:
        self._sink.write(lines)
        self._publish(lines)

    def reopen(self) -> None:
        self._sink.reopen()

    def close(self) -> None:
        self._sink.close()


class Logs:
    """``[log]`` and ``[syslog]`` of a configuration, for all its queues. ``publish`` gets every event's line."""

    def __init__(self, config: Config, publish: Callable[[list[bytes]], None]) -> None:
        self._config = config
        self._publish = publish
        self._sink: Sink | None = None
        self._syslog: Syslog | None = None
        self._first: EveWriter | None = None

    def open(self, workers: Sequence[QueueWorker], stack: ExitStack) -> None:
        """Gives each worker its writers. Raises ConfigError for a file that cannot be opened."""
        self._open_sink(workers, stack)
        self._open_syslog(workers, stack)

    def _open_sink(self, workers: Sequence[QueueWorker], stack: ExitStack) -> None:
        config = self._config
        if config.log.eve is None:
            return
        self._sink = sink = _Published(open_sink(config.log.eve), self._publish)
        stack.callback(sink.close)
        for worker in workers:
            worker.writer = EveWriter(
                worker.engine.rules, sink, engine=worker.number, alerts=config.log.alerts, limits=config.limits
            )
        self._first = workers[0].writer

    def _open_syslog(self, workers: Sequence[QueueWorker], stack: ExitStack) -> None:
        ours = self._config.syslog
        if ours.target is None:
            return
        self._syslog = open_syslog(ours.target, facility=ours.facility, host=ours.host, form=ours.format)
        stack.callback(self._syslog.close)
        for worker in workers:
            worker.cisco = CiscoWriter(
                worker.engine.rules,
                self._syslog,
                interfaces=ours.names(),
                style=str(ours.style),
                rate=self._config.limits.log_rate,
            )

    @property
    def has_events(self) -> bool:
        """Whether any are made."""
        return self._sink is not None

    def look(self) -> None:
        """Whether a server is there, before there is anything to send; takes up to a second."""
        if self._syslog:
            self._syslog.look()

    def reopen(self) -> None:
        """After a log rotation."""
        for log in (self._sink, self._syslog):
            if log is not None:
                log.reopen()

    def counters(self) -> dict[str, int]:
        """What was not taken."""
        found = {}
        if self._sink:
            found["events_lost"] = self._sink.lost
        if self._syslog:
            found["log_lines_lost"] = self._syslog.lost
        return found

    def troubles(self) -> dict[str, str]:
        """By setting, why a target does not take what it gets, at the moment."""
        logs = {"log.eve": self._sink, "syslog.target": self._syslog}
        return {name: log.trouble for name, log in logs.items() if log is not None and log.trouble is not None}

    def stats(self, counters: dict[str, int]) -> None:
        """Writes a ``stats`` event."""
        if self._first:
            self._first.stats(time.time_ns(), counters)

    def health(self, body: dict[str, Any]) -> None:
        """Writes a ``health`` event."""
        if self._first:
            self._first.health(time.time_ns(), body)

    def last_words(self) -> list[str]:
        """What was lost, for the operator, when it ends."""
        words = []
        if self._sink and self._sink.lost:
            words.append(f"{self._sink.lost} events could not be written to {self._config.log.eve}")
        if self._syslog and self._syslog.lost:
            words.append(f"{self._syslog.lost} log lines could not be sent: {self._syslog.failure}")
        return words
