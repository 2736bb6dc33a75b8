"""The machine is started anew, and the service with it."""

from __future__ import annotations

from tests.vm.machine import Machine
from tests.vm.network import FAMILIES, Dialogue, Network
from tests.vm.service import EVENTS, Service


def test_after_a_reboot_the_service_inspects_without_being_asked(
    gateway: Service, network: Network, machine: Machine
) -> None:
    assert gateway.pid()
    machine.reboot()
    assert machine.settled() == "running"
    assert gateway.status().startswith("healthy: enforce")
    assert int(gateway.show("NRestarts")) == 0
    network.up()
    for family in FAMILIES:
        size = gateway.log_size()
        assert network.mails(family).code == 0
        assert Dialogue(machine, family).greeting.startswith("220 ****")
        machine.eventually(f"tail -c +{size} {EVENTS} | grep -F banner.masked")


def test_the_sysctls_of_the_package_are_in_force(gateway: Service, machine: Machine) -> None:
    assert gateway.pid()
    names = ("net.ipv4.conf.all.rp_filter", "net.core.rmem_max", "net.netfilter.nf_conntrack_max")
    assert machine.run(f"sysctl -n {' '.join(names)}").split() == ["1", "134217728", "524288"]
