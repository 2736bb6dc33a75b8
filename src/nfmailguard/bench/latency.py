"""``bench latency``: how long a command waits for its reply, with and without bulk mail at the same time.

Promises: one connection, one command at a time (NOOP); percentiles of each run, paired by round. Does not know how a
candidate works.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from nfmailguard.bench.candidates import Candidate, accept_all, enforcing, ours, peers
from nfmailguard.bench.course import Course
from nfmailguard.bench.queue import NO_QUEUE, SLOW
from nfmailguard.bench.results import Benchmark
from nfmailguard.lab.topology import CLIENT

__all__ = ["latency"]

TRIPS = 10_000
#: First round trips, which are not counted: caches, the sender's window and the CPU's clock rate settle.
WARM_UP = 500
#: Number of mails of 1 MiB sent as background load; more than one measurement can take.
BULK = 100_000
BUSY = 200


def percentiles(trips: Sequence[float]) -> dict[str, float]:
    """p50, p99 and p99.9, by nearest rank."""
    ranked = sorted(trips)
    return {
        "p50": statistics.median(ranked),
        "p99": ranked[len(ranked) * 99 // 100],
        "p99.9": ranked[len(ranked) * 999 // 1000],
    }


def latency(rounds: int, tell: Callable[[str], object]) -> Benchmark:
    """Measures the round trips of every candidate."""
    found = Benchmark(
        "latency",
        "A command and its reply",
        {"p50": "us", "p99": "us", "p99.9": "us", "CPU": "us of the gateway's process a round trip"},
        "accept-all",
        more=False,
    )
    with tempfile.TemporaryDirectory() as scratch_, Course() as course:
        scratch = Path(scratch_)
        eve = scratch / "eve.json"
        others, found.notes = peers(scratch)
        cases = [
            NO_QUEUE,
            accept_all(),
            enforcing("enforce pix63", eve),
            ours("enforce asa", "enforce", "asa", eve),
            enforcing("enforce pix63, busy polling", eve, f"queue.busy_poll={BUSY}"),
            *(one for one in others if one.name != SLOW),
        ]
        found.notes.append(f"Busy polling: {BUSY} us. NOOP over one connection, {TRIPS:,} times a run.")
        course.serve([sys.executable, "-m", "nfmailguard.bench.load", "sink", course.server, "25"])
        behind_tls = [
            NO_QUEUE,
            accept_all(),
            ours("enforce asa-tls", "enforce", "asa-tls", eve),
            ours("enforce asa-tls, offload", "enforce", "asa-tls", eve, "queue.offload=yes"),
        ]
        for group, those in (("alone", cases), ("beside bulk mail", cases), ("behind STARTTLS", behind_tls)):
            for done in range(rounds):
                place = done % len(those)
                for case in (*those[place:], *those[:place]):
                    figures = _run(course, case, bulk=group == "beside bulk mail", tls=group == "behind STARTTLS")
                    found.add(group, case.name, **figures)
                tell(f"latency: {group}: round {done + 1} of {rounds}")
    return found


def _run(course: Course, case: Candidate, *, bulk: bool = False, tls: bool = False) -> dict[str, float]:
    with course.running(case) as ran:
        beside = None
        if bulk:
            words = ["source", course.server, "25", "1", str(BULK), str(1 << 20)]
            beside = course.start(CLIENT, [sys.executable, "-m", "nfmailguard.bench.load", *words])
        try:
            words = ["trips", course.server, "25", str(TRIPS + WARM_UP), *(["tls"] if tls else [])]
            trips = course.load(words)["trips"][WARM_UP:]
        finally:
            if beside:
                beside.kill()
                beside.communicate()
    return {**percentiles(trips), "CPU": ran.used.cpu / len(trips) / 1000}
