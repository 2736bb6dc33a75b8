"""A router between two peers, for the queue drivers' tests: three namespaces of this process's own.

They have no names and leave with their last file descriptor. What runs inside one does so
in a thread that entered it; sockets made there stay there. The rule that queues is the
NFQUEUE target, which every kernel with NFQUEUE has.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from pyroute2 import IPRoute
from pyroute2.nftables.expressions import genex
from pyroute2.nftables.main import NFTables

from nfmailguard.engine import Engine
from nfmailguard.policy.load import load_profile
from nfmailguard.policy.model import FlowRule, Mode

Result = TypeVar("Result")
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
IFA_F_NODAD = 2
SERVER = {4: "10.99.2.2", 6: "fd99:2::2"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
NFPROTO = {4: 2, 6: 10}
META_MARK, META_L4PROTO = 3, 16


def engine(mode: Mode = Mode.MONITOR, *, can_hold: bool = True) -> Engine:
    """Port 25 under pix63; every other port goes through the core uninspected."""
    return Engine([FlowRule(mode, load_profile("pix63"))], can_hold=can_hold)


@contextmanager
def router_or_skip(mtu: int = 1500) -> Iterator[Router]:
    try:
        router = Router(mtu)
    except PermissionError as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        yield router
    finally:
        router.close()


class Router:
    """``client`` - ``gateway`` - ``server``; 10.99.1.2 and fd99:1::2 reach 10.99.2.2 and fd99:2::2."""

    def __init__(self, mtu: int = 1500) -> None:
        self.mtu = mtu
        self.client, self.gateway, self.server = (new_namespace() for _ in range(3))
        self.run(self.gateway, lambda: self._links({"veth-c": (self.client, 1), "veth-s": (self.server, 2)}))
        self.run(self.client, lambda: configure("eth0", 1, 2, self.mtu, route=True))
        self.run(self.server, lambda: configure("eth0", 2, 2, self.mtu, route=True))
        for namespace in (self.client, self.gateway, self.server):
            self.run(namespace, wait_for_carriers)

    def close(self) -> None:
        for namespace in (self.client, self.gateway, self.server):
            os.close(namespace)

    def _links(self, peers: dict[str, tuple[int, int]]) -> None:
        for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path(f"/proc/sys/net/{switch}").write_text("1")
        with IPRoute() as ip:
            for name, (namespace, net) in peers.items():
                # The kernel tells of a carrier at once only where the two ends have different indexes;
                # else up to a second later, and until then neighbour discovery is lost.
                peer = {"ifname": "eth0", "net_ns_fd": namespace}
                ip.link("add", ifname=name, index=100 + net, kind="veth", peer=peer)
        for name, (_, net) in peers.items():
            configure(name, net, 1, self.mtu)

    def queue(
        self, number: int, *, protocol: int = 6, version: int = 4, mark: int | None = None, hook: str = "forward"
    ) -> None:
        """Packets of one protocol, and with ``mark`` only those that carry it, to the queue."""

        def apply() -> None:
            match = [genex("meta", {"key": META_L4PROTO, "dreg": 1}), equal(struct.pack("B", protocol))]
            if mark is not None:
                match += [genex("meta", {"key": META_MARK, "dreg": 1}), equal(struct.pack("=I", mark))]
            target = {"name": "NFQUEUE", "rev": 3, "info": struct.pack("=HHHxx", number, 1, 0)}
            with NFTables(nfgen_family=NFPROTO[version]) as nft:
                nft.table("add", name="queued")
                nft.chain("add", table="queued", name="chain", hook=hook, type="filter", priority=0, policy=1)
                nft.rule("add", table="queued", chain="chain", expressions=([*match, genex("target", target)],))

        self.run(self.gateway, apply)

    def popen(self, namespace: int, command: list[str]) -> subprocess.Popen[str]:
        return self.run(namespace, lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def nfmailguard(self, *options: str) -> subprocess.Popen[str]:
        """``nfmailguard run`` on the gateway with these options and no configuration, once it is ready."""
        command = [sys.executable, "-m", "nfmailguard", "run", "-c", os.devnull, "--set", "service.control=", *options]
        process = self.popen(self.gateway, command)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("nfmailguard: ready")
        return process

    def start(self, namespace: int, function: Callable[[], Result]) -> Future[Result]:
        """Runs ``function`` inside ``namespace`` in a thread of its own."""
        future: Future[Result] = Future()

        def inside() -> None:
            try:
                check(LIBC.setns(namespace, CLONE_NEWNET))
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits
                future.set_exception(error)

        threading.Thread(target=inside, daemon=True).start()
        return future

    def transfer(self, data: bytes, version: int = 4, during: Callable[[], object] | None = None) -> bytes:
        """What the server gets of ``data``, sent by the client over one connection; ``during`` runs halfway."""
        address = (SERVER[version], 2525)
        listening: Future[None] = Future()

        def serve() -> bytes:
            with socket.create_server(address, family=FAMILY[version]) as server:
                listening.set_result(None)
                connection, _ = server.accept()
                with connection:
                    return b"".join(iter(lambda: connection.recv(1 << 20), b""))

        def send() -> None:
            with socket.create_connection(address, timeout=30) as connection:
                connection.sendall(data[: len(data) // 2])
                if during:
                    during()
                connection.sendall(data[len(data) // 2 :])

        received = self.start(self.server, serve)
        listening.result(60)
        self.run(self.client, send)
        return received.result(60)

    def datagrams(self, payloads: list[bytes], expect: int) -> tuple[socket.socket, list[bytes]]:
        """Sends UDP datagrams to the server; its socket, and the first ``expect`` that arrived."""
        receiver = self.run(self.server, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind((SERVER[4], 2525))
        receiver.settimeout(60)

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for payload in payloads:
                    sender.sendto(payload, (SERVER[4], 2525))

        self.run(self.client, send)
        return receiver, [receiver.recv(65535) for _ in range(expect)]

    def run(self, namespace: int, function: Callable[[], Result], timeout: float = 60) -> Result:
        return self.start(namespace, function).result(timeout)


def new_namespace() -> int:
    made: Future[int] = Future()

    def inside() -> None:
        try:
            check(LIBC.unshare(CLONE_NEWNET))
            made.set_result(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            made.set_exception(error)

    threading.Thread(target=inside, daemon=True).start()
    return made.result()


def configure(name: str, net: int, host: int, mtu: int, *, route: bool = False) -> None:
    with IPRoute() as ip:
        ip.link("set", index=1, state="up")
        index = ip.link_lookup(ifname=name)[0]
        ip.link("set", index=index, mtu=mtu, state="up")
        ip.addr("add", index=index, address=f"10.99.{net}.{host}", prefixlen=24)
        ip.addr("add", index=index, address=f"fd99:{net}::{host}", prefixlen=64, flags=IFA_F_NODAD)
        if route:
            ip.route("add", dst="default", gateway=f"10.99.{net}.1")
            ip.route("add", dst="::/0", gateway=f"fd99:{net}::1", family=10)


def wait_for_carriers() -> None:
    """Until every link has its carrier: packets sent before that are lost."""
    deadline = time.monotonic() + 30
    with IPRoute() as ip:
        while any(link["index"] != 1 and link.get("operstate") != "UP" for link in ip.get_links()):
            if time.monotonic() > deadline:
                raise TimeoutError("a link has no carrier after 30 seconds")
            time.sleep(0.01)


def equal(data: bytes) -> dict[str, object]:
    return genex("cmp", {"sreg": 1, "op": 0, "data": {"attrs": [("NFTA_DATA_VALUE", data)]}})


def check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
