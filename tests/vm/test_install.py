"""From the package to the first inspected mail, on a bare Debian."""

from __future__ import annotations

import time

import pytest

from tests.vm.machine import Machine
from tests.vm.network import FAMILIES, Dialogue, Network
from tests.vm.service import CONFIGURATION, Service


def test_the_package_installs_a_service_that_is_neither_enabled_nor_started(
    bare: Service, installed: Service, machine: Machine
) -> None:
    assert bare is installed
    assert machine.ask("systemctl is-enabled nfmailguard nfmailguard-exporter").text.split() == ["disabled"] * 2
    assert machine.ask("systemctl is-active nfmailguard").text.strip() == "inactive"
    assert machine.run("nft list tables") == ""
    assert machine.ask("nfmailguard status").code == 2


def test_its_configuration_is_a_conffile_and_its_user_is_there(installed: Service, machine: Machine) -> None:
    assert CONFIGURATION in machine.run("dpkg-query -W -f '${Conffiles}' nfmailguard")
    assert machine.run(f"nfmailguard check -c {CONFIGURATION}").startswith("monitor pix63, queue 0, ports 25")
    user = installed.show("User") or "root"
    assert machine.run(f"getent passwd {user}").startswith(f"{user}:")


def test_ready_means_that_the_next_packet_is_inspected(
    installed: Service, network: Network, machine: Machine, figures: dict[str, str]
) -> None:
    network.up()
    assert installed.show("Type") == "notify"
    began = time.monotonic()
    said = machine.ask("systemctl enable --now nfmailguard && " + network.source(f"-m 1 {network.to('IPv4')}"))
    seconds = time.monotonic() - began
    assert said.code == 0, said
    machine.eventually("grep -F banner.masked /var/log/nfmailguard/eve.json")
    assert installed.show("ActiveState", "SubState").split() == ["active", "running"]
    assert [(one["finding"], one["applied"]) for one in installed.findings()] == [("banner.masked", False)]
    figures["apt install"] = f"{installed.installing:.0f} s, emulated"
    figures["enable, start and the first mail"] = f"{seconds:.0f} s, emulated"


def test_the_rules_are_native_queue_expressions(gateway: Service, machine: Machine) -> None:
    assert gateway.status()
    rules = machine.run("nft --debug=netlink list ruleset")
    assert "[ queue num 0" in rules
    assert "[ target name NFQUEUE" not in rules
    loaded = machine.run("lsmod")
    assert "nft_queue" in loaded
    assert "nft_compat" not in loaded


@pytest.mark.parametrize("family", FAMILIES)
def test_mail_is_delivered_and_what_is_denied_is_masked(
    gateway: Service, network: Network, machine: Machine, family: str
) -> None:
    network.forget()
    size = gateway.log_size()
    assert network.mails(family, 3).code == 0
    assert network.arrived() == 3
    talk = Dialogue(machine, family)
    assert talk.greeting.startswith("220 ****2")
    assert talk.say("EHLO client.example.net").startswith("50")
    assert talk.say("HELO client.example.net").startswith("250 ")
    assert talk.say("QUIT").startswith("221 ")
    machine.eventually(f"test $(tail -c +{size} /var/log/nfmailguard/eve.json | grep -cF '\"smtp\":') -ge 3")
    found = gateway.findings(size)
    assert {one["dest_ip"] for one in found} == {FAMILIES[family]}
    assert [one["applied"] for one in found if one["finding"] == "command.denied"] == [True]


def test_the_service_goes_on_as_systemd_knows_it(gateway: Service, machine: Machine) -> None:
    assert gateway.show("StatusText").startswith("enforce pix63")
    assert "nfmailguard: ready: enforce pix63" in gateway.journal()
    assert machine.ask("systemctl --failed --no-legend --plain").text.strip() == ""
