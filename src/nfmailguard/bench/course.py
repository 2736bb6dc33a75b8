"""The test course: client, gateway and server in namespaces, a candidate on the gateway's queue, and its resource use.

Promises: the candidate runs on one CPU, both hosts on the others; a candidate that ends, or does not start, is an error
and gives no figure; what was started is ended. Does not know what is sent.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nfmailguard.bench.candidates import Candidate
from nfmailguard.bench.machine import Usage, environment, pinned, usage
from nfmailguard.errors import BenchError
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology
from nfmailguard.queues.kernel import QueueState, queue_states
from nfmailguard.ruleset import Ruleset, installed

__all__ = ["Course", "Ran", "StalledError"]

#: Seconds a program under test may take to start, and to end.
PATIENCE = 30.0
#: Most seconds one load may take; it is meant to take one or two, ten for slow programs.
LONGEST = 45.0
GATEWAY_PORT = 25


class StalledError(BenchError):
    """Mail did not arrive, or not in time."""


class Ran:
    """The candidate's resource use while the load lasted, and packets its queue lost."""

    def __init__(self) -> None:
        self.used = Usage(0, 0, 0)
        self.dropped = 0
        self.packets = 0
        #: Number of packets that were sent to the queue.
        self.offered = 0
        #: What the program under test printed when it ended.
        self.said = ""


class _State(NamedTuple):
    sequence: int
    dropped: int


def _state(found: dict[int, QueueState]) -> _State:
    return _State(
        sum(one.id_sequence for one in found.values()),
        sum(one.queue_dropped + one.user_dropped for one in found.values()),
    )


class Course:
    """The test course, as a context manager. Raises LabError where there are no namespaces."""

    def __init__(self) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        self.gateway_cpu = cpus[-1]
        self.load_cpus = set(cpus[:-1]) or set(cpus)
        self._topology = Topology(f"bench{os.getpid()}-")
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Course:
        self._topology.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._topology.close()
        for process in self._started:
            if process.stdout:
                process.stdout.close()

    @property
    def server(self) -> str:
        """The server's address."""
        return self._topology.address(SERVER)

    def serve(self, command: Sequence[str]) -> None:
        """Starts the server, which may say ``ready``, until the course ends."""
        process = self.start(SERVER, command)
        self._wait_ready(process, "the server", said=command[0] == sys.executable)

    def start(self, host: str, command: Sequence[str]) -> subprocess.Popen[str]:
        """Starts a process of the load; it is ended with the course at the latest."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.load_cpus)
        try:
            process = self._topology.popen(host, list(command), stdout=subprocess.PIPE, text=True)
            self._started.append(process)
            return process
        finally:
            os.sched_setaffinity(0, before)

    def load(self, command: Sequence[str]) -> dict[str, Any]:
        """Runs a load of ``bench.load`` on the client and returns its result. Raises BenchError when it fails."""
        words = [sys.executable, "-m", "nfmailguard.bench.load", *command]
        process = self.start(CLIENT, words)
        out, _ = process.communicate()
        if process.returncode:
            raise BenchError(f"bench: the load failed: {' '.join(command)}")
        found: dict[str, Any] = json.loads(out)
        return found

    def timed(self, command: Sequence[str]) -> float:
        """Seconds that a command takes on the client. Raises BenchError when it fails."""
        begun = time.perf_counter()
        process = self.start(CLIENT, command)
        try:
            process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.communicate()
            raise StalledError(f"bench: {command[0]}: mail did not arrive within {LONGEST:.0f} s") from error
        if process.returncode:
            raise StalledError(f"bench: {command[0]} failed")
        return time.perf_counter() - begun

    def queued(self) -> bool:
        """Whether a packet has reached a queue that is being read."""
        with self._topology.enter(GATEWAY):
            return _state(queue_states()).sequence > 0

    @contextlib.contextmanager
    def running(self, candidate: Candidate) -> Iterator[Ran]:
        """Runs the candidate inside the block; the figures are complete when it is left."""
        ran = Ran()
        if candidate.command is None:
            yield ran
            return
        with pinned(self.gateway_cpu):
            process = self._topology.popen(
                GATEWAY,
                list(candidate.command),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment(candidate.command[0]),
            )
        rules = None if candidate.own_rules else Ruleset(0, 0, [GATEWAY_PORT], ["forward"])
        try:
            self._wait_ready(process, candidate.name, said=candidate.says_ready)
            with self._topology.enter(GATEWAY):
                if rules:
                    rules.apply()
                before = _state(queue_states())
            begun = usage(process.pid)
            yield ran
            ran.used = usage(process.pid).since(begun)
            with self._topology.enter(GATEWAY):
                after = _state(queue_states())
                table = installed()
                ran.offered = table.packets if table else 0
            ran.packets, ran.dropped = after.sequence - before.sequence, after.dropped - before.dropped
            if process.poll() is not None:
                raise BenchError(f"bench: {candidate.name} ended by itself, with {process.returncode}")
        finally:
            if rules:
                with self._topology.enter(GATEWAY):
                    rules.remove()
            ran.said = self._end(process)

    def _wait_ready(self, process: subprocess.Popen[str], name: str, *, said: bool) -> None:
        assert process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            if said and select.select([process.stdout], [], [], 0.2)[0]:
                if "ready" in process.stdout.readline():
                    return
                break
            with self._topology.enter(GATEWAY):
                bound = bool(queue_states())
            if not said and (bound or name == "the server"):
                time.sleep(0.3)  # Time for the last steps of the program's start, which cannot be observed.
                return
            time.sleep(0.02 if said else 0.1)
        raise BenchError(f"bench: {name} does not begin: {' '.join(map(str, process.args))[:200]}")  # type: ignore[arg-type]

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> str:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.communicate(timeout=PATIENCE)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()[0]
