"""``start``: the time from the command to the first packet decided on, and the memory; also the packets lost where the
kernel grants no more than the usual socket buffer.

Promises: the gateway is a process started as an operator does. Does not know the engine.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nfmailguard.bench.candidates import Candidate, accept_all, enforcing
from nfmailguard.bench.course import Course
from nfmailguard.bench.results import Benchmark
from nfmailguard.errors import BenchError
from nfmailguard.lab.topology import CLIENT, GATEWAY

__all__ = ["start", "unprivileged"]

Tell = Callable[[str], object]
#: The usual net.core.rmem_max in bytes; then the number of simultaneous flows of bulk mail, and the bytes of each.
BUFFER = 212_992
FLOWS, OCTETS = 8, 100 << 20


def start(rounds: int, tell: Tell) -> Benchmark:
    """Seconds from the command to the first packet answered; MB resident then."""
    found = Benchmark(
        "start",
        "nfmailguard run, enforce pix63, from the command on",
        {"first packet": "s", "memory": "MB resident"},
        "nfmailguard run",
        more=False,
    )
    with tempfile.TemporaryDirectory() as scratch, Course() as course:
        candidate = enforcing("nfmailguard run", Path(scratch, "eve.json"))
        for done in range(rounds):
            seconds, memory = _first_packet(course, candidate)
            found.add("start", candidate.name, **{"first packet": seconds, "memory": memory})
            tell(f"start: round {done + 1} of {rounds}")
    return found


def _first_packet(course: Course, candidate: Candidate) -> tuple[float, float]:
    assert candidate.command is not None
    knocks = course.start(CLIENT, [sys.executable, "-c", KNOCK, course.server])
    assert knocks.stdout is not None
    knocks.stdout.readline()
    begun = time.monotonic()
    process = course.start(GATEWAY, candidate.command)
    try:
        while time.monotonic() < begun + 20:
            if course.queued():
                taken = time.monotonic() - begun
                status = Path(f"/proc/{process.pid}/status").read_text()
                return taken, int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000
            time.sleep(0.001)
    finally:
        knocks.kill()
        knocks.communicate()
        process.terminate()
        process.communicate()
    raise BenchError("bench: start: no packet came to the queue")


#: A script that sends a SYN every few milliseconds, each from another port.
KNOCK = """if 1:
    import socket, sys, time
    print("ready", flush=True)
    while True:
        with socket.socket() as one:
            one.setblocking(False)
            one.connect_ex((sys.argv[1], 25))
            time.sleep(0.002)
"""


def unprivileged(rounds: int, tell: Tell) -> Benchmark:
    """Packets lost, and the throughput, with the socket buffer that a process without privileges gets."""
    found = Benchmark(
        "unprivileged",
        f"{FLOWS} bulk flows through a queue whose socket buffer is {BUFFER >> 10} KiB",
        {"lost": "packets", "volume": "MB/s"},
        "accept-all",
        more=False,
    )
    with tempfile.TemporaryDirectory() as scratch, Course() as course:
        course.serve([sys.executable, "-m", "nfmailguard.bench.load", "sink", course.server, "25"])
        eve = Path(scratch, "eve.json")
        cases = (
            accept_all(receive_buffer=BUFFER),
            enforcing("enforce pix63", eve, f"queue.receive_buffer={BUFFER}"),
            accept_all("accept-all, all the buffer it asks for"),
        )
        for done in range(rounds):
            for case in cases:
                with course.running(case) as ran:
                    words = ["source", course.server, "25", str(FLOWS), str(FLOWS), str(OCTETS)]
                    seconds = course.load(words)["seconds"]
                found.add("8 bulk flows", case.name, lost=ran.dropped, volume=FLOWS * OCTETS / 1e6 / seconds)
            tell(f"unprivileged: round {done + 1} of {rounds}")
    return found
