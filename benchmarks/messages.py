"""What inspecting costs mail: messages a second through the engine, beside an accept-all run of the same driver.

``python benchmarks/messages.py [ROUNDS]`` as root, with Postfix's smtp-source and smtp-sink.
Twenty sessions, one queue. The cases take turns within a round, so that their ratio holds on
a machine whose absolute speed wanders; figures are medians.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nfmailguard.engine import Engine
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Mode
from nfmailguard.queues.kernel import KernelQueue
from nfmailguard.ruleset import Ruleset

#: Octets a mail, and how many of them.
SIZES = ((1024, 4000), (10 * 1024, 3000), (1024 * 1024, 100))


def guarded(profile: str, mode: Mode) -> Callable[[], KernelQueue]:
    return lambda: KernelQueue(Engine([FlowRule(mode, load_profile(profile))]), 0)


CASES: dict[str, Callable[[], KernelQueue] | None] = {
    "no queue": None,
    "accept-all": lambda: KernelQueue(None, 0, accept_all=True),
    "monitor pix63": guarded("pix63", Mode.MONITOR),
    "enforce pix63": guarded("pix63", Mode.ENFORCE),
    "enforce asa": guarded("asa", Mode.ENFORCE),
}


@contextmanager
def gateway(topology: Topology, make: Callable[[], KernelQueue] | None) -> Iterator[None]:
    """The queue runs while the block does, in a thread on the gateway."""
    if make is None:
        yield
        return
    with topology.enter(GATEWAY):
        queue, rules = make(), Ruleset(0, 0, [25], ["forward"])
        queue.open()
        rules.apply()
    thread = threading.Thread(target=queue.run)
    thread.start()
    try:
        yield
    finally:
        with topology.enter(GATEWAY):
            rules.remove()
        queue.stop()
        thread.join()
        queue.close()


def rate(topology: Topology, make: Callable[[], KernelQueue] | None, size: int, count: int) -> float:
    """Messages a second."""
    target = f"{topology.address(SERVER)}:25"
    command = [
        "smtp-source",
        "-s",
        "20",
        "-m",
        str(count),
        "-l",
        str(size),
        "-f",
        "a@example.net",
        "-t",
        "b@example.com",
    ]
    with gateway(topology, make):
        start = time.perf_counter()
        topology.run(CLIENT, [*command, target], check=True, stdout=subprocess.DEVNULL)
        return count / (time.perf_counter() - start)


def main(rounds: int) -> None:
    os.environ["PATH"] += ":/usr/sbin"
    if not shutil.which("smtp-source"):
        sys.exit("benchmarks/messages.py: no smtp-source here; apt-get install postfix")
    with Topology(f"bench{os.getpid()}-") as topology:
        sink = ["smtp-sink", "-u", "nobody", f"{topology.address(SERVER)}:25", "1000"]
        topology.popen(SERVER, sink)
        time.sleep(0.5)
        for size, count in SIZES:
            figures: dict[str, list[float]] = {name: [] for name in CASES}
            for done in range(rounds):
                for name, make in CASES.items():
                    figures[name].append(rate(topology, make, size, count))
                print(f"{size >> 10} KiB: round {done + 1} of {rounds}", file=sys.stderr)
            for name, rates in figures.items():
                ratios = [one / base for one, base in zip(rates, figures["accept-all"], strict=True)]
                print(
                    f"{size >> 10:5} KiB  {name:14} {statistics.median(rates):8.0f} messages/s"
                    f"   x {statistics.median(ratios):.2f} of accept-all ({min(ratios):.2f}-{max(ratios):.2f})"
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
