"""What systemd is told: nothing without it, and by the watchdog only what is true."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nfmailguard.service.notices import MOST, PERIOD, Notices
from nfmailguard.service.notify import Systemd


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "notify"))
    made.settimeout(10)
    return made


def waiting(manager: socket.socket) -> list[bytes]:
    """What has come and was not looked at."""
    manager.setblocking(False)
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(manager.recv(1000))
    return found


def test_it_is_told_once_asked_for(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "HOME": "/"}
    systemd = Systemd(environment)
    assert environment == {"HOME": "/"}
    systemd.ready("monitor pix63\nREADY=0")
    assert manager.recv(1000) == b"READY=1\nSTATUS=monitor pix63 READY=0"
    systemd.reloading()
    reloading, since = manager.recv(1000).split(b"\n")
    assert reloading == b"RELOADING=1"
    assert 0 <= time.monotonic_ns() // 1000 - int(since.removeprefix(b"MONOTONIC_USEC=")) < 10_000_000
    systemd.stopping()
    assert manager.recv(1000) == b"STOPPING=1"
    manager.close()
    systemd.ready("nobody listens")


def test_a_manager_that_does_not_read_is_waited_for_a_moment_and_not_asked_over_and_over(
    manager: socket.socket,
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler, suppress(BlockingIOError):
        filler.setblocking(False)
        filler.connect(manager.getsockname())
        while True:
            filler.send(b"x")
    began, used = time.monotonic(), time.thread_time()
    Systemd({"NOTIFY_SOCKET": manager.getsockname()}).ready("x")
    assert 0.5 < time.monotonic() - began < 10
    assert time.thread_time() - used < 0.2
    manager.close()


def test_without_systemd_nothing_happens() -> None:
    systemd = Systemd({})
    systemd.ready("x")
    systemd.watch(lambda: pytest.fail("asked"))
    systemd.stopping()


@pytest.mark.parametrize(("process", "fed"), [("ours", True), ("", True), ("1", False)])
def test_the_watchdog_is_fed_only_while_loops_turn(manager: socket.socket, process: str, fed: bool) -> None:
    address = manager.getsockname()
    systemd = Systemd(
        {
            "NOTIFY_SOCKET": address,
            "WATCHDOG_USEC": "100000",
            "WATCHDOG_PID": str(os.getpid()) if process == "ours" else process,
        }
    )
    turns = [fed]
    systemd.watch(lambda: turns[0])
    if fed:
        for _ in range(3):
            assert manager.recv(1000) == b"WATCHDOG=1"
        turns[0] = False
        time.sleep(0.1)
        waiting(manager)  # what was on its way
    time.sleep(0.3)
    assert waiting(manager) == []
    systemd.stopping()
    manager.close()


def test_of_a_flood_of_lines_the_first_are_told_and_how_many_were_not() -> None:
    lines: list[str] = []
    now = [0.0]
    notices = Notices(lines.append, lambda: now[0])
    for number in range(MOST + 30):
        notices.tell(f"nfmailguard: SIGHUP: {number}")
    notices.tell("nfmailguard: degraded: records_lost: 3 events")
    assert len(lines) == MOST
    notices.look()
    assert len(lines) == MOST
    now[0] = PERIOD
    notices.look()
    assert lines[MOST:] == ["nfmailguard: too many lines; not shown: 30 SIGHUP, 1 degraded"]
    notices.tell("nfmailguard: again")
    assert lines[-1] == "nfmailguard: again"
    notices.last()
    assert lines[-1] == "nfmailguard: again"
