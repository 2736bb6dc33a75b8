"""Crowds of connections through a gateway in namespaces: tricked ones, idle ones, ones that fill memory.

``crowd.c`` makes them. They go to a server of their own that takes nothing, at an address beside the mail
server's; an honest client has to be served meanwhile. Knows nothing of what the gateway does about them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from pyroute2 import IPRoute

from nfmailguard.errors import LabError
from nfmailguard.lab.clients import Client
from nfmailguard.lab.servers import Gateway, MailServer, Process
from nfmailguard.lab.testbed import HOP
from nfmailguard.lab.topology import CLIENT, GATEWAY, SERVER, Topology

__all__ = ["Crowd", "Honest", "staged"]

SOURCE = Path(__file__).with_name("crowd.c")
BINARY = Path(__file__).parents[2] / "build" / "crowd"
#: Where the crowd's addresses begin (routed to the client's link, nobody's own) and where it goes.
FROM = {4: "10.64.0.1", 6: "fd25:64::1"}
NETWORK = {4: "10.64.0.0/10", 6: "fd25:64::/64"}
TO = {4: "10.25.2.5", 6: "fd25:2::5"}
IFA_F_NODAD = 2


def program() -> Path:
    """``crowd``, compiled where there is none or its source is newer."""
    if not BINARY.exists() or BINARY.stat().st_mtime < SOURCE.stat().st_mtime:
        BINARY.parent.mkdir(exist_ok=True)
        made = BINARY.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", made, SOURCE], check=True)
        made.rename(BINARY)
    return BINARY


class Honest(NamedTuple):
    """What an honest client saw. ``greeted``: seconds from its SYN to the greeting; ``error``: what went wrong."""

    greeted: float
    taken: float
    arrived: bool
    error: str

    @property
    def well(self) -> bool:
        """Served within a second, and the mail is there."""
        return not self.error and self.arrived and self.greeted < 1.0


class Crowd:
    """The stage: a gateway, a mail server and a server that takes nothing."""

    def __init__(self, topology: Topology, gateway: Gateway, server: MailServer, hardware: str) -> None:
        self.topology, self.gateway, self.server = topology, gateway, server
        self._hardware = hardware

    def raw(
        self, flows: int, *, sources: int = 3, rate: int = 8_000, trick: str = "md5", octets: int = 0, family: int = 4
    ) -> int:
        """So many connections whose packets are chosen; how many the server answered."""
        arguments = ["net0", self._hardware, FROM[family], sources, TO[family], flows, rate, trick, octets]
        argv = [str(program()), "raw", *map(str, arguments)]
        done = self.topology.run(CLIENT, argv, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise LabError("crowd: it could not be sent")
        return int(done.stdout)

    @contextmanager
    def held(self, connections: int) -> Iterator[int]:
        """So many real connections of the client's that say nothing; how many were greeted."""
        argv = [str(program()), "hold", TO[4], "25", str(connections)]
        process = self.topology.popen(CLIENT, argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().split()[1])
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()

    def honest(self, mail: bytes, *, family: int = 4, patience: float = 30.0) -> Honest:
        """One mail of a client that does nothing wrong."""
        begun = time.monotonic()
        greeted = float("inf")
        try:
            address = self.topology.address(SERVER, family=family)
            with self.topology.enter(CLIENT), Client(address, timeout=patience) as client:
                greeted = time.monotonic() - begun
                client.hello("honest.example")
                client.command("MAIL FROM:<a@example.net>")
                client.command("RCPT TO:<b@example.com>")
                reply = client.message(mail)
                client.command("QUIT")
        except (LabError, OSError) as error:
            return Honest(greeted, time.monotonic() - begun, False, str(error) or type(error).__name__)
        taken = time.monotonic() - begun
        error = "" if reply.code == 250 else f"the mail was answered with {reply.code}"
        return Honest(greeted, taken, mail in self.server.mails(), error)

    def counters(self) -> dict[str, int]:
        """The gateway's, once it has ended; none where it did not end in time."""
        told = self.gateway.events("stats")
        return dict(told[-1]["stats"]) if told else {}


@contextmanager
def staged(topology: Topology, directory: Path, *options: str, backlog: int = 4096) -> Iterator[Crowd]:
    """``topology`` made ready, with a gateway of these options in the midst of it.

    ``backlog``: half-open connections a server keeps before it answers with cookies.
    """
    with topology.enter(CLIENT):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        # 20,000 connections of one client have as many ports.
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65535")
    with topology.enter(GATEWAY), IPRoute() as ip:
        hardware = str(ip.get_links(ip.link_lookup(ifname="outside")[0])[0].get("address"))
        for family, network in NETWORK.items():
            ip.route("replace", dst=network, gateway=topology.address(CLIENT, family=family))
    with topology.enter(SERVER):
        Path("/proc/sys/net/core/somaxconn").write_text(str(backlog))
        Path("/proc/sys/net/ipv4/tcp_max_syn_backlog").write_text(str(backlog))
    with topology.enter(SERVER), IPRoute() as ip:
        index = ip.link_lookup(ifname="net0")[0]
        for family, address in TO.items():
            flags = {} if family == 4 else {"flags": IFA_F_NODAD}
            ip.addr("replace", index=index, address=address, prefixlen=24 if family == 4 else 64, **flags)
    topology.run(SERVER, ["nft", "flush ruleset"])
    topology.run(SERVER, ["nft", "-f", "-"], input=HOP, text=True, check=True)
    with ExitStack() as stack:
        server = stack.enter_context(MailServer(topology, directory / "mail"))
        for family in (4, 6):
            argv = [str(program()), "serve", TO[family], "25"]
            stack.enter_context(Process(topology, SERVER, argv, directory / f"crowd{family}.log", "ready"))
        gateway = stack.enter_context(Gateway(topology, directory / "gateway", "--mode", "enforce", *options))
        yield Crowd(topology, gateway, server, hardware)
        # With so many flows to tell of it takes longer than others may.
        gateway.process.terminate()
        gateway.process.wait(90)
