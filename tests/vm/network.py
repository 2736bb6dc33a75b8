"""Mail through the machine: a client and a server in namespaces of their own, which the machine routes.

Promises: both families; the server is Postfix's `smtp-sink`, which keeps each mail as a file of its own, the load is
Postfix's `smtp-source`, and a dialogue is a TCP connection that stays open between two questions.
"""

from __future__ import annotations

import shlex

from tests.vm.machine import Machine, Said

__all__ = ["FAMILIES", "Dialogue", "Network"]

#: The server's address by family.
FAMILIES = {"IPv4": "10.2.0.2", "IPv6": "fd02::2"}
_POSTFIX = "/opt/postfix/usr"
_LIBRARIES = f"{_POSTFIX}/lib/postfix:{_POSTFIX}/lib/x86_64-linux-gnu"
_SETUP = f"""
sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
for host in client:1 server:2; do
    name=${{host%:*}} net=${{host#*:}}
    ip netns add $name
    ip link add to-$name type veth peer name eth0 netns $name
    ip addr add 10.$net.0.1/24 dev to-$name
    ip addr add fd0$net::1/64 dev to-$name nodad
    ip link set to-$name up
    ip -n $name addr add 10.$net.0.2/24 dev eth0
    ip -n $name addr add fd0$net::2/64 dev eth0 nodad
    ip -n $name link set lo up
    ip -n $name link set eth0 up
    ip -n $name route add default via 10.$net.0.1
    ip -n $name route add default via fd0$net::1
done
mkdir -p /run/mail && chmod 1777 /run/mail
export LD_LIBRARY_PATH={_LIBRARIES}
for address in {" ".join(FAMILIES.values())}; do
    setsid ip netns exec server {_POSTFIX}/sbin/smtp-sink -u nobody -d /run/mail/ -h mail2.example.com \
        "inet:[$address]:25" 100 >/run/smtp-sink-$address.log 2>&1 &
done
"""


class Network:
    """The two namespaces; they are gone with a reboot, and ``up`` makes them again."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def up(self) -> None:
        """Both namespaces and both servers; nothing where they are there."""
        if self._machine.ask("test -d /run/mail").code:
            self._machine.run(_SETUP)
            self._machine.eventually("test $(ip netns exec server ss -Hltn sport = 25 | wc -l) = 2", 20)

    @staticmethod
    def to(family: str) -> str:
        """Addresses and the server, as `smtp-source` wants them."""
        return f"-f a@example.net -t b@example.com 'inet:[{FAMILIES[family]}]:25'"

    @staticmethod
    def source(options: str) -> str:
        """The command that runs `smtp-source` as the client; its exit code is 0 when each mail was accepted."""
        return f"LD_LIBRARY_PATH={_LIBRARIES} ip netns exec client {_POSTFIX}/sbin/smtp-source {options}"

    def mails(self, family: str, count: int = 1, size: int = 1000, sessions: int = 1, seconds: float = 120) -> Said:
        """``count`` mails of ``size`` bytes."""
        return self._machine.ask(self.source(f"-s {sessions} -m {count} -l {size} {self.to(family)}"), seconds)

    def sent(self, family: str, text: bytes, count: int = 1, sessions: int = 1, seconds: float = 120) -> Said:
        """The same with ``text``, a header and a body, as each mail."""
        self._machine.put(text, "/run/mail.txt")
        options = f"-s {sessions} -m {count} -F /run/mail.txt {self.to(family)}"
        return self._machine.ask(self.source(options), seconds)

    def arrived(self) -> int:
        """How many mails the servers have, since the last ``forget``."""
        return int(self._machine.run("ls /run/mail | wc -l"))

    def bodies(self) -> list[tuple[int, str]]:
        """Each SHA-256 of what the servers have behind a header, and how often."""
        found = self._machine.run(
            "for mail in /run/mail/*; do sed '1,/^\\r*$/d' \"$mail\" | tr -d '\\r' | grep . | sha256sum; done"
            " | sort | uniq -c"
        )
        return [(int(line.split()[0]), line.split()[1]) for line in found.splitlines()]

    def forget(self) -> None:
        """The servers have no mail any more."""
        self._machine.run("find /run/mail -type f -delete")


class Dialogue:
    """A connection to the server, which stays open; a line is said and what comes back is read."""

    def __init__(self, machine: Machine, family: str = "IPv4", name: str = "talk") -> None:
        self._machine = machine
        self._at = f"/run/{name}"
        script = (
            f"exec 3<>/dev/tcp/{FAMILIES[family]}/25 4<>{self._at}/in; "
            f"(cat <&3 >{self._at}/out; touch {self._at}/ended) & cat <&4 >&3"
        )
        self.greeting = machine.run(
            f"rm -rf {self._at}; mkdir {self._at}; mkfifo {self._at}/in; touch {self._at}/out\n"
            f"setsid ip netns exec client bash -c {shlex.quote(script)} >/dev/null 2>&1 &\n" + self._heard(0)
        )

    def _heard(self, size: int | str) -> str:
        return (
            f"for try in $(seq 300); do sleep 0.1; test $(stat -c %s {self._at}/out) -gt {size} && break; done\n"
            f"tail -c +$(({size} + 1)) {self._at}/out"
        )

    def say(self, line: str) -> str:
        """What comes back within 30 seconds; empty when nothing does."""
        at = f"{self._at}/out"
        return self._machine.run(
            f"size=$(stat -c %s {at}); printf '%s\\r\\n' {shlex.quote(line)} >{self._at}/in\n" + self._heard("$size")
        )

    def ended(self) -> bool:
        """Whether the connection was closed or reset."""
        return self._machine.ask(f"test -e {self._at}/ended").code == 0
