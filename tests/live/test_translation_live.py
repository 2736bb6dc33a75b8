"""Addresses translated by the gateway: which of conntrack's connections a packet is of, by a real kernel."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pyroute2 import Conntrack
from queue_router import SERVER, Router, router_or_skip

pytestmark = pytest.mark.live

PORT = 40_025
PUBLIC = ("10.99.9.1", "10.99.9.2")
NAT = """
table ip nat {{
    chain prerouting {{
        type nat hook prerouting priority -100;
        ip daddr {{ {public} }} tcp dport 25 dnat to {server}
    }}
    chain postrouting {{
        type nat hook postrouting priority 100;
        {source}
    }}
    chain marked {{
        type filter hook postrouting priority 300;
        meta mark != 0 tcp dport 25 counter
        meta mark != 0 tcp sport 25 counter
    }}
}}
"""
MASQUERADE = 'oifname "veth-s" masquerade'
DRIVERS = ("kernel", "netfilterqueue")


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


@pytest.fixture
def server(router: Router) -> Iterator[Server]:
    with closing(Server(router)) as made:
        yield made


def nft(router: Router, *command: str, text: str = "") -> str:
    def inside() -> str:
        done = subprocess.run(["nft", *command], input=text, capture_output=True, text=True, check=True)
        return done.stdout

    return router.run(router.gateway, inside)


def translating(router: Router, source: str = "") -> None:
    nft(router, "-f", "-", text=NAT.format(public=", ".join(PUBLIC), server=SERVER[4], source=source))


def marked(router: Router) -> list[str]:
    """Packets that left with a mark: the counters, none of which may have counted."""
    listing = nft(router, "list", "chain", "ip", "nat", "marked")
    return [line for line in listing.splitlines() if "counter" in line and "packets 0 " not in line]


class Gateway:
    """``nfmailguard run``; ``end`` gives its events."""

    def __init__(self, router: Router, eve: Path, *more: str) -> None:
        options = ["--mode", "enforce", "--profile", "pix63", "--set", "limits.cookies=0", "--set", f"log.eve={eve}"]
        self.eve = eve
        self.process = router.nfmailguard(*options, *more)

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> list[str]:
        self.process.terminate()
        self.process.communicate(timeout=20)
        events = map(json.loads, self.eve.read_text().splitlines())
        return [event["mailguard"]["finding"] for event in events if event["event_type"] == "mailguard"]


class Server:
    """Takes connections one after another; closes all sockets that were made here."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.listener = router.run(router.server, lambda: socket.create_server((SERVER[4], 25)))
        self.listener.settimeout(5)
        self.sockets = [self.listener]

    def close(self) -> None:
        for one in self.sockets:
            one.close()

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(5)
        self.sockets.append(connection)
        return connection

    def connect(self, address: str, port: int = PORT, wait: float = 5) -> socket.socket:
        def inside() -> socket.socket:
            client = socket.socket()
            self.sockets.append(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("", port))
            client.settimeout(wait)
            try:
                client.connect((address, 25))
            except TimeoutError:
                client.close()
                raise
            return client

        return self.router.run(self.router.client, inside)


def said(sender: socket.socket, receiver: socket.socket, octets: bytes) -> bytes:
    sender.sendall(octets)
    read = b""
    while len(read) < len(octets):
        more = receiver.recv(len(octets) - len(read))
        assert more
        read += more
    return read


def close(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()  # RST


@pytest.mark.parametrize("source", ["", MASQUERADE])
@pytest.mark.parametrize("driver", DRIVERS)
def test_two_addresses_of_one_server_are_two_connections(
    router: Router, server: Server, tmp_path: Path, driver: str, source: str
) -> None:
    translating(router, source)
    with Gateway(router, tmp_path / "eve.json", "--driver", driver) as gateway:
        client = server.connect(PUBLIC[0])
        taken = server.accept()
        assert said(taken, client, b"220 mail ESMTP\r\n") == b"220 **********\r\n"
        for other in (PUBLIC[1], SERVER[4]):  # the same addresses and ports in the forward hook
            with pytest.raises(TimeoutError):
                server.connect(other, wait=2.5)
        assert said(client, taken, b"EXPN a\r\n") == b"XXXX a\r\n"
        assert said(taken, client, b"250 ok\r\n") == b"250 ok\r\n"
        close(client)
        again = server.connect(PUBLIC[1])
        taken = server.accept()
        assert said(taken, again, b"220 mail ESMTP\r\n") == b"220 **********\r\n"
        assert said(again, taken, b"EXPN a\r\n") == b"XXXX a\r\n"
        close(again)
        assert marked(router) == []
        assert gateway.end().count("packet.other_connection") >= 4


@pytest.mark.parametrize("source", ["", MASQUERADE])
def test_a_connection_that_conntrack_picks_up_anew_is_another(
    router: Router, server: Server, tmp_path: Path, source: str
) -> None:
    translating(router, source)
    with Gateway(router, tmp_path / "eve.json") as gateway:
        client = server.connect(PUBLIC[0])
        taken = server.accept()
        assert said(taken, client, b"220 mail ESMTP\r\n") == b"220 **********\r\n"
        router.run(router.gateway, forget_connections)
        client.sendall(b"EXPN a\r\n")
        taken.settimeout(1)
        with pytest.raises(TimeoutError):
            taken.recv(100)
        assert set(gateway.end()) == {"banner.masked", "packet.other_connection"}
        close(client)


def test_a_connection_of_which_nothing_is_translated_goes_on(router: Router, server: Server, tmp_path: Path) -> None:
    translating(router)
    with Gateway(router, tmp_path / "eve.json") as gateway:
        client = server.connect(SERVER[4])
        taken = server.accept()
        assert said(taken, client, b"220 mail ESMTP\r\n") == b"220 **********\r\n"
        router.run(router.gateway, forget_connections)
        assert said(client, taken, b"EXPN a\r\n") == b"XXXX a\r\n"
        router.run(router.gateway, forget_connections)
        assert said(taken, client, b"250 ok\r\n") == b"250 ok\r\n"
        assert set(gateway.end()) == {"banner.masked", "command.denied"}
        close(client)


def forget_connections() -> None:
    with Conntrack() as table:
        table.flush()
