"""What inspecting costs bulk mail when segments are lost: the engine beside an accept-all run of the same driver.

``python benchmarks/loss.py [--pairs N] [--megabytes N] [--flows N] [--congestion cubic] [--json FILE]``
as root. One queue, kernel driver with GSO; one message of so many megabytes a flow. Segments are lost
by chance in both directions of one link, beyond the gateway or before it. The cases take turns within
a round, each round beginning with another one, and every run has its own queue and engine; ratios are
to the accept-all run of the same round. The second accept-all shows what such a ratio is worth.
Rates are of message text, from the 354 to the reply to its end. CPU time is the queue thread's, and
much of it not ours: what a verdict sends on is segmented, carried over the link and received in it.
It wanders less than rates do where other work shares the machine. Steadiest is the last figure: the
engine alone, deciding a recording of what reached the queue, file reading taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from nfmailguard.engine import Engine
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Mode
from nfmailguard.queues.capture import CaptureFile
from nfmailguard.queues.kernel import KernelQueue
from nfmailguard.queues.tap import Tap
from nfmailguard.ruleset import Ruleset
from tests.support.lossy import BEFORE, BEYOND, Fates, LossyTopology

#: Which link loses what share of its segments.
ROWS = ((BEYOND, 0.0), (BEYOND, 0.001), (BEYOND, 0.01), (BEFORE, 0.001), (BEFORE, 0.01))
WHERE = {BEYOND: "beyond the gateway", BEFORE: "before the gateway"}
BASE, BASE_AGAIN = "accept-all", "accept-all again"

SINK = """if 1:
    import socket, sys, threading

    def serve(connection):
        buffer = bytearray(1 << 20)
        view = memoryview(buffer)
        said = connection.makefile("rb")
        connection.sendall(b"220 mail.example.com ESMTP\\r\\n")
        while (line := said.readline()) and not line.startswith(b"QUIT"):
            if line.startswith(b"DATA"):
                connection.sendall(b"354 go\\r\\n")
                octets, tail = 0, b""
                while not tail.endswith(b"\\r\\n.\\r\\n"):
                    got = connection.recv_into(buffer)
                    octets += got
                    tail = (tail + bytes(view[max(got - 5, 0):got]))[-5:]
                    if not got:
                        sys.exit("the message was cut off")
                connection.sendall(b"250 %d\\r\\n" % octets)
            else:
                connection.sendall(b"250 ok\\r\\n")

    with socket.create_server((sys.argv[1], 25), backlog=100) as server:
        print("ready", flush=True)
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

SOURCE = """if 1:
    import random, socket, sys, time

    chance = random.Random(1)
    # Prose: a dot in every twelve words or so, some at the end of a line.
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randint(1, 10))) for _ in range(1000)]
    words += [word + b"." for word in words[:90]]
    block = b"".join(b" ".join(chance.choices(words, k=12)) + b"\\r\\n" for _ in range(14_000))
    blocks = int(sys.argv[2]) * 1_000_000 // len(block)
    header = b"From: a@example.net\\r\\nTo: b@example.com\\r\\nSubject: bulk\\r\\n\\r\\n"
    octets = len(header) + blocks * len(block) + 3
    with socket.create_connection((sys.argv[1], 25)) as connection, connection.makefile("rb") as replies:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, sys.argv[3].encode())
        replies.readline()
        for command in (b"HELO a.example", b"MAIL FROM:<a@example.net>", b"RCPT TO:<b@example.com>", b"DATA"):
            connection.sendall(command + b"\\r\\n")
            reply = replies.readline()
        assert reply.startswith(b"354"), reply
        begun = time.monotonic()
        connection.sendall(header)
        for _ in range(blocks):
            connection.sendall(block)
        connection.sendall(b".\\r\\n")
        reply = replies.readline()
        ended = time.monotonic()
        assert reply == b"250 %d\\r\\n" % octets, (reply, octets)
        connection.sendall(b"QUIT\\r\\n")
        print(begun, ended, octets)
"""


def guarded(profile: str, mode: Mode) -> Callable[[], Engine]:
    return lambda: Engine([FlowRule(mode, load_profile(profile))])


#: Each case's engine; None accepts everything.
CASES: dict[str, Callable[[], Engine] | None] = {
    BASE: None,
    BASE_AGAIN: None,
    "monitor pix63": guarded("pix63", Mode.MONITOR),
    "enforce pix63": guarded("pix63", Mode.ENFORCE),
    "enforce asa": guarded("asa", Mode.ENFORCE),
}


class Run(dict[str, float]):
    """Figures of one run by name: ``rate`` in MB/s, ``cpu`` in seconds a GB, and every counter that is not 0."""


@contextmanager
def gateway(topology: Topology, case: str, figures: Run, tap: Tap | None) -> Iterator[None]:
    """The queue runs while the block does, in a thread on the gateway; its counters go to ``figures``."""

    def work() -> None:
        queue.run()
        figures["cpu"] = time.thread_time()

    make = CASES[case]
    engine = make() if make else None
    with topology.enter(GATEWAY):
        queue = KernelQueue(engine, 0, accept_all=engine is None, tap=tap)
        rules = Ruleset(0, 0, [25], ["forward"])
        queue.open()
        rules.apply()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        with topology.enter(GATEWAY):
            rules.remove()
            counters = {f"queue.{name}": value for name, value in queue.counters().items()}
        queue.stop()
        thread.join()
        queue.close()
        figures.update({name: value for name, value in counters.items() if value})
        if engine:
            figures.update({name: value for name, value in engine.counters().items() if value})


def run(topology: Topology, case: str, options: argparse.Namespace, tap: Tap | None = None) -> Run:
    figures = Run()
    command = [sys.executable, "-c", SOURCE, topology.address(SERVER), str(options.megabytes), options.congestion]
    with gateway(topology, case, figures, tap):
        sources = [topology.popen(CLIENT, command, stdout=subprocess.PIPE, text=True) for _ in range(options.flows)]
        told = [source.communicate()[0].split() for source in sources]
    if not all(told):
        sys.exit(f"benchmarks/loss.py: {case}: a message did not arrive: {figures}")
    seconds = max(float(ended) for _, ended, _ in told) - min(float(begun) for begun, _, _ in told)
    total = sum(int(octets) for _, _, octets in told)
    figures["rate"] = total / 1e6 / seconds
    figures["cpu"] *= 1e9 / total
    return figures


def row(
    where: int, loss: float, options: argparse.Namespace
) -> tuple[dict[str, list[Run]], dict[str, float], dict[str, dict[str, int]]]:
    """Every case's runs on a link that loses, the engines' cost alone, and what the link counted."""
    runs: dict[str, list[Run]] = {case: [] for case in options.cases}
    topology = LossyTopology({where: Fates(loss)}, in_kernel=True, prefix=f"loss{os.getpid()}-")
    with topology:
        sink = [sys.executable, "-c", SINK, topology.address(SERVER)]
        server = topology.popen(SERVER, sink, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        server.stdout.readline()
        for done in range(options.pairs):
            turn = done % len(options.cases)
            for case in options.cases[turn:] + options.cases[:turn]:
                runs[case].append(run(topology, case, options))
            print(f"{loss:.1%} {WHERE[where]}: round {done + 1} of {options.pairs}", file=sys.stderr)
        costs = alone(topology, options)
        topology.stop_links()
    return runs, costs, topology.counts[where]


def alone(topology: Topology, options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds a GB of each engine by itself, on what reached the queue in one accept-all run."""
    figures: dict[str, list[float]] = {case: [] for case in options.cases if case != BASE_AGAIN}
    with tempfile.TemporaryDirectory() as scratch:
        taken = Path(scratch, "bulk.pcap")
        run(topology, BASE, options, Tap(str(taken)))
        for _ in range(options.pairs):
            for case, seconds in figures.items():
                make = CASES[case]
                driver = CaptureFile(make() if make else None, taken, accept_all=make is None)
                driver.open()
                begun = time.thread_time()
                driver.run()
                seconds.append((time.thread_time() - begun) * 1e9 / taken.stat().st_size)
                driver.close()
    reading = statistics.median(figures[BASE])
    return {case: statistics.median(seconds) - reading for case, seconds in figures.items() if case != BASE}


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratios(runs: dict[str, list[Run]], case: str, what: str) -> list[float]:
    return [mine[what] / base[what] for mine, base in zip(runs[case], runs[BASE], strict=True)]


def told(runs: list[Run]) -> str:
    """Medians of the counters that say how the engine fared."""
    names = ("out_of_order", "retransmissions", "held", "replaced", "dropped", "flows_reset", "flows_passed")
    streams = {name for one in runs for name in one if name.startswith("finding.stream.")}
    medians = {name: statistics.median(one.get(name, 0) for one in runs) for name in (*names, *sorted(streams))}
    return ", ".join(f"{name} {median:.0f}" for name, median in medians.items() if median)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--flows", type=int, default=1)
    parser.add_argument("--congestion", default="cubic", help="the client's congestion control")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=list(CASES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the lab is taken down, too
    if BASE not in options.cases:
        options.cases.insert(0, BASE)
    report = []
    for where, loss in ROWS:
        runs, costs, link = row(where, loss, options)
        print(f"\n{loss:.1%} lost {WHERE[where]}; {link}")
        for case in options.cases:
            rate, cpu = ([one[name] for one in runs[case]] for name in ("rate", "cpu"))
            print(
                f"  {case:16} {spread(rate, 0):>16} MB/s   x {spread(ratios(runs, case, 'rate'), 2)}"
                f"   CPU {statistics.median(cpu):.2f} s/GB   x {spread(ratios(runs, case, 'cpu'), 2)}"
                f"   {told(runs[case])}",
                flush=True,
            )
        print("  engine alone: " + ", ".join(f"{case} {cost:.2f} s/GB" for case, cost in costs.items()), flush=True)
        report.append({"where": WHERE[where], "loss": loss, "link": link, "alone": costs, "runs": runs})
    if options.json:
        about = {**vars(options), "json": str(options.json), "kernel": platform.release(), "cpus": os.cpu_count()}
        options.json.write_text(json.dumps({"options": about, "rows": report}, indent=1))


if __name__ == "__main__":
    main()
