"""``on.queue_full`` and ``on.no_listener``: the kernel decides them, so they are met on a real queue."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nfmailguard.lab.servers import Gateway
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology
from nfmailguard.ruleset import installed

pytestmark = pytest.mark.live

LENGTH = 8
CONNECTIONS = 20
#: What is configured, and what the kernel is to do; tests/unit/test_config.py has all the others.
WAYS = [
    (("--mode", "enforce"), None, "drop"),
    (("--mode", "enforce"), "pass", "pass"),
    (("--mode", "monitor"), None, "pass"),
    (("--mode", "monitor"), "drop", "drop"),
]


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"nc{os.getpid()}-") as made:
        yield made


@contextlib.contextmanager
def connecting(topology: Topology, count: int) -> Iterator[list[socket.socket]]:
    """Connections of the client that have been asked for, and a server that accepts them."""
    address = (topology.address(SERVER), 25)
    with contextlib.ExitStack() as stack:
        with topology.enter(SERVER):
            stack.enter_context(socket.create_server(address, backlog=4 * CONNECTIONS))
        clients = []
        with topology.enter(CLIENT):
            for _ in range(count):
                clients.append(stack.enter_context(socket.socket()))
                clients[-1].setblocking(False)
                clients[-1].connect_ex(address)
        yield clients


def connected(clients: Sequence[socket.socket], seconds: float) -> int:
    """How many have been established by then."""
    deadline = time.monotonic() + seconds
    done: set[socket.socket] = set()
    while len(done) < len(clients) and (left := deadline - time.monotonic()) > 0:
        done |= set(select.select([], [client for client in clients if client not in done], [], left)[1])
    return len(done)


def stop(pid: int) -> None:
    """A reader that reads no more; its queue stays bound."""
    os.kill(pid, signal.SIGSTOP)
    states = [Path(path, "stat") for path in Path(f"/proc/{pid}/task").iterdir()]
    while any(state.read_text().rpartition(")")[2].split()[0] != "T" for state in states):
        time.sleep(0.005)


def option(condition: str, action: str | None) -> tuple[str, ...]:
    return ("--set", f"on.{condition}={action}") if action else ()


@pytest.mark.parametrize(("mode", "action", "done"), WAYS)
def test_a_full_queue_drops_or_passes_and_both_are_counted(
    topology: Topology, tmp_path: Path, mode: tuple[str, ...], action: str | None, done: str
) -> None:
    options = (*mode, *option("queue_full", action), "--set", f"queue.length={LENGTH}")
    with Gateway(topology, tmp_path, *options) as gateway:
        stop(gateway.process.pid)
        try:
            with connecting(topology, CONNECTIONS) as clients:
                early = connected(clients, 0.5)
                gateway.process.send_signal(signal.SIGCONT)
                # What waited is answered now, and what was dropped is sent again.
                assert connected(clients, 5) == CONNECTIONS
        finally:
            gateway.process.send_signal(signal.SIGCONT)
    stats = gateway.events("stats")[-1]["stats"]
    if "queue.uninspected" not in stats:
        pytest.skip("the kernel shows its queues to the machine's root alone")
    if done == "drop":
        assert early == 0
        assert stats["queue.kernel_queue_dropped"] >= CONNECTIONS - LENGTH
        assert stats["queue.uninspected"] == 0
    else:
        assert CONNECTIONS - LENGTH <= early < CONNECTIONS
        assert stats["queue.kernel_queue_dropped"] == 0
        # SYN, SYN and ACK, ACK of each that got through.
        assert stats["queue.uninspected"] >= 3 * early
        assert stats["queue.rule_packets"] >= stats["queue.uninspected"] + stats["packets"]


@pytest.mark.parametrize(("mode", "action", "done"), WAYS)
def test_without_a_listener_packets_are_dropped_or_pass_and_the_rule_counts_them(
    topology: Topology, tmp_path: Path, mode: tuple[str, ...], action: str | None, done: str
) -> None:
    with Gateway(topology, tmp_path, *mode, *option("no_listener", action)) as gateway:
        gateway.process.send_signal(signal.SIGKILL)
        gateway.process.wait()
        with topology.enter(GATEWAY):
            before = installed()
        with connecting(topology, 2) as clients:
            assert connected(clients, 0.5) == (2 if done == "pass" else 0)
        with topology.enter(GATEWAY):
            after = installed()
    topology.run(
        GATEWAY, [sys.executable, "-m", "nfmailguard", "rules", "remove"], check=True, stdout=subprocess.DEVNULL
    )
    assert before is not None
    assert after is not None
    assert after.packets - before.packets >= (6 if done == "pass" else 2)
