"""``bench queue``: how much mail gets through a gateway with a queue and its reader.

Promises: the candidates take turns, each round beginning with another one; every run has a queue and a process of its
own. Does not know how a candidate works.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from nfmailguard.bench.candidates import Candidate, accept_all, enforcing, ours, peers
from nfmailguard.bench.course import Course, StalledError
from nfmailguard.bench.machine import tool
from nfmailguard.bench.results import Benchmark

__all__ = ["SIZES", "flood", "queue", "sweeps"]

Tell = Callable[[str], object]
SESSIONS = 20


class Size(NamedTuple):
    """The size of a mail in bytes, and how many mails make a run of about a second."""

    name: str
    octets: int
    mails: int


SIZES = (Size("1 KiB", 1024, 4000), Size("10 KiB", 10 * 1024, 3000), Size("1 MiB", 1024 * 1024, 200))
NO_QUEUE = Candidate("no queue", None)
#: The candidate that is ten times slower than the others, its number of rounds, and the divisor of its number of mails.
SLOW, SLOW_ROUNDS, SLOW_SHARE = "NetfilterQueue+scapy", 3, 20
PACKAGE = "enforce pix63, NetfilterQueue driver"
FLOOD_SECONDS = 1.0


def sink_and_source(course: Course, own: bool) -> tuple[list[str], Callable[[int, int], list[str]], str]:
    """The server's command, the client's for so many mails of a size, and the name of the pair."""
    sink, source = tool("smtp-sink"), tool("smtp-source")
    if sink and source and not own:

        def mails(count: int, size: int) -> list[str]:
            load = [source, "-s", str(SESSIONS), "-m", str(count), "-l", str(size)]
            return [*load, "-f", "a@example.net", "-t", "b@example.com", f"{course.server}:25"]

        return [sink, "-u", "nobody", f"{course.server}:25", "1000"], mails, "smtp-source and smtp-sink"
    module = [sys.executable, "-m", "nfmailguard.bench.load"]

    def mails_of_ours(count: int, size: int) -> list[str]:
        return [*module, "source", course.server, "25", str(SESSIONS), str(count), str(size)]

    return [*module, "sink", course.server, "25"], mails_of_ours, "a generator of our own"


def _turns(cases: Sequence[Candidate], round_: int) -> list[Candidate]:
    place = round_ % len(cases)
    return [*cases[place:], *cases[:place]]


def _mails(course: Course, candidate: Candidate, command: Sequence[str], size: Size, count: int) -> dict[str, float]:
    with course.running(candidate) as ran:
        seconds = course.timed(command)
    megabytes = size.octets * count / 1e6
    return {
        "rate": count / seconds,
        "volume": megabytes / seconds,
        "CPU": ran.used.cpu / count / 1000,
        "waits": ran.used.voluntary / count,
        "dropped": ran.dropped,
    }


def _until_it_arrives(found: Benchmark, course: Course, candidate: Candidate, command: Sequence[str], size: Size,
                      count: int) -> dict[str, float]:  # fmt: skip
    """As ``_mails``; a run in which mail got stuck is reported and repeated, twice at most."""
    for left in (2, 1, 0):
        try:
            return _mails(course, candidate, command, size, count)
        except StalledError as error:
            found.notes.append(f"{candidate.name}, {size.name}: a run was repeated: {error}")
            if not left:
                raise
    raise AssertionError


def queue(rounds: int, tell: Tell, *, own_load: bool = False, sizes: Sequence[Size] = SIZES) -> Benchmark:
    """Measures mails per second of every candidate at every size."""
    found = Benchmark(
        "queue",
        f"Mail through one queue, {SESSIONS} sessions at once",
        {
            "rate": "mails/s",
            "volume": "MB/s",
            "CPU": "us of the gateway's process a mail",
            "waits": "voluntary context switches a mail",
            "dropped": "packets the queue lost",
        },
        "accept-all",
    )
    with tempfile.TemporaryDirectory() as scratch_, Course() as course:
        scratch = Path(scratch_)
        eve = scratch / "eve.json"
        others, found.notes = peers(scratch)
        cases = [
            NO_QUEUE,
            accept_all(),
            ours("monitor pix63", "monitor", "pix63", eve),
            enforcing("enforce pix63", eve),
            ours("enforce asa", "enforce", "asa", eve),
            ours("restore pix63", "restore", "pix63", eve),
            enforcing(PACKAGE, eve, "queue.driver=netfilterqueue"),
            *others,
        ]
        server, load, how = sink_and_source(course, own_load)
        found.notes.append(f"Load: {how}. Events are written to a file.")
        course.serve(server)
        for size in sizes:
            for done in range(rounds):
                for case in _turns(cases, done):
                    slow = case.name == SLOW
                    if case.name in (SLOW, PACKAGE) and done >= SLOW_ROUNDS:
                        continue
                    count = max(2 * SESSIONS, size.mails // SLOW_SHARE) if slow else size.mails
                    command = load(count, size.octets)
                    figures = _until_it_arrives(found, course, case, command, size, count)
                    found.add(size.name, case.name, **figures)
                tell(f"queue: {size.name}: round {done + 1} of {rounds}")
    return found


def flood(rounds: int, tell: Tell) -> Benchmark:
    """Measures packets per second through a queue under a flood of SYNs, each of which needs a verdict."""
    found = Benchmark(
        "flood",
        f"SYNs from {FLOOD_SECONDS:.0f} s of flooding, of one host",
        {
            "rate": "thousand packets/s read and answered",
            "sent": "thousand/s sent",
            "CPU": "us a packet",
            "dropped": "packets the queue lost",
        },
        "accept-all",
    )
    with tempfile.TemporaryDirectory() as scratch_, Course() as course:
        scratch = Path(scratch_)
        others, found.notes = peers(scratch)
        cases = [
            accept_all(),
            enforcing("enforce pix63", scratch / "eve.json"),
            *(one for one in others if one.name != SLOW),
        ]
        for done in range(rounds):
            for case in _turns(cases, done):
                with course.running(case) as ran:
                    told = course.load(["flood", course.server, str(FLOOD_SECONDS)])
                rate = ran.packets / told["seconds"] / 1000
                found.add(
                    "SYNs",
                    case.name,
                    rate=rate,
                    sent=told["sent"] / told["seconds"] / 1000,
                    CPU=ran.used.cpu / max(ran.packets, 1) / 1000,
                    dropped=ran.dropped,
                )
            tell(f"flood: round {done + 1} of {rounds}")
    return found


def sweeps(rounds: int, tell: Tell) -> Benchmark:
    """Measures the effect of GSO, copy range, batch and the number of queues, each by itself."""
    found = Benchmark(
        "sweeps",
        "Settings of the driver, one at a time, accept-all but where an engine is named",
        {"rate": "mails/s", "volume": "MB/s", "CPU": "us a mail", "dropped": "packets the queue lost"},
        "as it is",
    )
    cases = [
        accept_all("as it is"),
        accept_all("no GSO", gso=False),
        accept_all("copy range 256", copy_range=256),
        accept_all("copy range 4096", copy_range=4096),
        accept_all("batch 1", batch=1),
        accept_all("batch 8", batch=8),
        accept_all("length 256", length=256),
        accept_all("busy polling 200 us", busy_poll=200),
    ]
    with tempfile.TemporaryDirectory() as scratch, Course() as course:
        eve = Path(scratch, "eve.json")
        cases += [
            enforcing("enforce, 1 queue", eve),
            enforcing("enforce, 2 queues", eve, "queue.numbers=0-1"),
            enforcing("enforce, busy polling 200 us", eve, "queue.busy_poll=200"),
        ]
        server, load, how = sink_and_source(course, False)
        found.notes.append(f"Load: {how}. Two hosts make one pair of addresses: two queues share nothing here.")
        course.serve(server)
        for size in (SIZES[0], SIZES[2]):
            for done in range(rounds):
                for case in _turns(cases, done):
                    command = load(size.mails, size.octets)
                    figures = _until_it_arrives(found, course, case, command, size, size.mails)
                    figures.pop("waits")
                    found.add(size.name, case.name, **figures)
                tell(f"sweeps: {size.name}: round {done + 1} of {rounds}")
    return found
