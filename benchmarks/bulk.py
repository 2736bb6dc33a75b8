"""What a queue costs bulk TCP: one flow over veth, with no queue and through an accept-all loop.

``python benchmarks/bulk.py [MEGABYTES] [ROUNDS]`` as root. The cases take turns within a round,
so that their ratio holds on a machine whose absolute speed wanders. Copy range 65,531, one
queue of 4,096, batches of up to 64, one thread.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "live"))

from queue_router import Router

from nfmailguard.queues.kernel import KernelQueue

PEER = """if 1:
    import socket, sys
    address, octets = ("10.99.2.2", 2525), int(sys.argv[2])
    if sys.argv[1] == "server":
        with socket.create_server(address) as server:
            print("ready", flush=True)
            connection, _ = server.accept()
            buffer = bytearray(1 << 20)
            while octets:
                octets -= connection.recv_into(buffer)
    else:
        block = bytes(1 << 20)
        with socket.create_connection(address) as connection:
            for _ in range(octets >> 20): connection.sendall(block)
"""


def rate(router: Router, megabytes: int) -> float:
    octets = str(megabytes << 20)
    server = router.popen(router.server, [sys.executable, "-c", PEER, "server", octets])
    with server:
        assert server.stdout is not None
        server.stdout.readline()
        start = time.perf_counter()
        with router.popen(router.client, [sys.executable, "-c", PEER, "client", octets]):
            server.wait()
    return megabytes * 1.048576 / (time.perf_counter() - start)


def queued(router: Router, megabytes: int, *, gso: bool) -> float:
    queue = KernelQueue(None, 5, accept_all=True, gso=gso)
    router.run(router.gateway, queue.open)
    loop = router.start(router.gateway, queue.run)
    result = rate(router, megabytes)
    counters = router.run(router.gateway, queue.counters)
    queue.stop()
    loop.result(5)
    queue.close()
    assert counters["enobufs"] == counters["kernel_queue_dropped"] == counters["verdict_errors"] == 0
    return result


def main(megabytes: int = 2000, rounds: int = 5) -> None:
    free, guarded = Router(), Router()
    guarded.queue(5)
    cases: dict[str, Callable[[], float]] = {
        "no queue": lambda: rate(free, megabytes),
        "accept-all, GSO": lambda: queued(guarded, megabytes, gso=True),
        "accept-all, no GSO": lambda: queued(guarded, megabytes, gso=False),
    }
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            measured[name].append(measure())
    for name, rates in measured.items():
        ratios = [mine / none for mine, none in zip(rates, measured["no queue"], strict=True)]
        print(
            f"{name:20s} {statistics.median(rates):7.0f} MB/s ({min(rates):.0f}-{max(rates):.0f})"
            f"  x {statistics.median(ratios):.2f} of no queue"
        )
    free.close()
    guarded.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
