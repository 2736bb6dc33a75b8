"""``monitor`` is the identity: what comes into the gateway leaves it, whatever it is, and nothing else does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from foreign import TCP, Sender, Sent, Witness, everything, hops, talk
from queue_router import FAMILY, SERVER, Router, router_or_skip

from nfmailguard import ruleset

pytestmark = pytest.mark.live

TRAFFIC = everything()


@pytest.fixture
def router() -> Iterator[Router]:
    with router_or_skip() as made:
        yield made


@contextmanager
def running(router: Router, *options: str) -> Iterator[subprocess.Popen[str] | None]:
    if options == ("no gateway",):
        yield None
        return
    command = [sys.executable, "-m", "nfmailguard", "run", "-c", os.devnull, "--set", "service.control=", *options]
    process = router.popen(router.gateway, command)
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def mail(router: Router, version: int) -> None:
    """A short dialogue of real sockets, which also answer each other."""
    address = (SERVER[version], 25)
    with (
        router.run(router.server, lambda: socket.create_server(address, family=FAMILY[version])) as listener,
        router.run(router.client, lambda: socket.create_connection(address, timeout=60)) as client,
    ):
        listener.settimeout(60)
        server, _ = listener.accept()
        with server:
            for one, other, octets in (
                (server, client, b"220 mail ESMTP\r\n"),
                (client, server, b"EHLO x\r\n"),
                (server, client, b"250-mail\r\n250 STARTTLS\r\n"),
                (client, server, b"EXPN everybody\r\n"),
                (server, client, b"250 nobody\r\n"),
            ):
                one.sendall(octets)
                assert len(other.recv(1000)) == len(octets)


def seen(router: Router) -> tuple[list[Sent], list[Sent]]:
    """What came in and what left while all of it was sent."""
    sender = Sender(router)
    try:
        with Witness(router) as witness:
            direction = TRAFFIC[0].to_server
            for packet in TRAFFIC:
                if packet.to_server != direction:
                    time.sleep(0.01)  # an answer comes behind what it answers
                direction = packet.to_server
                sender.send(packet)
            for version in (4, 6):
                mail(router, version)
            witness.wait()
            return witness.came, witness.left
    finally:
        sender.close()


def by_talk(packets: list[Sent], *, forwarded: bool) -> dict[tuple[bytes, ...], list[bytes]]:
    found: dict[tuple[bytes, ...], list[bytes]] = defaultdict(list)
    for packet in packets:
        found[talk(packet.octets)].append(packet.octets if forwarded else hops(packet.octets))
    return found


@pytest.mark.parametrize(
    "options",
    [
        ("no gateway",),
        ("--mode", "monitor"),
        ("--mode", "monitor", "--profile", "asa", "--queue", "0-1"),
        ("--mode", "enforce", "--dry-run"),
        ("--mode", "restore", "--dry-run"),
    ],
    ids=" ".join,
)
def test_what_comes_in_leaves_in_order_and_nothing_else(router: Router, options: tuple[str, ...]) -> None:
    with running(router, *options):
        came, left = seen(router)
    assert Counter(Sent(packet.to_server, hops(packet.octets)) for packet in came) == Counter(left)
    assert by_talk(came, forwarded=False) == by_talk(left, forwarded=True)
    assert Counter(packet.octets for packet in came) >= Counter(packet.octets for packet in TRAFFIC)
    assert len(came) > len(TRAFFIC) + 20


def test_fragments_of_mail_are_not_seen_in_monitor_and_counted(router: Router) -> None:
    with running(router, "--mode", "monitor"):
        seen(router)
        table = router.run(router.gateway, ruleset.installed)
    assert table is not None
    assert table.fragments > 20
    assert table.packets > 100


def test_where_flows_are_changed_fragments_are_joined_for_the_whole_namespace(router: Router) -> None:
    """What docs/streams.md says it costs: also those of other protocols, and one that is alone waits for ever."""
    with running(router, "--mode", "enforce"):
        came, left = seen(router)
    lost = Counter(hops(packet.octets) for packet in came) - Counter(packet.octets for packet in left)
    protocols = {octets[9] for octets in lost if octets[0] >> 4 == 4}
    assert {1, 17, 47, 132} <= protocols


#: As docs/streams.md prints it.
KEPT_OUT = """
table inet fragments {
    chain prerouting {
        type filter hook prerouting priority -450; policy accept;
        ip frag-off & 0x3fff != 0 ip protocol != tcp notrack
        exthdr frag exists frag nexthdr != { 0, 6, 43, 60 } notrack
    }
}
"""


def test_other_protocols_fragments_can_be_kept_out_of_conntrack(router: Router) -> None:
    def load() -> None:
        subprocess.run(["nft", "-f", "-"], input=KEPT_OUT, text=True, check=True)

    router.run(router.gateway, load)
    with running(router, "--mode", "enforce"):
        came, left = seen(router)
    lost = Counter(hops(packet.octets) for packet in came) - Counter(packet.octets for packet in left)
    assert {talk(octets)[1] for octets in lost} == {bytes([TCP])}
