"""systemctl reload, restart and what an operator's mistake does, with a connection open."""

from __future__ import annotations

from tests.vm.machine import Machine
from tests.vm.network import Dialogue, Network
from tests.vm.service import CONFIGURATION, EVENTS, Service


def test_reload_takes_a_changed_policy_and_keeps_open_connections(
    gateway: Service, network: Network, machine: Machine
) -> None:
    pid = gateway.pid()
    talk = Dialogue(machine)
    assert talk.say("HELO client.example.net").startswith("250 ")
    gateway.set(profile='"asa"')
    machine.run("systemctl reload nfmailguard")
    machine.eventually("nfmailguard status --json | grep -F '\"generation\": 2'")
    assert gateway.pid() == pid
    assert talk.say("MAIL FROM:<a@example.net>").startswith("250 ")
    assert talk.say("VRFY postmaster").startswith("50")  # of its own policy, pix63: XXXX
    new = Dialogue(machine, name="new")
    assert new.greeting.startswith("220 ****")
    assert "2" not in new.greeting.partition(" ")[2]  # asa hides more of a greeting
    assert new.say("EHLO client.example.net").startswith("250")
    assert talk.say("QUIT").startswith("221 ")
    assert new.say("QUIT").startswith("221 ")
    assert network.mails("IPv6", 2).code == 0


def test_a_bad_configuration_is_refused_and_the_one_before_goes_on(
    gateway: Service, network: Network, machine: Machine
) -> None:
    machine.run(f"cp {CONFIGURATION} /root/good.toml")
    talk = Dialogue(machine)
    try:
        gateway.set(mode='"enforced"', ports="[70000]")
        machine.ask("systemctl reload nfmailguard")
        machine.eventually("journalctl -u nfmailguard -o cat | grep -F 'refused, the configuration stays as it was'")
        answer = machine.ask("nfmailguard reload")
        assert answer.code == 2
        assert "mode" in answer
        assert "ports" in answer
        assert gateway.show("ActiveState") == "active"
        assert gateway.status().startswith("healthy: enforce")
        assert talk.say("EHLO client.example.net").startswith(("250", "50"))
        assert network.mails("IPv4", 2).code == 0
    finally:
        machine.run(f"cp /root/good.toml {CONFIGURATION}")
    machine.run("nfmailguard reload")


def test_over_restarts_an_open_connection_stays_guarded(gateway: Service, network: Network, machine: Machine) -> None:
    talk = Dialogue(machine)
    assert talk.say("HELO client.example.net").startswith("250 ")
    size = gateway.log_size()
    for _ in range(3):
        before = gateway.pid()
        machine.run("systemctl restart nfmailguard")
        assert gateway.pid() not in (0, before)
        assert talk.say("VRFY postmaster").startswith("50")  # pix63: XXXX
        assert '"taken_over": {' in machine.run("nfmailguard status --json")
    assert talk.say("QUIT").startswith("221 ")
    gateway.healthy()
    assert machine.ask(f"tail -c +{size} {EVENTS} | grep -F flow.midstream").code == 1
    assert network.mails("IPv4", 2).code == 0
    assert network.mails("IPv6", 2).code == 0


def test_a_stop_leaves_no_rules_and_a_start_behind_it_takes_nothing_over(
    gateway: Service, network: Network, machine: Machine
) -> None:
    machine.run("systemctl stop nfmailguard")
    assert machine.ask("nft list table inet nfmailguard").code == 1
    assert network.mails("IPv4").code == 0
    machine.run("systemctl start nfmailguard")
    gateway.healthy()
    assert '"taken_over": null' in machine.run("nfmailguard status --json")
    assert network.mails("IPv4").code == 0


def test_over_an_upgrade_an_open_connection_stays_guarded(gateway: Service, machine: Machine) -> None:
    talk = Dialogue(machine)
    assert talk.say("HELO client.example.net").startswith("250 ")
    before = gateway.pid()
    machine.run("cd /root && DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall ./nfmailguard.deb", 1800)
    assert gateway.pid() not in (0, before)
    assert '"taken_over": {' in machine.run("nfmailguard status --json")
    assert talk.say("VRFY postmaster").startswith("50")
    assert talk.say("QUIT").startswith("221 ")


def test_logrotate_rotates_and_the_service_writes_on(gateway: Service, network: Network, machine: Machine) -> None:
    assert network.mails("IPv4").code == 0
    machine.eventually(f"test -s {EVENTS}")
    machine.run("logrotate -f /etc/logrotate.d/nfmailguard", 300)
    machine.eventually(f"test -e {EVENTS}")  # `systemctl reload` of Debian 12 does not wait until it is done
    assert network.mails("IPv4").code == 0
    machine.eventually(f"grep -F '\"smtp\":' {EVENTS}")
    assert machine.run("ls /var/log/nfmailguard").split() == ["eve.json", "eve.json.1"]
    assert gateway.status().startswith("healthy")
