"""Connections that need no more inspection leave the queue, and only those."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from pyroute2 import Conntrack
from queue_router import FAMILY, SERVER, Router, router_or_skip

from nfmailguard.queues.kernel import queue_states

pytestmark = pytest.mark.live

Result = TypeVar("Result")
TLS = b"\x16\x03\x01\x00\x01\x00"
PORT = 40_025
OPTIONS = (
    "--mode",
    "enforce",
    "--profile",
    "asa",
    "--set",
    "commands.allow=*",
    "--set",
    "replies.ehlo=none",
    "--set",
    "limits.cookies=0",
)


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


class Talk:
    """A client and a server on one connection, each told what to say and to read."""

    def __init__(self, router: Router, version: int) -> None:
        self.router = router
        family, address = FAMILY[version], (SERVER[version], 25)

        def listen() -> socket.socket:
            listener = socket.create_server(address, family=family)
            listener.settimeout(60)
            return listener

        def connect() -> socket.socket:
            client = socket.socket(family)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("", PORT))
            client.settimeout(60)
            client.connect(address)
            return client

        with router.run(router.server, listen) as listener:
            self.client = router.run(router.client, connect)
            self.server, _ = listener.accept()
        self.server.settimeout(60)

    def say(self, sender: socket.socket, octets: bytes) -> bytes:
        """What the other side reads."""
        sender.sendall(octets)
        other = self.server if sender is self.client else self.client
        read = b""
        while len(read) < len(octets):
            read += other.recv(len(octets) - len(read))
        return read

    def start_tls(self) -> None:
        for sender, octets in (
            (self.server, b"220 mail ESMTP\r\n"),
            (self.client, b"EHLO a.example\r\n"),
            (self.server, b"250 STARTTLS\r\n"),
            (self.client, b"STARTTLS\r\n"),
            (self.server, b"220 go\r\n"),
            (self.client, TLS),
            (self.server, TLS),
        ):
            assert len(self.say(sender, octets)) == len(octets)

    def close(self) -> None:
        # RST: the ports are free at once.
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.client.close()
        self.server.close()
        time.sleep(0.1)


def gateway(router: Router, eve: Path, *more: str) -> subprocess.Popen[str]:
    return router.nfmailguard(*OPTIONS, "--set", f"log.eve={eve}", *more)


def inside(router: Router, function: Callable[[], Result]) -> Result:
    return router.run(router.gateway, function)


def forget_connections() -> None:
    with Conntrack() as table:
        table.flush()


def queued(router: Router) -> int:
    return inside(router, queue_states)[0].id_sequence


@pytest.mark.parametrize("version", [4, 6])
def test_tls_leaves_the_queue_and_the_next_connection_is_inspected(
    router: Router, tmp_path: Path, version: int
) -> None:
    eve = tmp_path / "eve.json"
    process = gateway(router, eve, "--set", "queue.offload=yes")
    try:
        talk = Talk(router, version)
        talk.start_tls()
        talk.say(talk.client, TLS)
        before = queued(router)
        for _ in range(50):
            # Not looked at: SMTP that would be reset or masked.
            assert talk.say(talk.client, b"\0EXPN x\r\n") == b"\0EXPN x\r\n"
            assert talk.say(talk.server, b"999 what\r\n") == b"999 what\r\n"
        assert queued(router) - before <= 2
        talk.close()
        again = Talk(router, version)
        before = queued(router)
        assert again.say(again.server, b"220 mail ESMTP\r\n") != b"220 mail ESMTP\r\n"
        for _ in range(10):
            again.say(again.client, b"NOOP\r\n")
            again.say(again.server, b"250 ok\r\n")
        assert queued(router) - before >= 20
        again.close()
    finally:
        process.terminate()
        process.communicate(timeout=60)
    stats = [json.loads(line)["stats"] for line in eve.read_text().splitlines() if '"stats"' in line][-1]
    assert stats["queue.settled"] >= 1
    assert stats["queue.uninspected"] == 0


def test_a_connection_that_conntrack_takes_for_the_servers_stays_in_the_queue(router: Router, tmp_path: Path) -> None:
    """Forgotten, and picked up at what the server says: conntrack makes nothing of the SYNs of the next one."""
    process = gateway(router, tmp_path / "eve.json", "--set", "queue.offload=yes")
    try:
        talk = Talk(router, 4)
        talk.start_tls()
        time.sleep(0.3)  # an ACK of the client's that is still to come would be the first packet
        inside(router, forget_connections)
        for sender in (talk.server, talk.client, talk.server):
            talk.say(sender, TLS)
        before = queued(router)
        for _ in range(20):
            assert talk.say(talk.client, b"\0EXPN x\r\n") == b"\0EXPN x\r\n"
        assert queued(router) - before >= 20
        talk.close()
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_without_it_tls_stays_in_the_queue_and_is_let_through(router: Router, tmp_path: Path) -> None:
    process = gateway(router, tmp_path / "eve.json")
    try:
        talk = Talk(router, 4)
        talk.start_tls()
        before = queued(router)
        for _ in range(10):
            assert talk.say(talk.client, b"\0EXPN x\r\n") == b"\0EXPN x\r\n"
        assert queued(router) - before >= 10
        talk.close()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_syn_that_only_knows_the_ports_brings_nothing_back_to_the_queue(router: Router, tmp_path: Path) -> None:
    process = gateway(router, tmp_path / "eve.json", "--set", "queue.offload=yes")
    try:
        talk = Talk(router, 4)
        talk.start_tls()
        talk.say(talk.client, TLS)
        before = queued(router)
        inside_client = [sys.executable, "-c", FORGED.format(server=SERVER[4], port=PORT)]
        with router.popen(router.client, inside_client) as forging:
            assert forging.wait(60) == 0
        time.sleep(0.2)
        assert queued(router) - before >= 1  # the SYN itself
        before = queued(router)
        for _ in range(20):
            assert talk.say(talk.client, b"\0EXPN x\r\n") == b"\0EXPN x\r\n"
        assert queued(router) - before <= 4  # the SYN, and one packet that is told again that the rest can go by
        talk.close()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_where_a_syn_may_reach_the_server_nothing_leaves_the_queue_behind_it(router: Router, tmp_path: Path) -> None:
    """A mark that a verdict carries may come behind the answer to the SYN, which takes the connection's away."""
    process = gateway(router, tmp_path / "eve.json", "--set", "queue.offload=yes", "--mode", "monitor")
    try:
        talk = Talk(router, 4)
        talk.start_tls()
        talk.say(talk.client, TLS)
        with router.popen(router.client, [sys.executable, "-c", FORGED.format(server=SERVER[4], port=PORT)]) as forging:
            assert forging.wait(20) == 0
        time.sleep(0.2)
        before = queued(router)
        for _ in range(20):
            assert talk.say(talk.client, b"\0EXPN x\r\n") == b"\0EXPN x\r\n"
        assert queued(router) - before >= 20
        talk.close()
    finally:
        process.terminate()
        process.communicate(timeout=20)


FORGED = """if 1:
    import logging
    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
    from scapy.all import IP, TCP, send
    send(IP(dst="{server}") / TCP(sport={port}, dport=25, flags="S", seq=99), verbose=False)
"""
