"""nfmailguard in the machine: installed, started, asked, and what the machine was like before."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.vm.machine import Machine

__all__ = ["CONFIGURATION", "Service"]

CONFIGURATION = "/etc/nfmailguard/nfmailguard.toml"
EVENTS = "/var/log/nfmailguard/eve.json"
#: Every file with its sort, mode and owner; of those below /usr (which nobody writes but dpkg) size and time, of all
#: others a checksum. But for what apt, dpkg and systemd write about themselves, caches, and what these tests bring.
_FILES = r"""
cd / && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp -o -path ./opt \
    -o -path ./boot -o -path ./usr/lib/modules -o -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache \
    -o -path ./var/tmp -o -path ./var/log/apt -o -path ./var/log/journal -o -path ./var/lib/systemd -o -path ./root \
    -o -path ./var/lib/logrotate -o -path ./var/log/private \) -prune \
    -o ! -path ./var/log/dpkg.log ! -path ./var/log/alternatives.log ! -path ./etc/ld.so.cache ! -path ./var/log/wtmp \
    \( -printf '%y %m %u %g %p %l\n' -type f \
       \( -path './usr/*' -printf '%s %T@ %p\n' -o -exec sha256sum {} + \) \) | sort
"""


class Service:
    """The service of the package, and the machine around it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.installing = 0.0  #: seconds that apt took

    def record(self, name: str) -> None:
        """Every file and every package of the machine, as /root/NAME.files and /root/NAME.packages."""
        self.machine.run(f"({_FILES}) >/root/{name}.files", 600)
        self.machine.run(f"dpkg-query -W -f '${{Package}}\\n' | sort >/root/{name}.packages")

    def install(self, package: Path, command: str = "apt-get install -y") -> None:
        self.machine.put(package.read_bytes(), "/root/nfmailguard.deb")
        began = time.monotonic()
        self.machine.run(f"cd /root && DEBIAN_FRONTEND=noninteractive {command} ./nfmailguard.deb", 1800)
        self.installing = time.monotonic() - began

    def show(self, *names: str) -> str:
        """Properties of the unit, one value a line."""
        return self.machine.run(
            f"systemctl show nfmailguard --value {' '.join(f'-p {name}' for name in names)}"
        ).strip()

    def pid(self) -> int:
        """The main process's id; 0: none."""
        return int(self.show("MainPID"))

    def set(self, **settings: str) -> None:
        """Lines of [gateway] in the configuration, by key; values as TOML writes them."""
        for key, value in settings.items():
            self.machine.run(f"sed -i 's|^{key} = .*|{key} = {value}|' {CONFIGURATION}")

    def enforcing(self) -> None:
        """Runs in mode enforce, healthy; started anew only where it does not."""
        if not self.status().startswith("healthy: enforce"):
            self.set(mode='"enforce"', profile='"pix63"')
            self.machine.run("systemctl restart nfmailguard && systemctl enable -q nfmailguard")
            self.healthy()

    def status(self) -> str:
        return self.machine.ask("nfmailguard status").text

    def healthy(self, seconds: float = 120) -> float:
        """Until `status` says healthy; the seconds it took."""
        return self.machine.eventually("nfmailguard status", seconds)

    def findings(self, since: int = 0) -> list[dict[str, Any]]:
        """Findings behind the first ``since`` bytes of the log, each with the server's address."""
        text = self.machine.ask(f'tail -c +{since + 1} {EVENTS} | grep -F \'"event_type":"mailguard"\'').text
        events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [{"dest_ip": event["dest_ip"], **event["mailguard"]} for event in events]

    def log_size(self) -> int:
        return int(self.machine.ask(f"stat -c %s {EVENTS} || echo 0").text.split()[-1])

    def journal(self, since: str = "-1h") -> str:
        return self.machine.run(f"journalctl -u nfmailguard -o cat --no-pager --since '{since}'")
