"""``bench attach``: measures a running gateway under a load from outside.

Promises: only observes: the kernel's counters of the queue, the process that reads it, the interfaces and the CPUs. Any
reader of the queue is measured alike, not only nfmailguard.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nfmailguard.bench.machine import usage
from nfmailguard.bench.results import Benchmark
from nfmailguard.errors import BenchError
from nfmailguard.queues.kernel import QueueState, queue_states, reader

__all__ = ["attach"]

#: Seconds between two readings of the queue's length.
LOOK = 0.01


class _Sight(NamedTuple):
    """All counters at one moment."""

    at: float
    queue: QueueState
    octets: int
    busy: int
    idle: int


def _sight(number: int) -> _Sight:
    queue = queue_states().get(number)
    if queue is None:
        raise BenchError(f"bench: attach: nobody reads queue {number} in this network namespace")
    cards = [line.split() for line in Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]]
    octets = sum(int(fields[1]) for fields in cards if fields[0] != "lo:")
    cpu = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return _Sight(time.monotonic(), queue, octets, sum(cpu) - cpu[3] - cpu[4], cpu[3] + cpu[4])


def attach(number: int, seconds: float, tell: Callable[[str], object]) -> Benchmark:
    """Prints a line per second, for so many seconds."""
    found = Benchmark(
        "attach",
        f"Queue {number} of this machine, a value a second",
        {
            "rate": "packets/s",
            "volume": "MB/s received by all interfaces",
            "CPU": "% of one CPU, the queue's reader",
            "machine": "% of all CPUs",
            "depth": "packets waiting, at most",
            "waits": "voluntary context switches/s",
            "dropped": "packets lost/s",
        },
        "",
    )
    pid = reader(_sight(number).queue.portid)
    if pid is None:
        found.notes.append("The process that reads the queue cannot be told: run as root.")
    until = time.monotonic() + seconds
    before, used = _sight(number), usage(pid) if pid else None
    while before.at < until:
        depth = 0
        while time.monotonic() < before.at + 1:
            depth = max(depth, _sight(number).queue.total)
            time.sleep(LOOK)
        now = _sight(number)
        lasted = now.at - before.at
        figures = {
            "rate": (now.queue.id_sequence - before.queue.id_sequence) / lasted,
            "volume": (now.octets - before.octets) / lasted / 1e6,
            "machine": 100 * (now.busy - before.busy) / max(1, now.busy - before.busy + now.idle - before.idle),
            "depth": float(max(depth, now.queue.total)),
            "dropped": (_lost(now) - _lost(before)) / lasted,
        }
        if pid and used:
            latest = usage(pid)
            gone = latest.since(used)
            figures |= {"CPU": gone.cpu / lasted / 1e7, "waits": gone.voluntary / lasted}
            used = latest
        found.add(f"queue {number}", "its reader", **figures)
        cpu = f", reader {figures['CPU']:.0f} % CPU" if "CPU" in figures else ""
        tell(
            f"attach: {figures['rate']:,.0f} packets/s, {figures['volume']:,.1f} MB/s{cpu},"
            f" {figures['depth']:.0f} waiting, {figures['dropped']:.0f} lost/s"
        )
        before = now
    found.notes.append(f"{os.cpu_count()} CPUs; load from outside.")
    return found


def _lost(sight: _Sight) -> int:
    return sight.queue.queue_dropped + sight.queue.user_dropped
