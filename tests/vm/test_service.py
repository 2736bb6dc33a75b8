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


def test_restart_with_an_open_connection_as_midstream_at_start_says(
    gateway: Service, network: Network, machine: Machine
) -> None:
    """It goes on, uninspected (on.midstream_at_start = "pass"), and is reported."""
    talk = Dialogue(machine)
    assert talk.say("HELO client.example.net").startswith("250 ")
    before, size = gateway.pid(), gateway.log_size()
    machine.run("systemctl restart nfmailguard")
    assert gateway.pid() not in (0, before)
    assert talk.say("MAIL FROM:<a@example.net>").startswith("250 ")
    assert talk.say("QUIT").startswith("221 ")
    gateway.healthy()
    machine.eventually(f"tail -c +{size} /var/log/nfmailguard/eve.json | grep -F flow.midstream")
    assert network.mails("IPv4", 2).code == 0
    assert network.mails("IPv6", 2).code == 0


def test_logrotate_rotates_and_the_service_writes_on(gateway: Service, network: Network, machine: Machine) -> None:
    assert network.mails("IPv4").code == 0
    machine.eventually(f"test -s {EVENTS}")
    machine.run("logrotate -f /etc/logrotate.d/nfmailguard", 300)
    machine.eventually(f"test -e {EVENTS}")  # `systemctl reload` of Debian 12 does not wait until it is done
    assert network.mails("IPv4").code == 0
    machine.eventually(f"grep -F '\"smtp\":' {EVENTS}")
    assert machine.run("ls /var/log/nfmailguard").split() == ["eve.json", "eve.json.1"]
    assert gateway.status().startswith("healthy")
