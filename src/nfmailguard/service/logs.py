"""Where a gateway's events and log lines go: files, servers, and clients that follow events.

Promises: no queue's thread waits for anything here; if a target accepts nothing, ``troubles`` says why. Does not know
what an event says.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from nfmailguard.config import Config
from nfmailguard.events.cisco import CiscoWriter
from nfmailguard.events.journal import JournalSink
from nfmailguard.events.lines import LineWriter
from nfmailguard.events.sinks import KINDS, Sink, open_sink
from nfmailguard.events.syslog import Syslog, open_syslog
from nfmailguard.events.targets import JOURNAL
from nfmailguard.service.worker import QueueWorker
from nfmailguard.settings import Syslog as SyslogSettings

__all__ = ["Logs"]


class _Published:
    """A sink that also passes each line to the clients that follow events."""

    def __init__(self, sink: Sink, publish: Callable[[Iterable[bytes]], None]) -> None:
        self._sink = sink
        self._publish = publish

    @property
    def lost(self) -> int:
        return self._sink.lost

    @property
    def lost_by_kind(self) -> Mapping[str, int]:
        return self._sink.lost_by_kind

    @property
    def trouble(self) -> str | None:
        return self._sink.trouble

    def write(self, lines: list[bytes]) -> None:
        self._sink.write(lines)
        self._publish(lines)

    def write_block(self, block: bytes | memoryview, lines: int) -> None:
        self._sink.write_block(block, lines)
        self._publish(_lines_of(block))

    def reopen(self) -> None:
        self._sink.reopen()

    def close(self) -> None:
        self._sink.close()


def _lines_of(block: bytes | memoryview) -> Iterator[bytes]:
    # A generator: the block is split only when the first line is asked for, which does not happen while no client
    # follows events.
    yield from bytes(block).splitlines(keepends=True)


def _opened_syslog(ours: SyslogSettings) -> Syslog | None:
    if ours.target is None:
        return None
    return open_syslog(ours.target, facility=ours.facility, host=ours.host, form=ours.format)


class Logs:
    """The ``[log]`` and ``[syslog]`` targets of a configuration, for all its queues. ``publish`` gets every event's
    line.
    """

    def __init__(self, config: Config, publish: Callable[[Iterable[bytes]], None]) -> None:
        self._config = config
        self._publish = publish
        self._sink: Sink | None = None
        self._syslog: Syslog | None = None
        self._first: LineWriter | None = None
        # Losses counted by log targets that a reload has replaced.
        self._lost_before = self._lines_lost_before = 0
        self._lost_by_kind_before: Counter[str] = Counter()

    def open(self, workers: Sequence[QueueWorker], stack: ExitStack) -> None:
        """Gives each worker its writers. Raises ConfigError for a file that cannot be opened."""
        stack.callback(self._close)
        config = self._config
        self._sink = self._opened_sink(config)
        self._syslog = _opened_syslog(config.syslog)
        self._give_events(config, workers)
        self._give_lines(config, workers)

    def prepare(self, config: Config) -> tuple[Sink | None, Syslog | None]:
        """Opens the targets that another configuration adds, for ``change`` or ``discard``. Raises ConfigError."""
        old = self._config
        sink, syslog = self._sink, self._syslog
        if config.log.eve != old.log.eve:
            sink = self._opened_sink(config)
        try:
            if config.syslog != old.syslog:
                syslog = _opened_syslog(config.syslog)
        except BaseException:
            self.discard((sink, None))
            raise
        return sink, syslog

    def discard(self, prepared: tuple[Sink | None, Syslog | None]) -> None:
        """Closes what was prepared, as it is not needed."""
        for log in prepared:
            if log is not None and log not in (self._sink, self._syslog):
                log.close()

    def change(
        self, config: Config, prepared: tuple[Sink | None, Syslog | None], workers: Sequence[QueueWorker]
    ) -> None:
        """Puts the prepared targets to use."""
        old, before = self._config, (self._sink, self._syslog)
        self._config, (self._sink, self._syslog) = config, prepared
        self._give_events(config, workers)
        if before[1] is not self._syslog or config.limits.log_rate != old.limits.log_rate:
            self._give_lines(config, workers)
        self.discard(before)  # Lines that still wait for the old syslog server are lost, and counted as lost.
        if before[0] is not None and before[0] is not self._sink:
            self._lost_before += before[0].lost
            self._lost_by_kind_before.update(before[0].lost_by_kind)
        if before[1] is not None and before[1] is not self._syslog:
            self._lines_lost_before += before[1].lost

    def _close(self) -> None:
        for log in (self._sink, self._syslog):
            if log is not None:
                log.close()

    def _opened_sink(self, config: Config) -> Sink | None:
        target = config.log.eve
        if target is None:
            return None
        return _Published(JournalSink() if target == JOURNAL else open_sink(target), self._publish)

    def _give_events(self, config: Config, workers: Sequence[QueueWorker]) -> None:
        for worker in workers:
            if self._sink is None:
                worker.writer = None
            elif worker.writer is not None:
                worker.writer.change(self._sink, alerts=config.log.alerts, rate=config.limits.log_rate)
            else:
                worker.writer = LineWriter(
                    (), self._sink, engine=worker.number, alerts=config.log.alerts, limits=config.limits
                )
                for first, (rules, _) in worker.known.items():
                    worker.writer.learn(first, rules)
        self._first = workers[0].writer

    def _give_lines(self, config: Config, workers: Sequence[QueueWorker]) -> None:
        ours = config.syslog
        for worker in workers:
            worker.cisco = None
            if self._syslog is not None:
                worker.cisco = CiscoWriter(
                    (), self._syslog, interfaces=ours.names(), style=str(ours.style), rate=config.limits.log_rate
                )
                for first, (rules, _) in worker.known.items():
                    worker.cisco.learn(first, rules)

    @property
    def has_events(self) -> bool:
        """Whether events are written at all."""
        return self._sink is not None

    def look(self) -> None:
        """Checks whether a log server can be reached, before there is anything to send; takes up to a second."""
        if self._syslog:
            self._syslog.look()

    def flush(self) -> None:
        """Sends lines that wait for a server; called regularly, as there may be no new lines."""
        if self._syslog:
            self._syslog.flush()

    def end(self) -> None:
        """No more lines come: what a server has not taken is counted as lost."""
        if self._syslog:
            self._syslog.close()

    def reopen(self) -> None:
        """Reopens log files after a log rotation."""
        for log in (self._sink, self._syslog):
            if log is not None:
                log.reopen()

    def counters(self) -> dict[str, int]:
        """Counters of lines that were not written."""
        found = {}
        if self._sink or self._lost_before:
            found["events_lost"] = self._lost_before + (self._sink.lost if self._sink else 0)
            by_kind = self._lost_by_kind_before + Counter(self._sink.lost_by_kind if self._sink else {})
            found |= {f"events_lost.{kind}": by_kind[kind] for kind in KINDS}
        if self._syslog or self._lines_lost_before:
            found["log_lines_lost"] = self._lines_lost_before + (self._syslog.lost if self._syslog else 0)
        return found

    def troubles(self) -> dict[str, str]:
        """Why a target currently accepts nothing, by setting."""
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
        """What was lost, for the operator, when the gateway ends."""
        words = []
        if self._sink:
            self._sink.close()  # Events that waited for another attempt are lost now, and counted.
            if self._sink.lost:
                words.append(f"{self._sink.lost} events could not be written to {self._config.log.eve}")
        if self._syslog and self._syslog.lost:
            words.append(f"{self._syslog.lost} log lines could not be sent: {self._syslog.failure}")
        return words
