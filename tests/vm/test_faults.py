"""What a network, another tool and a full disk do to a gateway, with a stock kernel's own means."""

from __future__ import annotations

import hashlib
import json
import random
import time

import pytest

from tests.vm.machine import Machine
from tests.vm.network import FAMILIES, Network
from tests.vm.service import EVENTS, Service


@pytest.mark.parametrize("family", FAMILIES)
def test_mail_over_lossy_links_arrives_whole(gateway: Service, network: Network, machine: Machine, family: str) -> None:
    """Loss, reordering and repetition by netem, on each side of the gateway and in both directions."""
    lines = [f"{random.Random(number).getrandbits(250):064x}" for number in range(400)]
    body = "".join(f"{line}\n" for line in lines).encode()
    ends = ["tc qdisc {} dev to-client root", "tc qdisc {} dev to-server root"]
    ends += [f"ip netns exec {host} tc qdisc {{}} dev eth0 root" for host in ("client", "server")]
    network.forget()
    try:
        machine.run("\n".join(f"{end.format('add')} netem loss 3% duplicate 1% delay 4ms 3ms" for end in ends))
        said = network.sent(family, b"Subject: whole\n\n" + body, 40, 4, 500)
        losses = machine.run("tc -s qdisc show dev to-client; tc -s qdisc show dev to-server")
    finally:
        machine.ask("\n".join(end.format("del") for end in ends))
    assert said.code == 0, said
    assert losses.count("dropped 0,") == 0
    assert network.bodies() == [(40, hashlib.sha256(body).hexdigest())]
    assert not any(one["finding"] == "stream.gap" for one in gateway.findings())


def test_rules_flushed_by_another_tool_are_reported_within_seconds(
    gateway: Service, network: Network, machine: Machine
) -> None:
    """And nothing breaks: mail passes uninspected until the rules are there again."""
    machine.run("nft flush ruleset")
    began = time.monotonic()
    machine.eventually("nfmailguard status | grep -F 'degraded'", 30)
    assert time.monotonic() - began < 30
    assert machine.ask("nfmailguard status").code == 1
    assert "degraded: rules" in gateway.journal()
    assert network.mails("IPv4").code == 0
    machine.run("nfmailguard rules apply")
    gateway.healthy()
    size = gateway.log_size()
    assert network.mails("IPv6").code == 0
    machine.eventually(f"tail -c +{size} {EVENTS} | grep -F banner.masked")


def test_a_full_disk_costs_events_and_no_mail(gateway: Service, network: Network, machine: Machine) -> None:
    machine.run("systemctl stop nfmailguard; mount -t tmpfs -o size=64k tmpfs /var/log/nfmailguard")
    try:
        machine.run("systemctl start nfmailguard")
        gateway.healthy()
        network.forget()
        machine.run("head -c 60000 /dev/zero >/var/log/nfmailguard/full")
        assert network.mails("IPv4", 60, seconds=300).code == 0
        machine.eventually("nfmailguard status | grep -F log.eve")
        assert network.mails("IPv6", 5).code == 0
        assert network.arrived() == 65
        assert "degraded: log.eve" in gateway.journal()
        assert json.loads(machine.run("nfmailguard stats --json"))["events_lost"] > 0
        machine.run("rm /var/log/nfmailguard/full")
        assert network.mails("IPv4").code == 0
        gateway.healthy()
        lines = machine.run(f"cat {EVENTS}").splitlines()
        assert sum(1 for line in lines if not line.startswith("{") or not line.endswith("}")) <= 1  # the torn one
    finally:
        machine.run("systemctl stop nfmailguard; umount /var/log/nfmailguard; systemctl start nfmailguard")
        gateway.healthy()
