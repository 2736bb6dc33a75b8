"""The lossy link of the tests is what it says: seeded, honest in its counts, and it changes no octet."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from nfmailguard.errors import LabError
from nfmailguard.lab.topology import GATEWAY, SERVER
from tests.support.lossy import BEYOND, Fates, LossyTopology
from tests.support.wire import ACK, End, build

pytestmark = pytest.mark.live

FRAMES = 2000
FATES = Fates(loss=0.1, twice=0.1, late=0.2)
ETHERNET = b"\x02\0\0\0\0\1" + b"\x02\0\0\0\0\2"
ETH_P_ALL = 3


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")


def frame(number: int, payload: bytes = b"x" * 100) -> bytes:
    """A TCP segment of a flow of its own, which nobody merges with another."""
    return ETHERNET + b"\x08\0" + build(End("192.0.2.1", 1024 + number), End("192.0.2.2", 25), number, 1, ACK, payload)


def wire(topology: LossyTopology, host: str, interface: str) -> socket.socket:
    with topology.enter(host):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        raw.bind((interface, ETH_P_ALL))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
        raw.settimeout(0.3)
    return raw


def heard(raw: socket.socket) -> Iterator[bytes]:
    try:
        while True:
            octets = raw.recv(4096)
            if octets.startswith(ETHERNET):
                yield octets
    except TimeoutError:
        return


def carried(seed: int, frames: list[bytes], fates: Fates = FATES) -> tuple[list[bytes], dict[str, int]]:
    """What comes out of the link of ``frames`` put in, in order, and what the link says it did."""
    topology = LossyTopology({BEYOND: fates}, seed=seed, late_ms=1, prefix=f"link{os.getpid()}-")
    with topology, wire(topology, GATEWAY, "inside") as here, wire(topology, SERVER, "net0") as there:
        for octets in frames:
            here.send(octets)
        out = list(heard(there))
        topology.stop_links()
        return out, topology.counts[BEYOND]["to_right"]


def test_one_seed_is_one_sequence_of_fates() -> None:
    frames = [frame(number) for number in range(FRAMES)]
    first, told = carried(1, frames)
    again, told_again = carried(1, frames)
    assert sorted(first) == sorted(again)
    assert told == told_again
    other, _ = carried(2, frames)
    assert sorted(first) != sorted(other)


def test_what_is_lost_doubled_and_late_is_counted_and_no_octet_changes() -> None:
    frames = [frame(number) for number in range(FRAMES)]
    out, told = carried(3, frames)
    place = {octets: number for number, octets in enumerate(frames)}
    assert set(out) <= set(place)
    assert told["frames"] == FRAMES
    assert told["lost"] == FRAMES - len(set(out))
    assert told["doubled"] == len(out) - len(set(out))
    for what, share in (("lost", FATES.loss), ("doubled", FATES.twice), ("delayed", FATES.late)):
        assert 0.7 * share < told[what] / FRAMES < 1.3 * share
    overtaken = sum(place[after] < place[before] for before, after in itertools.pairwise(out))
    assert overtaken > 100


def test_only_tcp_meets_a_fate() -> None:
    resolution = ETHERNET + b"\x08\x06" + b"\0" * 46
    out, told = carried(4, [resolution] * 10 + [frame(1)] * 10, Fates(loss=1))
    assert out == [resolution] * 10
    assert told["lost"] == told["frames"] == 10


def test_a_super_packet_ends_the_link_with_an_error() -> None:
    with contextlib.suppress(LabError), LossyTopology({BEYOND: FATES}, prefix=f"link{os.getpid()}-") as topology:
        for host, interface in ((GATEWAY, "inside"), (f"link{BEYOND}", "left")):
            with topology.enter(host), IPRoute() as ip:
                ip.link("set", index=ip.link_lookup(ifname=interface)[0], mtu=9000)
        with wire(topology, GATEWAY, "inside") as here:
            here.send(frame(1, b"x" * 3000))
        time.sleep(0.2)
        with pytest.raises(LabError, match="link1 failed"):
            topology.stop_links()
