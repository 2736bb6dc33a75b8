"""A gateway that hangs, and one that is killed: systemd starts it again, and mail is inspected again."""

from __future__ import annotations

import time

from tests.vm.machine import Machine
from tests.vm.network import Dialogue, Network
from tests.vm.service import Service

#: Of the unit: WatchdogSec, then RestartSec; and what an emulated start takes, beside other work.
_WATCHDOG, _RESTART, _START = 20, 1, 90


def _inspected_again(service: Service, network: Network, machine: Machine) -> None:
    service.healthy()
    network.forget()
    for family in ("IPv4", "IPv6"):
        assert network.mails(family, 2).code == 0
    assert network.arrived() == 4
    assert Dialogue(machine).greeting.startswith("220 ****")


def test_a_stopped_process_is_killed_and_started_again_within_the_watchdogs_time(
    gateway: Service, network: Network, machine: Machine
) -> None:
    before, restarts = gateway.pid(), int(gateway.show("NRestarts"))
    began = time.monotonic()
    machine.run(f"kill -STOP {before}")
    machine.eventually(f"test $(systemctl show nfmailguard --value -p MainPID) != {before}", _WATCHDOG + 20)
    assert time.monotonic() - began < _WATCHDOG + 20
    machine.eventually("systemctl is-active nfmailguard", _RESTART + _START)
    assert int(gateway.show("NRestarts")) == restarts + 1
    assert "Watchdog timeout" in gateway.journal()
    _inspected_again(gateway, network, machine)


def test_a_killed_process_is_started_again(gateway: Service, network: Network, machine: Machine) -> None:
    before, restarts = gateway.pid(), int(gateway.show("NRestarts"))
    machine.run(f"kill -KILL {before}")
    # Until it is back mail passes: the rules have gone by ExecStopPost.
    assert network.mails("IPv4", seconds=_START).code == 0
    machine.eventually(
        f"systemctl is-active nfmailguard && test $(systemctl show nfmailguard --value -p MainPID) != {before}",
        _RESTART + _START,
    )
    assert int(gateway.show("NRestarts")) == restarts + 1
    _inspected_again(gateway, network, machine)


def test_what_stays_behind_of_a_killed_process_is_nothing(gateway: Service, machine: Machine) -> None:
    machine.run("systemctl stop nfmailguard")
    assert machine.run("nft list tables") == ""
    assert machine.run("ls -A /run/nfmailguard 2>/dev/null || true") == ""
    machine.run("systemctl start nfmailguard")
    gateway.healthy()
