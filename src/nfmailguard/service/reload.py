"""A configuration that is read again while packets are processed: all queues take it as a whole, or none does.

Promises: a flow keeps the rules it began under; a faulty configuration is refused with all its errors, and then nothing
has changed; the kernel is asked for what the strictest configuration wants that a flow is still under, and for less
only when no flow is. Does not know how events are written, nor what a rule says.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from nfmailguard.config import Config
from nfmailguard.confinement.confined import Confinement
from nfmailguard.engine import Generation
from nfmailguard.errors import ConfigError, NfmailguardError, RefusedError
from nfmailguard.policy.model import FlowRule
from nfmailguard.ruleset import CONNECTION_MARK
from nfmailguard.service.changes import Treatment, changes, needs_restart, reaches_further, treatment
from nfmailguard.service.logs import Logs
from nfmailguard.service.placed import PlacedRules
from nfmailguard.service.worker import QueueWorker

__all__ = ["Configured", "checked_rules"]

#: Seconds after which a queue's loop that has not taken up the new rules is reported.
PATIENCE = 5.0


def checked_rules(config: Config) -> tuple[FlowRule, ...]:
    """The rules of a configuration. Raises ConfigError, also if an interface that they name does not exist."""
    rules = config.flow_rules()
    interfaces = {name for _, name in socket.if_nameindex()}
    missing = [
        f"rule {place}: in: there is no interface {rule.interface!r}"
        for place, rule in enumerate(rules, 1)
        if rule.interface and rule.interface not in interfaces
    ]
    if missing:
        raise ConfigError(*missing)
    return rules


class Configured:
    """The configuration in force, and earlier ones that flows are under. ``reread``: None: it cannot be read again."""

    def __init__(
        self,
        config: Config,
        rules: Sequence[FlowRule],
        reread: Callable[[], Config] | None,
        confinement: Confinement,
    ) -> None:
        self.config = config
        self._rules = tuple(rules)
        self._reread = reread
        self._confinement = confinement
        self._serial = 0
        self._since = time.time()
        # Configurations that flows are still under, by their number; the latest is in force.
        self._configs = {0: config}
        self._treated = treatment([config])
        # True while connection marks were switched off but packets in the queues may still carry them.
        self._loose = False

    def standing(self, workers: Sequence[QueueWorker]) -> dict[str, Any]:
        """Which configuration is in force, since when, and what is under older ones."""
        older = [worker.older() for worker in workers]
        return {
            "generation": self._serial + 1,
            "since": round(self._since, 3),
            "older": max(generations for generations, _ in older),
            "flows_under_older": sum(flows for _, flows in older),
        }

    @property
    def used(self) -> dict[int, Config]:
        """Configurations that flows may be under, by number."""
        return dict(self._configs)

    def inherit(self, older: Sequence[Config]) -> Treatment:
        """Adds configurations of flows that were handed over, numbered -1, -2, ...; returns what the kernel is to do
        then.
        """
        self._configs |= {-place: config for place, config in enumerate(older, 1)}
        self._treated = treatment(self._configs.values())
        return self._treated

    def reload(
        self, workers: Sequence[QueueWorker], rules: PlacedRules, logs: Logs, *, tapped: bool
    ) -> tuple[list[str], list[str]]:
        """Reads the configuration again and puts it in force: what has changed, and notes. Raises NfmailguardError."""
        config, flow_rules, found = self._read_anew()
        if not found:
            return [], []
        if tapped:
            raise ConfigError("--tap: what is captured is of one configuration; restart for another")
        prepared = self._prepared(config, flow_rules, workers)
        notes = rules.look_around(config)
        targets = logs.prepare(config)
        serial = self._serial + 1
        try:
            # The kernel's table is changed first: its connection marks distinguish the flows that begin under the new
            # rules.
            self._treat(config, workers, rules)
            self._publish(config, workers, prepared, serial)
        except BaseException:
            logs.discard(targets)
            raise
        logs.change(config, targets, workers)
        self._configs[serial] = config
        self.config, self._rules, self._serial, self._since = config, flow_rules, serial, time.time()
        late = self._take_up(workers)
        if late:
            notes.append(f"queues {late} have not taken it up within {PATIENCE:.0f} s")
        return found, notes

    def would_change(self, workers: Sequence[QueueWorker]) -> list[str]:
        """What a reload would change, after all its checks except those of the log files. Raises NfmailguardError."""
        config, flow_rules, found = self._read_anew()
        if found:
            # The result is discarded: preparing only checks that the core accepts the rules.
            self._prepared(config, flow_rules, workers)
        return found

    def _read_anew(self) -> tuple[Config, tuple[FlowRule, ...], list[str]]:
        """The configuration read again, its rules, and what differs. Raises ConfigError if it may not follow."""
        if self._reread is None:
            return self.config, self._rules, []
        try:
            config = self._reread()
        # OSError from the system, which may refuse more to a running gateway, whose privileges are dropped, than to a
        # starting one.
        except OSError as error:
            raise ConfigError(f"configuration: it cannot be read anew: {error}") from error
        if fixed := [*needs_restart(self.config, config), *self._confinement.outside(config)]:
            raise ConfigError(*fixed)
        flow_rules = checked_rules(config)
        return config, flow_rules, changes(self.config, config, self._rules, flow_rules)

    @staticmethod
    def _prepared(config: Config, rules: Sequence[FlowRule], workers: Sequence[QueueWorker]) -> list[Generation]:
        try:
            return [worker.prepare(config, rules) for worker in workers]
        except (ValueError, OSError) as error:
            raise ConfigError(f"configuration: {error}") from error

    def _publish(
        self, config: Config, workers: Sequence[QueueWorker], prepared: Sequence[Generation], serial: int
    ) -> None:
        for worker in workers:
            if not worker.has_room:
                raise RefusedError("reload: flows are open under as many older rules as there may be (docs/limits.md)")
        further = reaches_further(self.config, config)
        for worker, generation in zip(workers, prepared, strict=True):
            worker.publish(generation, config, serial, begins_anew=further)

    @staticmethod
    def _take_up(workers: Sequence[QueueWorker]) -> list[int]:
        """Waits until all loops have taken up the new rules; the queues whose loops have not."""
        deadline = time.monotonic() + PATIENCE
        late = list(workers)
        while late and time.monotonic() < deadline:
            for worker in late:
                worker.driver.turn()
            late = [worker for worker in late if not worker.engine.taken_up]
            if late:
                time.sleep(0.001)
        return [worker.number for worker in late]

    def _treat(self, config: Config, workers: Sequence[QueueWorker], rules: PlacedRules) -> None:
        """Has the kernel do what ``config`` and all configurations that flows are under require. Raises
        NfmailguardError.
        """
        treated = treatment([config, *self._configs.values()])
        for worker in workers:
            # The queue learns of the connection marks before the table sets any, and forgets them only when no marked
            # packet can be left in a queue (``look``).
            marks = CONNECTION_MARK if treated.connections or self._treated.connections else 0
            worker.driver.treat(fail_open=treated.fail_open, connection_mark=marks)
        rules.change(config, treated, workers)
        self._loose = self._treated.connections and not treated.connections
        self._treated = treated

    def look(self, workers: Sequence[QueueWorker], rules: PlacedRules) -> None:
        """Called once a second: forgets configurations that no flow is under any more, and ends what was done only for
        them.
        """
        if self._loose:
            self._loose = False
            for worker in workers:
                worker.driver.treat(fail_open=self._treated.fail_open, connection_mark=0)
        if len(self._configs) == 1:
            return
        used = {self._serial}.union(*(worker.serials() for worker in workers))
        self._configs = {serial: config for serial, config in self._configs.items() if serial in used}
        if treatment(self._configs.values()) != self._treated:
            with suppress(NfmailguardError):  # A failure is ignored here: the next check tries again.
                self._treat(self.config, workers, rules)
