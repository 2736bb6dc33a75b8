"""A queue's worker: what of it is wrong at a moment, and whether its loop turns."""

from __future__ import annotations

from typing import Any

import pytest

from nfmailguard.config import load
from nfmailguard.engine import flows_at_once
from nfmailguard.queues.kernel import QueueStates
from nfmailguard.service.worker import QueueWorker


@pytest.fixture
def worker() -> QueueWorker:
    config = load(None, ["queue.length=1000", "limits.memory=67108864", "limits.held_packets=200"])
    return QueueWorker(config, config.flow_rules(), 3, None)


def test_it_is_well_when_nothing_is_full(worker: QueueWorker) -> None:
    assert worker.troubles() == {}
    assert worker.standing() == {
        **dict.fromkeys(
            (
                "waiting",
                "packets",
                "held",
                "flows",
                "kernel_queue_dropped",
                "kernel_user_dropped",
                "dropped_by_kernel",
                "socket_overruns",
            ),
            0,
        ),
        "number": 3,
        "length": 1000,
        "most_held": 200,
        "most_flows": flows_at_once(load(None, ["limits.memory=67108864"]).limits),
        "most_memory": 67108864,
        "memory": worker.engine.counters()["memory_now"],
        "records_lost": 0,
    }


@pytest.mark.parametrize(
    ("standing", "name"),
    [
        ({"waiting": 901}, "queue 3 full"),
        ({"memory": 61_000_000}, "queue 3 memory"),
        ({"held": 181, "waiting": 181}, "queue 3 held"),
    ],
)
def test_what_is_nearly_full_is_named(
    worker: QueueWorker, monkeypatch: pytest.MonkeyPatch, standing: dict[str, int], name: str
) -> None:
    well: dict[str, Any] = worker.standing()
    monkeypatch.setattr(worker, "standing", lambda: {**well, **standing})
    assert list(worker.troubles()) == [name]


def test_packets_that_wait_and_are_not_read_stall_it(worker: QueueWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    now: dict[str, Any] = dict(worker.standing())
    monkeypatch.setattr(worker, "standing", lambda: dict(now))
    found = []
    # Held ones wait for their flow; of the others, two looks without one that is read.
    for packets, waiting, held in ((5, 4, 4), (5, 4, 4), (5, 9, 4), (5, 9, 4), (6, 9, 4), (6, 0, 0), (6, 1, 0)):
        now.update(packets=packets, waiting=waiting, held=held)
        found.append("queue 3 stalled" in worker.troubles())
    assert found == [False, False, False, True, False, False, False]


def test_a_worker_whose_thread_does_not_run_has_not_moved(worker: QueueWorker) -> None:
    assert not worker.moved(QueueStates())
    assert not worker.moved(QueueStates())
