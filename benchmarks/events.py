"""What writing events costs: us of CPU a mail, of both writers, and 100,000 mails a second from memory.

``python benchmarks/events.py`` fills a ring with the records of mails (each a connection of its own under an enforcing
``pix63``: the greeting masked, EHLO denied, HELO, one recipient, QUIT), has both writers read as many of them by turns,
and prints the medians and ranges of CPU a mail, the kernel's part of writing the file included. Then mails come at a
rate for so many seconds, made on the CPU of the writer; records that find no place are lost. Exits with 1 where some
were, or the rate was not reached.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nfmailguard.bench.dialogues import END, ENVELOPE, GREETING, Side, prose
from nfmailguard.cext.bench.event_bench import Feed
from nfmailguard.engine import Engine
from nfmailguard.events.eve import EveWriter
from nfmailguard.events.lines import LineWriter
from nfmailguard.events.sinks import FileSink
from nfmailguard.events.transactions import TOLD
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Limits, Mode

RULES = (FlowRule(Mode.ENFORCE, load_profile("pix63")),)
#: All is written: the default, 8 MiB a second, is less than this makes.
LIMITS = Limits(log_rate=(1 << 32) - 1)
#: Connections that are open at once.
OPEN = 256
#: The file is emptied when it is as long as that.
LONGEST = 256 << 20
EHLO = ((True, b"EHLO client.example.net\r\n"), (False, b"502 unimplemented\r\n"))


def records() -> list[tuple[Any, ...]]:
    """Of one mail of 1 KiB, from the greeting to the end of its connection."""
    engine = Engine(RULES, told=TOLD)
    side = Side(0x0B000001, 40_000)
    said = (GREETING, *EHLO, *ENVELOPE, (True, prose(1024) + b".\r\n"), *END)
    now = 1_764_000_000_000_000_000
    for packet, _ in [*side.opening(), *side.says(said), *side.closing()]:
        now += 1000
        engine.process(packet, now, id=1)
    engine.finish(now + 1000)
    return engine.drain()


class Bench:
    """A writer with its ring and its file."""

    def __init__(self, path: Path, kind: type[EveWriter | LineWriter]) -> None:
        self.engine = Engine(RULES, told=TOLD)
        self.feed = Feed(self.engine, records(), OPEN)
        self.sink = FileSink(path)
        self.writer = kind(RULES, self.sink, limits=LIMITS)
        self._path = path

    def write(self) -> None:
        """All there is."""
        if isinstance(self.writer, LineWriter):
            while self.writer.drain(self.engine):
                pass
        else:
            while found := self.engine.drain():
                self.writer.write(found)
        if self._path.is_file() and self._path.stat().st_size > LONGEST:
            os.truncate(self._path, 0)

    def cost(self, mails: int) -> float:
        """Microseconds of CPU a mail, without what it costs to make the records."""
        spent = done = 0
        while done < mails:
            done += self.feed.push(time.time_ns())
            if done // OPEN % 4 and done < mails:
                continue
            begun = time.thread_time_ns()
            self.write()
            spent += time.thread_time_ns() - begun
        return spent / done / 1000


def pairs(make: Callable[[type[EveWriter | LineWriter]], Bench], rounds: int, mails: int) -> None:
    """Prints both writers' cost."""
    benches = {kind: make(kind) for kind in (EveWriter, LineWriter)}
    found: dict[type, list[float]] = {kind: [] for kind in benches}
    for turn in range(rounds + 1):
        for kind, bench in benches.items():
            cost = bench.cost(mails if kind is LineWriter else mails // 20)
            if turn:  # the first one warms up
                found[kind].append(cost)
    for kind, costs in found.items():
        print(f"{kind.__name__}: {_range(costs)} us of CPU a mail")
    ratios = [one / other for one, other in zip(*found.values(), strict=True)]
    print(f"ratio: {_range(ratios)}")
    written = [bench.writer.counters() for bench in benches.values()]
    lines = [one["events_written"] / max(1, one["mails.accepted"]) for one in written]
    print(f"lines a mail: {lines[0]:.2f}, {lines[1]:.2f}; records lost: {[one.feed.lost for one in benches.values()]}")


def paced(bench: Bench, rate: int, seconds: float) -> bool:
    """So many mails a second; whether none was lost and all came in time."""
    begun, cpu = time.monotonic(), time.thread_time()
    pushed = 0
    behind = 0.0
    while (now := time.monotonic() - begun) < seconds:
        due = now * rate
        if pushed >= due:
            time.sleep(min(0.001, (pushed - due) / rate))
            continue
        behind = max(behind, due - pushed)
        for _ in range(min(8, int(due - pushed) // OPEN + 1)):
            pushed += bench.feed.push(time.time_ns())
        bench.write()
    took, cpu = time.monotonic() - begun, time.thread_time() - cpu
    counted = bench.writer.counters()
    told, lost = counted["mails.accepted"], bench.feed.lost + bench.sink.lost
    print(
        f"{pushed:,} mails in {took:.1f} s: {pushed / took:,.0f} a second, {told:,} of them told, {lost} records or"
        f" lines lost; {100 * cpu / took:.0f} % of a CPU, {cpu / pushed * 1e6:.2f} us a mail, records made included;"
        f" at most {behind / rate * 1000:.0f} ms behind"
    )
    return not lost and told == pushed and pushed >= rate * seconds * 0.999


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mails", type=int, default=100_000, help="a round, of the fast writer")
    parser.add_argument("--rate", type=int, default=100_000, help="mails a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="0: not at a rate")
    parser.add_argument("--folder", type=Path, help="for the events; /dev/null is none")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        pairs(lambda kind: Bench(Path(folder) / kind.__name__, kind), options.rounds, options.mails)
        if not options.seconds:
            return 0
        return 0 if paced(Bench(Path(folder) / "eve.json", LineWriter), options.rate, options.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
