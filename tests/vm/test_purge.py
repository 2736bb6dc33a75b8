"""Removed, the package leaves the machine as it found it."""

from __future__ import annotations

from tests.vm.machine import Machine
from tests.vm.service import Service


def test_purge_stops_the_running_service_and_leaves_no_trace(installed: Service, machine: Machine) -> None:
    machine.run("systemctl start nfmailguard")
    machine.run("apt-get purge -y nfmailguard", 300)
    assert machine.run("nft list tables") == ""
    assert machine.run("systemctl list-unit-files --no-legend 'nfmailguard*' | grep -v test-agent || true") == ""
    assert machine.ask("pgrep -f 'python3 -m nfmailguard'").code == 1
    # What came with it goes too: then nothing at all may differ.
    machine.run(
        "dpkg-query -W -f '${Package}\\n' | sort | comm -13 /root/before.packages - >/root/added\n"
        "apt-get purge -y $(cat /root/added)",
        600,
    )
    installed.record("after")
    for kind in ("packages", "files"):
        differences = machine.ask(f"diff /root/before.{kind} /root/after.{kind} | head -n 60").text
        assert differences.splitlines() == []
