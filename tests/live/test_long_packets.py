"""Interfaces that make packets longer than a queue hands over are told of at the start."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfmailguard.lab.servers import Gateway
from nfmailguard.lab.topology import GATEWAY, Topology
from nfmailguard.service.preflight import SIZES, long_packets

pytestmark = pytest.mark.live

BIG = 120_000
# linux/rtnetlink.h, linux/netlink.h
RTM_NEWLINK, REQUEST, WANT_ANSWER, ERROR = 16, 1, 4, 2


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"nl{os.getpid()}-") as made:
        yield made


def set_size(interface: str, attribute: int, size: int) -> int:
    """The kernel's errno; `ip` knows only two of the four."""
    body = struct.pack("=BBHiII", 0, 0, 0, socket.if_nametoindex(interface), 0, 0)
    body += struct.pack("=HHI", 8, attribute, size)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.send(struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, REQUEST | WANT_ANSWER, 1, 0) + body)
        answer = netlink.recv(4096)
    assert struct.unpack_from("=H", answer, 4)[0] == ERROR
    return -struct.unpack_from("=i", answer, 16)[0]


@pytest.mark.parametrize(("attribute", "name"), SIZES.items())
def test_each_of_the_four_sizes_is_seen(topology: Topology, attribute: int, name: str) -> None:
    with topology.enter(GATEWAY):
        assert list(long_packets()) == []
        assert set_size("outside", attribute, BIG) == 0
        try:
            (told,) = long_packets()
        finally:
            assert set_size("outside", attribute, 65536) == 0
    assert told.startswith(f"interface outside: {name} is {BIG}; ")


def test_the_gateway_says_it_at_the_start(topology: Topology, tmp_path: Path) -> None:
    with topology.enter(GATEWAY):
        set_size("outside", 58, BIG)
    try:
        with Gateway(topology, tmp_path) as gateway:
            assert gateway.process.stdout is not None
            told = b""
            while b"BIG" not in told and b"gro_max_size" not in told:
                told += gateway.process.stdout.read(4096)
    finally:
        with topology.enter(GATEWAY):
            set_size("outside", 58, 65536)
    assert f"note: interface outside: gro_max_size is {BIG}; ".encode() in told
