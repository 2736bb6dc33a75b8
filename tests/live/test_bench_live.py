"""Candidates on a real queue: each is measured, and leaves nothing behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from queue_router import Router, router_or_skip

from nfmailguard.bench.attach import attach
from nfmailguard.bench.candidates import Candidate
from nfmailguard.bench.course import Course
from nfmailguard.bench.queue import Size, queue
from nfmailguard.errors import BenchError, LabError

pytestmark = pytest.mark.live


@pytest.fixture
def course() -> object:
    try:
        return Course()
    except LabError as error:
        pytest.skip(str(error))


def test_every_candidate_carries_mail(course: object) -> None:
    found = queue(1, lambda _: None, own_load=True, sizes=(Size("1 KiB", 1024, 60),))
    cases = found.groups["1 KiB"]
    assert {"no queue", "accept-all", "enforce pix63", "monitor pix63", "restore pix63", "C accept-all"} <= set(cases)
    assert all(figures["rate"][0] > 0 for figures in cases.values())
    assert all(figures["CPU"][0] > 0 for case, figures in cases.items() if case != "no queue")
    assert not list(Path("/run/netns").glob(f"bench{os.getpid()}-*"))


def test_a_candidate_that_does_not_begin_is_an_error_and_no_figure(course: Course) -> None:
    broken = Candidate("broken", (sys.executable, "-c", "raise SystemExit(3)"))
    with course, pytest.raises(BenchError, match="broken does not begin"), course.running(broken):
        pass


def test_attach_tells_what_a_queue_of_this_machine_does(tmp_path: Path) -> None:
    with router_or_skip() as router:
        looked = _attached(router, tmp_path)
    assert "its reader" in looked.groups["queue 0"]
    assert max(looked.values("queue 0", "its reader", "rate")) > 0
    assert sum(looked.values("queue 0", "its reader", "CPU")) > 0
    with router_or_skip() as router, pytest.raises(BenchError, match="nobody reads queue 7"):
        router.run(router.gateway, lambda: attach(7, 1, lambda _: None))


def _attached(router: Router, scratch: Path):  # type: ignore[no-untyped-def]
    command = [sys.executable, "-m", "nfmailguard", "run", "-c", os.devnull, "--set", "service.control="]
    gateway = router.popen(router.gateway, command)
    assert gateway.stdout is not None
    gateway.stdout.readline()
    try:
        knock = [sys.executable, "-c", KNOCK]
        with router.popen(router.client, knock) as knocks:
            try:
                return router.run(router.gateway, lambda: attach(0, 2, lambda _: None))
            finally:
                knocks.kill()
    finally:
        gateway.terminate()
        gateway.communicate(timeout=60)


KNOCK = """if 1:
    import socket, time
    while True:
        with socket.socket() as one:
            one.setblocking(False)
            one.connect_ex(("10.99.2.2", 25))
            time.sleep(0.002)
"""
