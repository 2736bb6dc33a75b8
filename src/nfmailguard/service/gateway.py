"""The gateway: queues, engines, rules, events and the control socket put together.

Promises: packets are sent to a queue only while it is read, and however ``run`` ends, the rules are removed before the
queues are. A verdict never waits for an event, nor for a client of the control socket: each queue has a thread, the
control socket another, and the main thread takes what they recorded, writes it, and does the rest. Does not know what
is inspected, nor how.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from nfmailguard import __version__
from nfmailguard.config import Config
from nfmailguard.confinement.confined import Confinement
from nfmailguard.errors import ConfigError, ControlError, NfmailguardError, RefusedError
from nfmailguard.plain import printable
from nfmailguard.queues.kernel import KernelQueue, QueueStates
from nfmailguard.queues.tap import Tap
from nfmailguard.reports.standing import taken_over
from nfmailguard.reports.summary import open_before
from nfmailguard.service.control import ControlSocket, Request
from nfmailguard.service.flows import Lister
from nfmailguard.service.handover import Predecessor, RunningGateway, Taken, refusal
from nfmailguard.service.health import Health
from nfmailguard.service.kept import KeptGateway
from nfmailguard.service.leaving import leave, leave_to_manager
from nfmailguard.service.logs import Logs
from nfmailguard.service.notices import Notices
from nfmailguard.service.notify import Systemd
from nfmailguard.service.placed import PlacedRules
from nfmailguard.service.preflight import interface_warnings, interfaces, long_packets, sink_notes, summary
from nfmailguard.service.reload import Configured, checked_rules
from nfmailguard.service.signals import Signals
from nfmailguard.service.worker import QueueWorker

__all__ = ["Gateway", "TapFiles"]

DRAIN_SECONDS = 0.05
#: Most seconds of writing one queue's events before the next queue's turn.
DRAIN_SLICE = 0.1
#: Seconds between two checks of rules, queues and losses.
LOOK_SECONDS = 1.0
#: Most seconds to wait until a queue is empty after its rules were removed.
BYPASS_SECONDS = 2.0
#: How much the nice value of the thread that writes events is raised.
EVENTS_NICE = 19

#: Capture files of a tap: the packets as they came in, and, unless None, as they left.
TapFiles = tuple[Path, Path | None]


class Gateway:
    """A gateway for ``config``, ready to ``run``. Makes engines, and changes nothing on the machine yet.

    ``rules`` False leaves the ruleset to the operator. ``tell`` gets each line for the operator; ``reread`` reads the
    configuration, which is in ``source``, again. Raises ConfigError for what cannot be run. ``run`` gives up the
    process's privileges (``confinement``). ``hand_over``: takes over from the running gateway, or from one whose queues
    the service manager has kept, if there is one; at the end the manager keeps this one's queues.
    """

    def __init__(
        self,
        config: Config,
        *,
        rules: bool = True,
        tap: TapFiles | None = None,
        tell: Callable[[str], None] = print,
        reread: Callable[[], Config] | None = None,
        source: Path | None = None,
        hand_over: bool = False,
    ) -> None:
        first, last = config.queue.first, config.queue.last
        if tap and last > first:
            raise ConfigError("--tap: a tap serves one queue; run with a single one")
        if tap and hand_over:
            raise ConfigError("--tap: what is captured begins with no flow; not with --hand-over")
        flow_rules = checked_rules(config)
        files = Tap(str(tap[0]), str(tap[1]) if tap[1] else None) if tap else None

        def made_workers() -> list[QueueWorker]:
            try:
                return [QueueWorker(config, flow_rules, number, files) for number in range(first, last + 1)]
            except ValueError as error:
                raise ConfigError(f"configuration: {error}") from error

        self._made_workers = made_workers
        self._workers = made_workers()
        self._confinement = Confinement(config, source)
        self._configured = Configured(config, flow_rules, reread, self._confinement)
        self._tapped = tap is not None
        self._lister = Lister()
        self._say = tell
        self._notices = Notices(self._print)
        self._systemd = Systemd()
        self._signals = Signals()
        self._rules = PlacedRules(config, wanted=rules)
        self._logs = Logs(config, self._publish)
        self._health = Health(self._tell, self._logs.health)
        self._control: ControlSocket | None = None
        self._keeps = hand_over and self._systemd.manages
        self._predecessor: Predecessor | None = None
        if self._systemd.keeps:
            self._predecessor = KeptGateway(config, self._systemd, rules=rules)
        elif hand_over and (config.service.control or not self._keeps):
            self._predecessor = RunningGateway(config, rules=rules)
        self._taken: Taken | None = None
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()  # requests for the main thread to carry out
        self._started, self._began = time.monotonic(), time.time()
        self._counters: dict[str, int] = {}
        self._starting = True

    @property
    def _config(self) -> Config:
        """The configuration in force."""
        return self._configured.config

    @property
    def exit_code(self) -> int:
        """The exit code for the signal that ended ``run``."""
        return self._signals.exit_code

    def run(self) -> dict[str, int]:
        """Runs until a signal ends it (``service.signals``); the last counters. Raises what made a queue or step fail.

        SIGHUP reads the configuration again, and reopens the log files.
        """
        with ExitStack() as stack:
            stack.enter_context(self._signals.caught())
            besides, unread = self._rules.look_around(), 0
            inherited = self._take_over(stack)
            notes = self._open_control(stack)
            for worker in self._workers:
                self._open(worker)
                stack.callback(worker.driver.close)
            self._states = QueueStates()
            stack.callback(self._states.close)
            self._rules.refuse_another(self._states.read())  # finding the other process needs rights given up below
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            self._confinement.enter(nice=nice, abstract=self._systemd.abstract)
            self._logs.open(self._workers, stack)  # log files must open without the rights dropped before
            if self._predecessor:
                self._predecessor.give_events(self._workers)
                self._predecessor.commit()  # until this commit a failure leaves the predecessor running
                self._predecessor.close()
            stack.callback(self._finish)
            for worker in self._workers:
                worker.start()
                stack.callback(worker.stop)
            if self._predecessor:
                unread = (time.monotonic_ns() - self._predecessor.left) // 1_000_000
            stack.callback(self._rules.remove)
            if self._predecessor:
                treated = self._configured.inherit(inherited)
                self._rules.take_over(self._predecessor.placed, treated, self._states.read())
            else:
                self._rules.apply(self._states.read())
            self._rules.look(self._workers)
            self._started, self._began = time.monotonic(), time.time()
            if self._control:
                self._control.start()  # the control socket answers only once packets are inspected
            self._tell(f"nfmailguard: ready: {summary(self._config)}")
            self._tell_taken_over(unread)
            for note in (
                *(note for worker in self._workers for note in worker.notes),
                *long_packets(),
                *interface_warnings(self._config, interfaces(self._config)),
                *sink_notes(self._config),
                *self._confinement.missing,
                *self._confinement.notes,
                *besides,
                *notes,
            ):
                self._tell(f"nfmailguard: note: {note}")
            self._systemd.ready(summary(self._config))
            self._systemd.watch(self._moved)
            stack.callback(self._systemd.stopping)
            self._give_way(stack)  # a low priority set earlier would slow down the start on a busy machine
            self._watch()
            if self._keeps:
                self._hand_to_manager()
        for worker in self._workers:
            if worker.failure:
                raise worker.failure
        return self._counters

    def _take_over(self, stack: ExitStack) -> list[Config]:
        """Loads the predecessor's state into the engines, if it fits; the configurations its flows are under."""
        asked = self._predecessor
        if asked is None:
            return []
        stack.callback(asked.close)
        asked.ask()
        if not asked.answers:
            self._predecessor = None
            self._tell(f"nfmailguard: hand-over: {asked.reason}; started as if there were none")
            return []
        try:
            older = asked.load(self._workers)
        except ValueError as error:
            asked.does_not_fit(str(error))
            self._workers = self._made_workers()
            older = []
        self._starting = bool(asked.reason)
        counters = self.counters()
        flows, held = counters.get("flows_now", 0), counters.get("held_now", 0)
        self._taken = Taken(time.time(), asked.process, asked.version, flows, held, 0)
        return older

    def _open(self, worker: QueueWorker) -> None:
        asked, driver = self._predecessor, worker.driver
        if asked and isinstance(driver, KernelQueue):
            driver.open(asked.keep(asked.sockets[worker.number]), asked.standing(worker.number))
        else:
            driver.open()

    def _tell_taken_over(self, unread: int) -> None:
        """``unread``: milliseconds in which nobody read the queues."""
        asked = self._predecessor
        if asked is None or self._taken is None:
            return
        self._taken = self._taken._replace(unread=unread)
        event: dict[str, Any] = {"state": "healthy", "hand_over": "without_state" if asked.reason else "taken_over"}
        text = taken_over(self._taken.standing(), asked.reason)
        self._tell(f"nfmailguard: hand-over: {text}")
        self._logs.health({**event, "text": text})

    def _hand_over(self, request: Request) -> None:
        """Hands everything to a successor that asks for it; if it has taken over, this gateway ends."""
        bypassed, tapped = self._rules.bypassed, self._tapped
        if reason := refusal(request.asker.user, self._workers, tapped=tapped, bypassed=bypassed):
            raise RefusedError(reason)
        assert self._control is not None
        self._rules.look(self._workers)
        placed, configured = self._rules.leave(), self._configured
        try:
            taken = leave(request, self._requests, self._workers, configured.used, self._config, placed, self._control)
        except (OSError, MemoryError) as error:
            raise RefusedError(f"hand-over: {error}") from error
        if not taken:
            self._tell_handed("not_taken", "the successor has not taken over", "; all goes on here")
            return
        self._rules.forget()
        self._keeps = False
        self._signals.stopping = True
        self._tell_handed("handed_over", "the successor has taken over")

    def _hand_to_manager(self) -> None:
        """Hands everything to the service manager, for the next gateway; if that fails, the gateway ends normally."""
        reason = refusal(os.geteuid(), self._workers, tapped=self._tapped, bypassed=self._rules.bypassed)
        if reason or self._signals.exit_code or not all(worker.alive for worker in self._workers):
            return
        placed, configured = self._rules.leave(), self._configured
        try:
            kept = leave_to_manager(self._workers, configured.used, self._config, placed, self._systemd)
        except (OSError, MemoryError) as error:
            self._tell(f"nfmailguard: hand-over: {error}; this is an end without one")
            return
        if kept:
            self._rules.forget()
            self._tell_handed("handed_over", "the service manager keeps queues and flows for the next start")

    def _tell_handed(self, what: str, text: str, more: str = "") -> None:
        self._tell(f"nfmailguard: hand-over: {text}{more}")
        state = "degraded" if self._health.degraded else "healthy"
        self._logs.health({"state": state, "hand_over": what, "text": text})

    def _moved(self) -> bool:
        """Whether all loops have turned since the last call; each of them is asked to turn again."""
        moved = [worker.moved(self._states) for worker in self._workers]
        return all(moved)

    def stop(self) -> None:
        """Ends ``run`` soon; from any thread."""
        self._signals.stopping = True

    def _tell(self, line: str) -> None:
        self._notices.tell(line)

    def _print(self, line: str) -> None:
        with suppress(OSError, ValueError):  # the terminal or pipe may have been closed; mail goes on
            self._say(printable(line))

    def counters(self) -> dict[str, int]:
        """Counters of all queues together: the core's by name, the drivers' as ``queue.NAME``."""
        total: Counter[str] = Counter()
        for worker in self._workers:
            total.update(worker.counters())
        uptime = int(time.monotonic() - self._started)
        return {"uptime": uptime, **total, **self._logs.counters(), **self._rules.passed}

    @staticmethod
    def _give_way(stack: ExitStack) -> None:
        # On a single CPU, writing events must not delay verdicts, so this thread gets a low priority. The queues'
        # threads, which already run, keep the priority they began with.
        me = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, me)
        os.setpriority(os.PRIO_PROCESS, me, min(19, before + EVENTS_NICE))

        def back() -> None:
            with suppress(OSError):  # only a privileged process may raise its priority again
                os.setpriority(os.PRIO_PROCESS, me, before)

        stack.callback(back)

    def _open_control(self, stack: ExitStack) -> list[str]:
        """Opens the control socket; if that fails, the gateway runs without it, and the reason is a note."""
        service, account = self._config.service, self._confinement.account
        owner = account.user if account else -1
        if not service.control:
            return []
        try:
            listener = asked.keep(asked.control) if (asked := self._predecessor) and asked.control >= 0 else -1
            self._control = ControlSocket(service.control, service.group, self._answer, owner, listener)
        except ControlError as error:
            return [f"{error}; this gateway cannot be asked"]
        stack.callback(self._control.close)
        return []

    def _publish(self, lines: Iterable[bytes]) -> None:
        if self._control:
            self._control.publish(lines)

    def _answer(self, request: Request) -> None:
        """Called in the control socket's thread: answers what only reads, and passes the rest to the main thread."""
        if request.command == "status":
            request.reply(self._status())
        elif request.command == "stats":
            request.reply({**self.counters(), "degraded_now": len(self._health.reasons())})
        elif request.command == "events":
            if self._logs.has_events:
                request.follow()
            else:
                request.fail("log.eve: no events are made")
        elif request.command == "flows":
            self._lister.answer(request, self._workers)
        elif request.command in ("reload", "bypass", "hand-over", "taken"):
            self._requests.put(request)
        else:
            known = "status, stats, events, flows, reload or bypass"
            request.fail(f"no such command: {printable(request.command, 40)}; {known}")

    def _status(self) -> dict[str, Any]:
        reasons = self._health.reasons()
        return {
            "state": "degraded" if reasons else "healthy",
            "reasons": reasons,
            "summary": summary(self._config),
            "version": __version__,
            "pid": os.getpid(),
            "started": round(self._began, 3),
            "policies": [{"mode": rule.mode, "profile": rule.policy.name} for rule in self._workers[0].engine.rules],
            "uptime": int(time.monotonic() - self._started),
            "rules": self._rules.standing,
            "taken_over": self._taken.standing() if self._taken else None,
            "configuration": self._configured.standing(self._workers),
            "queues": [worker.standing() for worker in self._workers],
            "uninspected": self._rules.passed.get("queue.uninspected"),
            "events_lost": self._logs.counters().get("events_lost", 0),
            "open_before": open_before(self.counters()),
            "confinement": self._confinement.standing(),
        }

    def _carry_out(self) -> None:
        """Carries out requests and signals that change something."""
        if self._signals.take_reload():
            with suppress(NfmailguardError):  # the failure has already been reported to the operator
                self._reload("SIGHUP")
        while not self._requests.empty():
            request = self._requests.get()
            try:
                if request.command == "hand-over":
                    self._hand_over(request)
                elif request.command == "taken":
                    raise RefusedError("hand-over: too late, the gateway has gone on")
                elif request.command == "bypass":
                    self._bypass(request.arguments.get("on"))
                    request.reply({"rules": self._rules.standing})
                elif request.arguments.get("dry_run"):
                    request.reply({"changed": self._configured.would_change(self._workers), "notes": []})
                else:
                    request.reply(self._reload("reload"))
            except NfmailguardError as error:
                request.fail(*error.lines)

    def _bypass(self, on: object) -> None:
        """Takes the gateway out of the path, or back in; flows opened meanwhile count as open before the start."""
        if not isinstance(on, bool):
            raise RefusedError("bypass: on is true or false")
        if self._rules.in_place is None:
            raise RefusedError("bypass: the rules are your own (--no-rules): take them away")
        if not all(worker.begins_anew for worker in self._workers):
            raise RefusedError(
                "bypass: only the kernel driver can begin anew; `nfmailguard rules remove` and a restart"
            )
        if on != self._rules.bypassed:
            if on:
                self._rules.remove()
            left = [worker.number for worker in self._workers if not worker.begin_anew(BYPASS_SECONDS)]
            self._rules.look(self._workers)  # counts packets the queues got before the table was removed
            if not on:
                self._rules.apply(self._states.read())
            self._rules.bypassed = on
            self._tell(f"nfmailguard: bypass: {'on, nothing is inspected' if on else 'off'}")
            if left:
                self._tell(f"nfmailguard: bypass: queues {left} did not get empty; what they follow is followed on")
        self._look()

    def _reload(self, asked: str) -> dict[str, Any]:
        """Reopens log files and reads the configuration again; if this raises, the old configuration stays in force."""
        self._systemd.reloading()
        event: dict[str, Any] = {"state": "degraded" if self._health.degraded else "healthy"}
        try:
            self._logs.reopen()
            found, notes = self._configured.reload(self._workers, self._rules, self._logs, tapped=self._tapped)
        except NfmailguardError as error:
            more = f" (and {len(error.lines) - 1} more; `nfmailguard check` names all)" if error.lines[1:] else ""
            text = f"refused, the configuration stays as it was: {error.lines[0]}{more}"
            self._tell(f"nfmailguard: {asked}: {text}")
            self._logs.health({**event, "reload": "refused", "errors": list(error.lines), "text": text})
            raise
        else:
            standing = self._configured.standing(self._workers)
            keys = ", ".join(dict.fromkeys(line.partition(":")[0] for line in found))
            what = f"generation {standing['generation']}, changed: {keys}" if found else "nothing has changed"
            text = f"log files opened anew; {what}"
            self._tell(f"nfmailguard: {asked}: {text}")
            for note in notes:
                self._tell(f"nfmailguard: note: {note}")
            event |= {"reload": "done", "generation": standing["generation"], "text": text}
            self._logs.health(event | ({"changed": found} if found else {}))
            return {"changed": found, "notes": notes, **standing}
        finally:
            self._systemd.ready(summary(self._config))

    def _look(self) -> None:
        """Checks rules, queues and losses; reports what has become worse or better."""
        self._rules.look(self._workers)
        self._configured.look(self._workers, self._rules)
        self._logs.flush()
        troubles = self._logs.troubles() | self._rules.trouble()
        for worker in self._workers:
            troubles |= worker.troubles()
        counters = self.counters()
        self._health.look(counters, troubles)
        if self._starting and time.monotonic() - self._started > self._config.limits.startup:
            self._starting = False
            if before := open_before(counters):
                self._tell(
                    f"nfmailguard: note: flows open since before the start, which pass uninspected to their ends:"
                    f' {before}; on.midstream_at_start = "reset" ends such'
                )
        self._notices.look()

    def _watch(self) -> None:
        due = time.monotonic() + self._config.log.stats
        self._logs.look()
        look = time.monotonic()
        behind: list[QueueWorker] = []
        while not self._signals.stopping and all(worker.alive for worker in self._workers):
            if not behind:
                time.sleep(DRAIN_SECONDS)
            behind = [worker for worker in self._workers if worker.drain(DRAIN_SLICE)]
            self._carry_out()
            if time.monotonic() >= look:
                look = time.monotonic() + LOOK_SECONDS
                self._look()
            period = self._config.log.stats
            due = min(due, time.monotonic() + period)  # a reload may have shortened log.stats
            if time.monotonic() >= due:
                due += period
                for line in self._rules.new_flowtables():
                    self._tell(f"nfmailguard: {line}")
                self._write_stats(self.counters())
        self._rules.look(self._workers)
        self._counters = self.counters()  # read while the kernel's table and queues still exist

    def _finish(self) -> None:
        for worker in self._workers:
            worker.drain()
        self._logs.end()
        last = self.counters()
        self._counters = {**self._counters, **{name: value for name, value in last.items() if value}}
        self._write_stats(self._counters)
        for line in self._logs.last_words():
            self._tell(f"nfmailguard: {line}")
        self._notices.last()

    def _write_stats(self, counters: dict[str, int]) -> None:
        self._logs.stats({**counters, "degraded_now": len(self._health.reasons())})
