"""The commands, on a machine that is none of ours, and what systemd thinks of the unit."""

from __future__ import annotations

import json
import re

from tests.vm.machine import Machine
from tests.vm.network import Network
from tests.vm.service import CONFIGURATION, Service

#: `systemd-analyze security` calls 0 safe and 10 exposed; no worse than it is.
EXPOSURE = 2.3


def test_check_live_finds_nothing_wrong(gateway: Service, machine: Machine) -> None:
    assert gateway.pid()
    said = machine.ask(f"nfmailguard check --live -c {CONFIGURATION}")
    assert said.code == 0, said.text


def test_check_live_names_what_another_has_left(gateway: Service, machine: Machine) -> None:
    assert gateway.pid()
    machine.run("nft add table ip other; nft 'add chain ip other early { type filter hook prerouting priority raw; }'")
    machine.run("nft add rule ip other early tcp dport 25 notrack")
    try:
        said = machine.ask(f"nfmailguard check --live -c {CONFIGURATION} --json")
        assert said.code == 1
        assert [one["name"] for one in json.loads(said.text)["troubles"]] == ["notrack"]
    finally:
        machine.run("nft delete table ip other")


def test_status_stats_and_flows(gateway: Service, network: Network, machine: Machine) -> None:
    assert network.mails("IPv4", 2).code == 0
    status = json.loads(machine.run("nfmailguard status --json"))
    assert status["state"] == "healthy"
    assert status["pid"] == gateway.pid()
    assert status["policies"] == [{"mode": "enforce", "profile": status["policies"][0]["profile"]}]
    assert json.loads(machine.run("nfmailguard stats --json"))["mails.accepted"] >= 2
    assert machine.run("nfmailguard flows")


def test_report_reads_what_the_service_has_written(gateway: Service, network: Network, machine: Machine) -> None:
    assert network.mails("IPv4", 2).code == 0
    assert gateway.pid()
    counted = json.loads(machine.run("nfmailguard report --since 1d --json", 300))
    assert counted
    assert "10.1.0.0/24" in machine.run("nfmailguard report --since 1d", 300)


def test_what_systemd_thinks_of_the_unit(gateway: Service, machine: Machine, figures: dict[str, str]) -> None:
    assert gateway.pid()
    said = machine.ask("systemd-analyze security --no-pager nfmailguard").text
    found = re.search(r"Overall exposure level for nfmailguard.service: ([\d.]+)", said)
    assert found, said
    figures["systemd-analyze security"] = found[1]
    assert float(found[1]) <= EXPOSURE, said
