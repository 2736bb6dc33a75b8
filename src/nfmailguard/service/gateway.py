"""The gateway in the foreground: queues, engines, rules and events put together.

Promises: packets are sent to a queue only while somebody listens there, and however
``run`` ends, the rules are gone before the queues are. A verdict never waits for an
event: each queue has a thread, and the main thread takes what they recorded. Does not
know what is inspected, nor how.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from nfmailguard.config import Config, Driver, Hook
from nfmailguard.engine import Engine
from nfmailguard.errors import ConfigError, RulesetError
from nfmailguard.events.cisco import CiscoWriter
from nfmailguard.events.eve import EveWriter
from nfmailguard.events.sinks import Sink, open_sink
from nfmailguard.events.syslog import Syslog, open_syslog
from nfmailguard.events.transactions import TOLD
from nfmailguard.plain import printable
from nfmailguard.policy.model import Action, FlowRule, Mode
from nfmailguard.queues import QueueDriver
from nfmailguard.queues.kernel import holder, queue_states
from nfmailguard.queues.tap import Tap
from nfmailguard.ruleset import CONNECTION_MARK, OFFLOAD_MARK, Installed, Others, Ruleset, installed, others
from nfmailguard.service.preflight import (
    conntrack_warnings,
    flowtable_warnings,
    interface_warnings,
    interfaces,
    limit_warnings,
    long_packets,
    restore_warnings,
    translation_warnings,
)
from nfmailguard.service.signals import Signals, masked
from nfmailguard.settings import network

__all__ = ["Gateway", "TapFiles", "beside", "refuse_flowtables", "ruleset", "summary", "warnings"]

DRAIN_SECONDS = 0.05
#: Seconds of writing events before it is another queue's turn.
DRAIN_SLICE = 0.1
#: How much nicer the thread is that writes events.
EVENTS_NICE = 19
LONGEST_COMMON_PACKET = 1500

#: Where a tap writes what came in, and what left, if that is wanted.
TapFiles = tuple[Path, Path | None]


def ruleset(config: Config) -> Ruleset:
    """The rules that ``config`` asks for."""
    return Ruleset(
        config.queue.first,
        config.queue.last,
        config.ports(),
        config.hooks(),
        bypass=config.on_queue("no_listener") is Action.PASS,
        conntrack=config.needs_conntrack(),
        connections=config.tells_connections_apart(),
        offload=config.queue.offload,
        addresses=[network(text) for text in config.gateway.addresses],
    )


def summary(config: Config) -> str:
    """What ``config`` does, in a line."""
    gateway = config.gateway
    parts = [f"{gateway.mode} {gateway.profile}"]
    if config.rule:
        parts.append(f"{len(config.rule)} rules before it")
    if gateway.dry_run:
        parts.append("dry run")
    parts += [f"queue {config.queue.numbers}", f"ports {','.join(map(str, config.ports()))}"]
    return ", ".join([*parts, f"hook {','.join(config.hooks())}"])


def warnings(config: Config) -> list[str]:
    """What works, but perhaps not as meant."""
    found = []
    queue, modes = config.queue, {rule.mode for rule in config.flow_rules()}
    enforced = Mode.ENFORCE in modes and not config.gateway.dry_run
    for condition in ("queue_full", "no_listener"):
        if enforced and config.on_queue(condition) is Action.PASS:
            found.append(f"on.{condition}: packets of enforced flows pass uninspected then")
        if Mode.MONITOR in modes and config.on_queue(condition) is not Action.PASS:
            found.append(
                f"on.{condition}: packets of monitored flows are dropped then; the kernel cannot tell them apart"
            )
    found += _faults(config)
    if queue.driver is Driver.NETFILTERQUEUE:
        found.append(
            "queue.driver: netfilterqueue knows none of gso, busy_poll, offload and on.queue_full, and when enforcing"
            " drops packets that are out of order or longer than 3840 octets"
        )
    elif queue.copy_range < LONGEST_COMMON_PACKET:
        found.append("queue.copy_range: longer packets reach the engine truncated; on.truncated decides then")
    found += conntrack_warnings(config)
    if Hook.OUTPUT in config.hooks():
        found.append("gateway.hook: what this machine sends to itself is queued once, on output")
    return [*found, *limit_warnings(config), *restore_warnings(config)]


def beside(config: Config, found: Others) -> list[str]:
    """What others' rules of this machine make of ours."""
    return [*flowtable_warnings(config, found), *translation_warnings(config, found)]


def refuse_flowtables(config: Config, found: Others) -> None:
    """Raises RulesetError where mail that is to be guarded could go past us."""
    modes = {rule.mode for rule in config.flow_rules()}
    for line in flowtable_warnings(config, found):
        if Mode.ENFORCE in modes and not config.gateway.dry_run:
            raise RulesetError(f"rules: {line}")


def _faults(config: Config) -> list[str]:
    faults: dict[str, None] = {}  # each once, in the order of the rules
    for rule in config.flow_rules():
        on = [f"bugs.{name}" for name, value in msgspec.structs.asdict(rule.policy.bugs).items() if value]
        if on and rule.mode is Mode.ENFORCE and not config.gateway.dry_run:
            faults[f"{', '.join(on)}: {rule.policy.name} has the faults of its release, and guards nothing"] = None
    return list(faults)


class Lane:
    """One queue with its engine, its thread and its events."""

    def __init__(self, config: Config, rules: Sequence[FlowRule], number: int, tap: Tap | None) -> None:
        own = config.queue.driver is Driver.KERNEL
        self.number = number
        cpus = config.queue.cpus
        self._cpu = cpus[(number - config.queue.first) % len(cpus)] if cpus else None
        self.failure: BaseException | None = None
        self.engine = Engine(
            rules,
            ports=config.ports(),
            limits=config.engine_limits(),
            on=config.on,
            dry_run=config.gateway.dry_run,
            can_hold=own,
            records=config.log.eve is not None or config.syslog.target is not None,
            told=TOLD,
            offload=own and config.queue.offload,
        )
        self.driver: QueueDriver = self._kernel_queue(config, tap) if own else self._package_queue(config, tap)
        self.writer: EveWriter | None = None
        self.cisco: CiscoWriter | None = None
        self._thread = threading.Thread(target=self._run, name=f"queue-{number}", daemon=True)

    def _kernel_queue(self, config: Config, tap: Tap | None) -> QueueDriver:
        from nfmailguard.queues.kernel import KernelQueue

        queue = config.queue
        return KernelQueue(
            self.engine,
            self.number,
            length=queue.length,
            copy_range=queue.copy_range,
            gso=queue.gso,
            fail_open=config.on_queue("queue_full") is Action.PASS,
            receive_buffer=queue.receive_buffer,
            busy_poll=queue.busy_poll,
            offload_mark=OFFLOAD_MARK if queue.offload else 0,
            connection_mark=CONNECTION_MARK if config.tells_connections_apart() else 0,
            tap=tap,
        )

    def _package_queue(self, config: Config, tap: Tap | None) -> QueueDriver:
        from nfmailguard.queues.netfilterqueue import PackageQueue

        return PackageQueue(
            self.engine,
            self.number,
            length=config.queue.length,
            connection_mark=CONNECTION_MARK if config.tells_connections_apart() else 0,
            tap=tap,
        )

    @property
    def notes(self) -> list[str]:
        """What the driver has to say after it was opened."""
        return list(getattr(self.driver, "notes", ()))

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Until the thread has answered what it held."""
        self.driver.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def drain(self, seconds: float | None = None) -> bool:
        """Hands what the engine recorded to the writer; whether there may be more.

        A peer can make records faster than they are written: after ``seconds`` it is another queue's turn, and
        signals are looked at. Without them until nothing is left, which ends only where no packet comes any more.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while records := self.engine.drain():
            for writer in (self.writer, self.cisco):
                if writer:
                    writer.write(records)
            if end is not None and time.monotonic() >= end:
                return True
        return False

    def _run(self) -> None:
        masked()
        try:
            if self._cpu is not None:
                os.sched_setaffinity(0, {self._cpu})  # of this thread alone
            self.driver.run()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.failure = error


class Gateway:
    """What ``config`` describes, ready to ``run``. Makes engines, and touches nothing yet.

    ``rules`` False leaves the ruleset to the operator. ``tell`` gets each line for
    the operator. Raises ConfigError for what cannot be run.
    """

    def __init__(
        self,
        config: Config,
        *,
        rules: bool = True,
        tap: TapFiles | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        first, last = config.queue.first, config.queue.last
        if tap and last > first:
            raise ConfigError("--tap: a tap serves one queue; run with a single one")
        flow_rules = config.flow_rules()
        interfaces = {name for _, name in socket.if_nameindex()}
        for place, rule in enumerate(flow_rules, 1):
            if rule.interface and rule.interface not in interfaces:
                raise ConfigError(f"rule {place}: in: there is no interface {rule.interface!r}")
        files = Tap(str(tap[0]), str(tap[1]) if tap[1] else None) if tap else None
        try:
            self._lanes = [Lane(config, flow_rules, number, files) for number in range(first, last + 1)]
        except ValueError as error:
            raise ConfigError(f"configuration: {error}") from error
        self._config = config
        self._ruleset = ruleset(config) if rules else None
        self._say = tell
        self._queues = (first, last)
        self._signals = Signals()
        self._in_place = False
        self._told: set[str] = set()
        self._started = time.monotonic()
        self._counters: dict[str, int] = {}
        self._sink: Sink | None = None
        self._syslog: Syslog | None = None

    @property
    def exit_code(self) -> int:
        """What the signal that ended ``run`` makes of it."""
        return self._signals.exit_code

    def run(self) -> dict[str, int]:
        """Until a signal ends it (``service.signals``); the last counters. Raises what a step or a queue failed with.

        SIGHUP opens the log files anew.
        """
        with ExitStack() as stack:
            stack.enter_context(self._signals.caught())
            self._open_sink(stack)
            self._open_syslog(stack)
            for lane in self._lanes:
                lane.driver.open()
                stack.callback(lane.driver.close)
            stack.callback(self._finish)
            for lane in self._lanes:
                lane.start()
                stack.callback(lane.stop)
            besides = self._look_around()
            self._apply_rules(stack)
            self._started = time.monotonic()
            self._tell(f"nfmailguard: ready: {summary(self._config)}")
            for note in (
                *(note for lane in self._lanes for note in lane.notes),
                *long_packets(),
                *interface_warnings(self._config, interfaces(self._config)),
                *besides,
            ):
                self._tell(f"nfmailguard: note: {note}")
            self._give_way(stack)  # no sooner: a busy machine would let it start, and later end, at its leisure
            self._watch()
        for lane in self._lanes:
            if lane.failure:
                raise lane.failure
        return self._counters

    def stop(self) -> None:
        """Ends ``run`` soon; from any thread."""
        self._signals.stopping = True

    def _tell(self, line: str) -> None:
        with suppress(OSError, ValueError):  # whoever listened has gone, a closed terminal or pipe; mail goes on
            self._say(printable(line))

    def counters(self) -> dict[str, int]:
        """Of all queues together: the core's by name, the drivers' as ``queue.NAME``."""
        total: Counter[str] = Counter()
        for lane in self._lanes:
            total.update(lane.engine.counters())
            total.update({f"queue.{name}": value for name, value in lane.driver.counters().items()})
            if lane.writer:
                total.update(lane.writer.counters())
            if lane.cisco:
                total["log_lines_withheld"] += lane.cisco.withheld
        if self._sink:
            total["events_lost"] = self._sink.lost
        if self._syslog:
            total["log_lines_lost"] = self._syslog.lost
        return {"uptime": int(time.monotonic() - self._started), **total, **self._passed_by()}

    def _passed_by(self) -> dict[str, int]:
        # The rule counts what it sends to the queue; what the queue neither numbered nor dropped went on
        # uninspected. Counted in this order, packets on their way between the two are no loss. Without
        # GSO the kernel cuts super-packets after the rule, and the two cannot be compared.
        table = installed() if self._ruleset else None
        self._tell_of_lost_rules(table)
        self._tell_of_flowtables()
        queues = [lane.driver.counters() for lane in self._lanes]
        parts = {"queue.fragments_unseen": table.fragments} if table and not self._config.needs_conntrack() else {}
        if not (table and self._config.queue.gso) or any("kernel_id_sequence" not in queue for queue in queues):
            return parts
        seen = sum(queue["kernel_id_sequence"] + queue["kernel_queue_dropped"] for queue in queues)
        return {"queue.rule_packets": table.packets, "queue.uninspected": max(0, table.packets - seen), **parts}

    @staticmethod
    def _give_way(stack: ExitStack) -> None:
        # Where one CPU has to do for both, a verdict does not wait for an event. The queues' threads, which
        # run already, keep the priority they began with.
        me = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, me)
        os.setpriority(os.PRIO_PROCESS, me, min(19, before + EVENTS_NICE))

        def back() -> None:
            with suppress(OSError):  # only the privileged may
                os.setpriority(os.PRIO_PROCESS, me, before)

        stack.callback(back)

    def _tell_of_lost_rules(self, table: Installed | None) -> None:
        # `rules remove` is a way out of the path, so they are not put back; but a reloaded firewall
        # ("flush ruleset") takes them along as well.
        lost = self._in_place and (table is None or (table.queue_first, table.queue_last) != self._queues)
        if lost and not self._signals.stopping:
            self._in_place = False
            self._tell("nfmailguard: our rules are gone, nothing is inspected; `nfmailguard rules apply` or a restart")

    def _look_around(self) -> list[str]:
        # With rules of the operator's own there may be no nf_tables at all.
        around = Others((), ())
        with suppress(RulesetError):
            around = others()
        refuse_flowtables(self._config, around)
        self._told = set(flowtable_warnings(self._config, around))
        return beside(self._config, around)

    def _tell_of_flowtables(self) -> None:
        # A firewall may be loaded after us. Each is told of once; what runs is not stopped for it.
        with suppress(RulesetError):
            for line in flowtable_warnings(self._config, others()):
                if line not in self._told:
                    self._told.add(line)
                    self._tell(f"nfmailguard: {line}")

    def _apply_rules(self, stack: ExitStack) -> None:
        if self._ruleset is None:
            return
        before = installed()
        if before:
            foreign = set(range(before.queue_first, before.queue_last + 1)) - set(
                range(self._queues[0], self._queues[1] + 1)
            )
            for number, state in queue_states().items():
                if number in foreign:
                    raise RulesetError(
                        f"rules: those of another nfmailguard are in place, queue {number} is read by"
                        f" {holder(state.portid)}; stop it, or use --no-rules"
                    )
        stack.callback(self._ruleset.remove)
        self._ruleset.apply()
        self._in_place = True

    def _open_syslog(self, stack: ExitStack) -> None:
        ours = self._config.syslog
        if ours.target is None:
            return
        self._syslog = open_syslog(ours.target, facility=ours.facility, host=ours.host, form=ours.format)
        stack.callback(self._syslog.close)
        for lane in self._lanes:
            lane.cisco = CiscoWriter(
                lane.engine.rules,
                self._syslog,
                interfaces=ours.names(),
                style=str(ours.style),
                rate=self._config.limits.log_rate,
            )

    def _open_sink(self, stack: ExitStack) -> None:
        if self._config.log.eve is None:
            return
        self._sink = sink = open_sink(self._config.log.eve)
        stack.callback(sink.close)
        for lane in self._lanes:
            lane.writer = EveWriter(
                lane.engine.rules,
                sink,
                engine=lane.number,
                alerts=self._config.log.alerts,
                limits=self._config.limits,
            )

    def _reopen_logs(self) -> None:
        for log in (self._sink, self._syslog):
            if log is not None:
                log.reopen()
        self._tell("nfmailguard: SIGHUP: log files opened anew; the configuration is read at a start")

    def _watch(self) -> None:
        period = self._config.log.stats
        due = time.monotonic() + period
        behind: list[Lane] = []
        while not self._signals.stopping and all(lane.alive for lane in self._lanes):
            if not behind:
                time.sleep(DRAIN_SECONDS)
            behind = [lane for lane in self._lanes if lane.drain(DRAIN_SLICE)]
            if self._signals.take_reopen():
                self._reopen_logs()
            if period and time.monotonic() >= due:
                due += period
                self._write_stats(self.counters())
        self._counters = self.counters()  # while the table and the queues can still be asked
        self._in_place = False

    def _finish(self) -> None:
        for lane in self._lanes:
            lane.drain()
        last = self.counters()
        self._counters = {**self._counters, **{name: value for name, value in last.items() if value}}
        self._write_stats(self._counters)
        if self._sink and self._sink.lost:
            self._tell(f"nfmailguard: {self._sink.lost} events could not be written to {self._config.log.eve}")
        if self._syslog and self._syslog.lost:
            self._tell(f"nfmailguard: {self._syslog.lost} log lines could not be sent: {self._syslog.failure}")

    def _write_stats(self, counters: dict[str, int]) -> None:
        writer = self._lanes[0].writer
        if writer:
            writer.stats(time.time_ns(), counters)
