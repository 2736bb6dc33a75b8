"""The driver on the NetfilterQueue package, on a real queue, with the package's limits respected."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from queue_router import Router, engine, router_or_skip

from nfmailguard.errors import QueueError
from nfmailguard.queues.netfilterqueue import PackageQueue
from nfmailguard.queues.tap import Tap

pytestmark = pytest.mark.live

BULK = random.Random(2).randbytes(4_000_000)


@contextmanager
def running(router: Router, queue: PackageQueue) -> Iterator[Future[None]]:
    router.run(router.gateway, queue.open)
    loop = router.start(router.gateway, queue.run)
    try:
        yield loop
    finally:
        queue.stop()
        loop.result(60)
        router.run(router.gateway, queue.close)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("accept_all", [False, True])
def test_bulk_arrives_intact_each_packet_with_one_verdict(version: int, accept_all: bool, tmp_path: Path) -> None:
    core = engine(can_hold=False)
    tap = Tap(str(tmp_path / "in.pcap"), str(tmp_path / "out.pcap"))
    queue = PackageQueue(core, 5, accept_all=accept_all, tap=tap)
    with router_or_skip() as router:
        router.queue(5, version=version)
        with running(router, queue):
            assert router.transfer(BULK, version) == BULK
    counters = queue.counters()
    assert counters["packets"] == counters["accepted"] == counters["tap_outgoing"] > 1000
    assert counters["truncated"] == counters["verdict_errors"] == counters["enobufs"] == 0
    assert core.counters()["packets"] == (0 if accept_all else counters["packets"])
    assert (tmp_path / "in.pcap").read_bytes() == (tmp_path / "out.pcap").read_bytes()


def test_packets_longer_than_the_package_copies_pass_whole() -> None:
    queue = PackageQueue(engine(can_hold=False), 5)
    with router_or_skip(mtu=9000) as router:
        router.queue(5)
        with running(router, queue):
            assert router.transfer(BULK) == BULK
    counters = queue.counters()
    assert counters["truncated"] > 100
    assert counters["bytes"] > len(BULK)
    assert counters["packets"] == counters["accepted"]


def test_stopping_in_the_middle_leaves_the_connection_to_the_next_driver() -> None:
    first, second = (PackageQueue(engine(can_hold=False), 5) for _ in range(2))
    with router_or_skip() as router:
        router.queue(5)
        router.run(router.gateway, first.open)
        loop = router.start(router.gateway, first.run)
        following: list[Future[None]] = []

        def change_over() -> None:
            first.stop()
            loop.result(60)
            first.close()
            router.run(router.gateway, second.open)
            following.append(router.start(router.gateway, second.run))

        assert router.transfer(BULK, during=change_over) == BULK
        second.stop()
        following[0].result(60)
        second.close()
        second.close()
    assert min(first.counters()["accepted"], second.counters()["accepted"]) > 0


def test_a_taken_queue_is_one_line_that_names_the_holder() -> None:
    first, second = (PackageQueue(None, 5, accept_all=True) for _ in range(2))
    with router_or_skip() as router:
        router.run(router.gateway, first.open)
        with pytest.raises(QueueError, match=rf"^queue 5 is taken by process {os.getpid()} \(.*\); stop that or use"):
            router.run(router.gateway, second.open)
        first.close()
        router.run(router.gateway, second.open)
        second.close()
