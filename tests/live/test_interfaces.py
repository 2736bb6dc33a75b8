"""Set-ups in which a packet's interface does not tell the sides apart are seen, in a kernel's own words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from nfmailguard.config import load
from nfmailguard.lab.servers import Gateway
from nfmailguard.lab.topology import GATEWAY, Topology
from nfmailguard.service.preflight import BRIDGED, Interfaces, interfaces

pytestmark = pytest.mark.live

SERVERS = "gateway.addresses=10.25.2.0/24,fd25:2::2,198.51.100.7"


@pytest.fixture
def topology() -> Iterator[Topology]:
    if os.geteuid() != 0:
        pytest.skip("needs root, or a kernel that allows unprivileged user namespaces")
    with Topology(f"ni{os.getpid()}-") as made:
        yield made


def test_a_router_between_two_networks_is_none(topology: Topology) -> None:
    with topology.enter(GATEWAY):
        assert interfaces(load(None, [SERVERS])) == Interfaces()


def test_servers_where_the_default_route_goes(topology: Topology) -> None:
    with topology.enter(GATEWAY), IPRoute() as ip:
        ip.route("add", dst="default", gateway="10.25.1.2")
        assert interfaces(load(None, [SERVERS])).servers == (("198.51.100.7", "outside"),)
        ip.route("replace", dst="default", gateway="10.25.2.2")
        ip.route("add", dst="::/0", gateway="fd25:2::2", family=10)
        assert interfaces(load(None, [SERVERS])).servers == tuple(
            (network, "inside") for network in ("10.25.2.0/24", "fd25:2::2", "198.51.100.7")
        )
        assert interfaces(load()).servers == ()


def test_one_interface_for_both_is_told_at_the_start(topology: Topology, tmp_path: Path) -> None:
    with topology.enter(GATEWAY), IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="inside")[0], state="down")
        assert interfaces(load()) == Interfaces(alone="outside")
    with Gateway(topology, tmp_path) as gateway:
        assert gateway.process.stdout is not None
        told = b""
        while b"the only one" not in told:
            read = gateway.process.stdout.read(4096)
            assert read
            told += read
    assert b"note: interface outside: the only one" in told


def test_a_bridge_is_one_where_what_it_bridges_is_queued(topology: Topology) -> None:
    with topology.enter(GATEWAY), IPRoute() as ip:
        ip.link("add", ifname="br0", kind="bridge")
        bridge = ip.link_lookup(ifname="br0")[0]
        ip.link("set", index=bridge, state="up")
        for name in ("outside", "inside"):
            ip.link("set", index=ip.link_lookup(ifname=name)[0], master=bridge)
        switches = [BRIDGED / f"bridge-nf-call-{name}" for name in ("iptables", "ip6tables")]
        if not all(switch.exists() for switch in switches):
            pytest.skip("no br_netfilter")
        for on in ("00", "10", "01"):
            for switch, value in zip(switches, on, strict=True):
                switch.write_text(value)
            assert interfaces(load()) == Interfaces(("br0",) if "1" in on else (), "br0")
        for switch in switches:
            switch.write_text("0")
        ip.link("set", index=bridge, kind="bridge", br_nf_call_iptables=1)
        assert interfaces(load()).bridges == ("br0",)
