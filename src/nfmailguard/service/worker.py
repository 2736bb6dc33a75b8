"""One queue of a gateway: its engine, its thread, and the writers of its events.

Promises: the thread blocks every signal and never waits for a reader of its records. Does not know other queues, nor
rules in the kernel.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nfmailguard.cext.engine import MOST_GENERATIONS, MOST_RULES
from nfmailguard.config import Config, Driver
from nfmailguard.engine import Engine, Generation, flows_at_once
from nfmailguard.events.cisco import CiscoWriter
from nfmailguard.events.lines import LineWriter
from nfmailguard.events.transactions import TOLD
from nfmailguard.policy.model import Action, FlowRule
from nfmailguard.queues import LiveDriver
from nfmailguard.queues.kernel import KernelQueue, QueueStates
from nfmailguard.queues.tap import Tap
from nfmailguard.ruleset import CONNECTION_MARK, OFFLOAD_MARK
from nfmailguard.service.signals import masked

__all__ = ["QueueWorker"]

#: Part of a queue's length or memory from which on it is reported as nearly full.
NEARLY_FULL = 0.9


def _recorded(config: Config) -> bool:
    return config.log.eve is not None or config.syslog.target is not None


class QueueWorker:
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
            records=_recorded(config),
            told=TOLD,
            offload=own and config.queue.offload,
            apart=config.tells_connections_apart(),
        )
        #: Rules that flows are under, with the number of their configuration; the key is the first rule's number in
        #: records.
        self.known: dict[int, tuple[Sequence[FlowRule], int]] = {0: (rules, 0)}
        self.driver: LiveDriver = self._kernel_queue(config, tap) if own else self._package_queue(config, tap)
        self._length = config.queue.length
        self._most_memory = config.limits.memory
        self._most_held = config.engine_limits().held_packets
        self._most_flows = flows_at_once(config.limits)
        self._last: dict[str, int] = {}
        self._last_turns = -1
        self.writer: LineWriter | None = None
        self.cisco: CiscoWriter | None = None
        self._thread = threading.Thread(target=self._run, name=f"queue-{number}", daemon=True)

    def _kernel_queue(self, config: Config, tap: Tap | None) -> LiveDriver:
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

    def _package_queue(self, config: Config, tap: Tap | None) -> LiveDriver:
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
        """Notes of the driver after it was opened."""
        return list(getattr(self.driver, "notes", ()))

    def counters(self) -> dict[str, int]:
        """Counters: the core's by name, the driver's as ``queue.NAME``, and those of the event writers."""
        found = dict(self.engine.counters())
        found |= {f"queue.{name}": value for name, value in self.driver.counters().items()}
        if self.writer:
            found |= self.writer.counters()
        if self.cisco:
            found["log_lines_withheld"] = self.cisco.withheld
        return found

    def standing(self) -> dict[str, int]:
        """How full the queue and the engine are, and what they hold."""
        core, driver = self.engine.counters(), self.driver.counters()
        return {
            "number": self.number,
            "waiting": driver.get("kernel_queue_total", 0),
            "length": self._length,
            "packets": driver.get("packets", 0),
            "held": core["held_now"],
            "most_held": self._most_held,
            "flows": core["flows_now"],
            "most_flows": self._most_flows,
            "memory": core["memory_now"],
            "most_memory": self._most_memory,
            "kernel_queue_dropped": driver.get("kernel_queue_dropped", 0),
            "kernel_user_dropped": driver.get("kernel_user_dropped", 0),
            "dropped_by_kernel": driver.get("kernel_queue_dropped", 0) + driver.get("kernel_user_dropped", 0),
            "socket_overruns": driver.get("enobufs", 0),
            "records_lost": core["records_lost"],
        }

    def troubles(self) -> dict[str, str]:
        """What is wrong at this moment, by name, since the last call."""
        standing, last, name = self.standing(), self._last, f"queue {self.number}"
        self._last = standing
        found = {}
        if standing["waiting"] > NEARLY_FULL * standing["length"]:
            found[f"{name} full"] = f"{standing['waiting']} of {standing['length']} packets wait for a verdict"
        if standing["memory"] > NEARLY_FULL * standing["most_memory"]:
            found[f"{name} memory"] = "limits.memory is nearly used up"
        if standing["held"] > NEARLY_FULL * standing["most_held"]:
            found[f"{name} held"] = (
                f"{standing['held']} of {standing['most_held']} packets are held (limits.held_packets)"
            )
        waits = standing["waiting"] > standing["held"]
        if last and waits and standing["packets"] == last["packets"] and last["waiting"] > last["held"]:
            found[f"{name} stalled"] = "packets wait and none is read"
        return found

    def moved(self, states: QueueStates) -> bool:
        """Whether its loop has turned since the last call; it is asked to turn at least once until the next call."""
        turns, last = self._turns(), self._last_turns
        self._last_turns = turns
        if isinstance(self.driver, KernelQueue):
            self.driver.nudge()
            return self.alive and turns != last
        # The NetfilterQueue package's loop cannot be woken: a loop that has not turned is stuck only if packets wait in
        # its queue.
        state = states.read().get(self.number)
        return self.alive and (turns != last or state is None or state.total == 0)

    def prepare(self, config: Config, rules: Sequence[FlowRule], *, older: bool = False) -> Generation:
        """Prepares rules for the core. Raises ValueError if they exceed it. ``older``: rules of flows that are handed
        over to us.
        """
        return self.engine.prepare(
            rules,
            ports=config.ports(),
            limits=config.engine_limits(),
            on=config.on,
            dry_run=config.gateway.dry_run,
            records=_recorded(config),
            told=TOLD,
            apart=config.tells_connections_apart(),
            older=older,
        )

    def publish(self, generation: Generation, config: Config, serial: int, *, begins_anew: bool) -> None:
        """Sets the rules for flows that begin after the next batch has begun. Raises ValueError if
        too many are in use.
        """
        first = self.engine.publish(generation, begins_anew=begins_anew)
        self._forget_unused()
        # A new dict instead of a change in place, because another thread may be iterating over the old one.
        self.known = {**self.known, first: (generation.rules, serial)}
        for writer in (self.writer, self.cisco):
            if writer:
                writer.learn(first, generation.rules)
        self._most_memory = config.limits.memory
        self._most_held = config.engine_limits().held_packets

    def rules_of(self, number: int) -> tuple[Sequence[FlowRule], int]:
        """The rules to which one of the engine's rule numbers belongs, and the number of their configuration."""
        return self.known[number * MOST_RULES]

    def take_over(
        self, image: memoryview, prepared: Mapping[int, tuple[Generation, int]], used: dict[int, int]
    ) -> None:
        """Continues with the engine state in ``image``; ``prepared``: its rules by number, each with its place.

        ``used`` gets, by place, the number of a configuration that flows are under here and that is none of ours: the
        last one is -1. Raises ValueError.
        """
        first_of = self.engine.load_state(image, {number: generation for number, (generation, _) in prepared.items()})
        for number, (generation, place) in prepared.items():
            first = first_of[number]
            if first not in self.known:
                serial = used.setdefault(place, -len(used) - 1)
                self.known[first] = generation.rules, serial

    def standing_of_loop(self) -> dict[str, Any]:
        """State of the loop, with which another process's driver continues."""
        return self.driver.standing() if isinstance(self.driver, KernelQueue) else {}

    @property
    def has_room(self) -> bool:
        """Whether the core has room for other rules besides those that flows are under."""
        self.serials()
        return len(self.engine.generations()) < MOST_GENERATIONS

    def serials(self) -> set[int]:
        """Numbers of the configurations that flows, or records, may be under. Rules that no flow is under are freed."""
        if len(self.known) > 1:
            self.driver.turn()
            self.engine.free_unused()
            self._forget_unused()
        return {serial for _, serial in self.known.values()}

    def _forget_unused(self) -> None:
        used = {number * MOST_RULES for number, _ in self.engine.generations()}
        self.known = {first: known for first, known in self.known.items() if first in used}

    def older(self) -> tuple[int, int]:
        """How many older rule generations flows are under, and how many flows."""
        flows = [flows for _, flows in self.engine.generations()[1:] if flows]
        return len(flows), sum(flows)

    @property
    def begins_anew(self) -> bool:
        """Whether the engine can end all its flows and begin anew."""
        return isinstance(self.driver, KernelQueue)

    def begin_anew(self, seconds: float) -> bool:
        """Ends its flows once no packet waits to be read; whether that happened within so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            standing = self.standing()
            if isinstance(self.driver, KernelQueue) and standing["waiting"] <= standing["held"]:
                self.driver.nudge(anew=True)
                while self.standing()["flows"] and time.monotonic() < deadline:
                    # The core needs room in its ring buffer for the records of the flows it ends, so records are
                    # drained meanwhile.
                    self.drain(0.01)
                    time.sleep(0.002)
                return True
            time.sleep(0.005)
        return False

    def _turns(self) -> int:
        driver = self.driver.counters()
        return sum(driver.get(name, 0) for name in ("batches", "sleeps", "packets"))

    def start(self) -> None:
        self._thread.start()

    def leave(self) -> None:
        """Waits until the thread has left the queue as it is: another process may continue, or
        ``come_back`` is called.
        """
        if isinstance(self.driver, KernelQueue):
            self.driver.leave()
            self._thread.join()

    def come_back(self) -> None:
        """Continues after ``leave``, as no other process has taken over."""
        if isinstance(self.driver, KernelQueue):
            self.driver.come_back()
            self._thread = threading.Thread(target=self._run, name=f"queue-{self.number}", daemon=True)
            self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Waits until the thread has given a verdict on every held packet."""
        self.driver.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def drain(self, seconds: float | None = None) -> bool:
        """Hands what the engine recorded to the writer; whether there may be more.

        A peer can make records faster than they are written: after ``seconds`` it is another queue's turn, and signals
        are handled. Without ``seconds`` it continues until no record is left, which ends only if no packet comes any
        more.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while self._written():
            if end is not None and time.monotonic() >= end:
                return True
        return False

    def _written(self) -> bool:
        """Whether there were records; some of them have been written."""
        if self.writer and not self.cisco:
            return self.writer.drain(self.engine) > 0
        records = self.engine.drain()
        for writer in (self.writer, self.cisco):
            if writer:
                writer.write(records)
        return bool(records)

    def _run(self) -> None:
        masked()
        try:
            if self._cpu is not None:
                os.sched_setaffinity(0, {self._cpu})  # Binds this thread alone, not the process, to the CPU.
            self.driver.run()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.failure = error
