"""The process that holds a lab: hosts, servers and gateways run in its namespaces, and end when it ends.

Run by ``standing`` as ``python -m nfmailguard.lab.keeper SOCKET LIFELINE PLAN NAME [NETWORK]`` (the name is for `ps`;
the last is a descriptor of the machine's network namespace, whose devices the lab uses), in private namespaces, as
their first process: whatever ends it, even a signal that cannot be caught, the kernel then ends every process in them
and removes the network, its rules and every file of the lab (under /mnt and /run). Answers each line of JSON on the
socket with another line. Does not know the lab's name.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from nfmailguard.errors import LabError, NfmailguardError
from nfmailguard.lab.addressing import shortest
from nfmailguard.lab.devices import attach, described
from nfmailguard.lab.namespaces import enter_private
from nfmailguard.lab.plan import NONE, Plan, Role
from nfmailguard.lab.postfix import Postfix
from nfmailguard.lab.servers import Gateway, MailServer
from nfmailguard.lab.topology import GATEWAY, Topology
from nfmailguard.lab.unpacked import Unpacked
from nfmailguard.policy.model import Mode
from nfmailguard.service.asking import Asking

__all__ = ["CONTROL", "DIRECTORY", "EVENTS", "Keeper", "control_of", "events_of", "main"]

#: Mount point inside the lab of a file system of its own, which disappears with the lab.
DIRECTORY = Path("/mnt")
CONTROL, EVENTS = DIRECTORY / "control", DIRECTORY / "gateway" / "eve.json"
_MOST = 1 << 16  # Largest request to the lab's process, in bytes.
_PATIENCE = 5.0  # Seconds a client of the lab's process has to send its request.
_POSTFIX_TLS = """\
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_tls_security_level = may
smtpd_tls_cert_file = {directory}/certificate.pem
smtpd_tls_key_file = {directory}/key.pem
"""


def control_of(host: str) -> Path:
    """The control socket of the gateway on a host."""
    return CONTROL if host == GATEWAY else DIRECTORY / f"{host}.control"


def events_of(host: str) -> Path:
    """The event log of the gateway on a host."""
    return DIRECTORY / host / EVENTS.name


def _config_of(host: str) -> Path:
    return DIRECTORY / f"{host}.toml"


class Keeper:
    """A running lab according to ``plan``. ``machine``: a descriptor of the network namespace its devices are in."""

    def __init__(self, stack: ExitStack, plan: Plan, machine: int = -1) -> None:
        self._stack = stack
        self.topology = stack.enter_context(Topology(plan=plan))
        self._attached = attach(self.topology, machine) if plan.attach else []
        self._gateways: dict[str, Gateway] = {}
        self._rules: dict[str, dict[str, str]] = {}
        self._servers: dict[str, MailServer | Postfix | Unpacked] = {}
        for host, one in plan.host.items():
            if one.server and one.server != NONE:
                self._serve(host, one.server)
            if one.profile:
                self.guard(host, one.profile, one.mode or Mode.ENFORCE)

    def _addresses(self, host: str) -> tuple[str, ...]:
        ends = [*self.topology.ends(host), *(one.end for one in self._attached if one.end.host == host)]
        return tuple(end.of(family) for end in ends for family in (4, 6) if end.of(family))

    def _serve(self, host: str, kind: str) -> None:
        directory = DIRECTORY / host
        addresses = self._addresses(host)
        server: MailServer | Postfix | Unpacked
        if kind == "aiosmtpd":
            server = MailServer(self.topology, directory, host=host, addresses=addresses)
        elif kind == "postfix":
            server = Postfix(self.topology, host, directory, addresses=addresses, settings=_POSTFIX_TLS)
        else:
            server = Unpacked(self.topology, directory, kind, host=host, addresses=addresses)
        self._stack.callback(server.__exit__, None, None, None)
        self._servers[host] = server

    def guard(self, host: str, profile: str, mode: str) -> list[str]:
        """Starts a gateway, or makes it take other rules; what has changed. Raises LabError with
        the gateway's message.
        """
        was, self._rules[host] = self._rules.get(host), {"mode": str(mode), "profile": profile}
        config, running = _config_of(host), self._gateways.get(host)
        before = config.read_text() if config.exists() else None
        config.write_text(f"[gateway]\nmode = {json.dumps(mode)}\nprofile = {json.dumps(profile)}\n")
        try:
            if running is not None and running.process.poll() is None:
                with Asking(str(control_of(host))) as asking:
                    return [str(line) for line in asking.ask("reload")["changed"]]
            options = ("-c", str(config), "--set", f"service.control={control_of(host)}")
            self._gateways[host] = self._stack.enter_context(
                Gateway(self.topology, DIRECTORY / host, *options, host=host)
            )
        except BaseException:
            if was is None:
                del self._rules[host]
            else:
                self._rules[host] = was
            if before is not None:
                config.write_text(before)
            raise
        return []

    def status(self) -> dict[str, Any]:
        """Hosts, addresses and programs. ``server`` and ``gateway`` are the first ones, for callers
        that know only one.
        """
        topology = self.topology
        hosts = [
            [host, [[end.interface, end.ipv4, end.ipv6] for end in topology.ends(host)]] for host in topology.hosts
        ]
        gateways = {host: self._gateway_state(host) for host in self._gateways}
        servers = {host: self._server_state(host) for host in self._servers}
        found: dict[str, Any] = {
            "hosts": hosts,
            "roles": {host: str(topology.plan.role(host)) for host in topology.hosts},
            "servers": servers,
            "gateways": gateways,
            "attached": described(topology, self._attached),
            "paths": list(self._paths()),
            "server": next(iter(servers.values()), None),
            "gateway": None,
        }
        for first in (*gateways,)[:1]:
            found["gateway"] = {key: value for key, value in gateways[first].items() if key != "events"}
            found["events"] = gateways[first]["events"]
        return found

    def _paths(self) -> Iterator[dict[str, Any]]:
        """The paths from the first client to the first server, one for each of its addresses: the gateways on them."""
        plan, links = self.topology.plan, self.topology.links
        client, server = plan.of(Role.CLIENT)[0], plan.of(Role.SERVER)[0]
        for ends in links:
            for end in ends:
                if end.host == server:
                    family = 4 if end.ipv4 else 6
                    gateways = shortest(plan, links, client, ends, family)
                    inspect = [host for host in gateways if host in self._rules]
                    name = "+".join(inspect or gateways) or end.interface
                    yield {"name": name, "gateways": inspect, "ipv4": end.ipv4, "ipv6": end.ipv6}
        for one in self._attached:
            if one.end.host == server:
                yield {"name": one.device, "gateways": [], "ipv4": one.end.ipv4, "ipv6": one.end.ipv6}

    def _gateway_state(self, host: str) -> dict[str, Any]:
        gateway, events = self._gateways[host], 0
        running = gateway.process.poll() is None
        with suppress(OSError):
            events = events_of(host).read_bytes().count(b"\n")
        said = "" if running else gateway.printed()
        return {**self._rules[host], "running": running, "said": said, "events": events}

    def _server_state(self, host: str) -> dict[str, Any]:
        try:
            with self.topology.enter(host), socket.create_connection((self._addresses(host)[0], 25), 2):
                listens = True
        except OSError:
            listens = False
        kind = self.topology.plan.host[host].server
        return {"kind": kind, "listens": listens, "mails": len(self._servers[host].mails())}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        if question.get("command") == "set":
            host = self._gateway_meant(str(question.get("host") or ""))
            rules = self._rules.get(host, {"profile": "pix63", "mode": "enforce"})
            chosen = {key: str(question.get(key) or rules[key]) for key in ("profile", "mode")}
            return {"changed": self.guard(host, **chosen), "host": host, **self._rules[host]}
        return self.status()

    def _gateway_meant(self, host: str) -> str:
        """The host that is named, or the only possible one."""
        known = self.topology.plan.of(Role.GATEWAY)
        if host and host not in known:
            raise LabError(f"lab: no gateway {host!r}; {_among(known)}")
        if not host and len(known) != 1:
            raise LabError(f"lab: which gateway? {_among(known)}")
        return host or known[0]


def _among(known: Sequence[str]) -> str:
    return f"this lab's are {', '.join(known)}" if known else "this lab has none"


def _tell(link: socket.socket, answer: dict[str, Any]) -> None:
    with suppress(OSError):
        link.sendall(json.dumps(answer).encode() + b"\n")


def _reap(own: set[int]) -> None:
    """Waits for orphaned processes, which become children of this one; those it started itself are
    waited for elsewhere.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in own:
            return
        with suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)


def _one(link: socket.socket, keeper: Keeper) -> bool:
    """Answers one request; False if it was to end the lab."""
    link.settimeout(_PATIENCE)
    try:
        asked = json.loads(link.makefile("rb").readline(_MOST))
    except (OSError, ValueError):
        return True
    if not isinstance(asked, dict):
        return True
    if asked.get("command") == "down":
        return False
    try:
        _tell(link, {"answer": keeper.answer(asked)})
    except (NfmailguardError, OSError, subprocess.SubprocessError) as error:
        _tell(link, {"error": str(error)})
    return True


def keep(door: socket.socket, lifeline: socket.socket, taken: threading.Event, plan: Plan, machine: int) -> None:
    """Builds the lab, reports that on ``lifeline``, and answers on ``door`` until it is told to end."""
    with ExitStack() as stack:
        try:
            keeper = Keeper(stack, plan, machine)
        finally:
            if machine >= 0:
                os.close(machine)
        # Whoever connects learns this process's id from the listening socket, so it listens only here, in the process
        # that stays.
        door.listen(8)
        _tell(lifeline, {"answer": keeper.status()})
        taken.wait()
        lifeline.close()
        while True:
            if select.select([door], [], [], 5)[0]:
                link, _ = door.accept()
                with link:
                    if not _one(link, keeper):
                        return
            _reap({process.pid for process in keeper.topology._processes})


def _watch(lifeline: socket.socket) -> threading.Event:
    """An event that is set when the starting process has taken the lab over; if that process ends before, everything
    ends.
    """
    taken = threading.Event()

    def wait() -> None:
        answer = b""
        with suppress(OSError):
            answer = lifeline.recv(1)
        if answer != b"+":
            os._exit(1)
        taken.set()

    threading.Thread(target=wait, daemon=True).start()
    return taken


def main(argv: list[str]) -> None:
    """Runs until the lab ends."""
    door, lifeline = (socket.socket(fileno=int(number)) for number in argv[:2])
    door.set_inheritable(False)
    lifeline.set_inheritable(False)
    machine = int(argv[4]) if len(argv) > 4 else -1
    if machine >= 0:
        os.set_inheritable(machine, False)
    taken = _watch(lifeline)
    # This process's standard error is read by nobody, so an internal error is reported to the process that started the
    # lab.
    sys.excepthook = lambda kind, error, _: _tell(lifeline, {"error": f"lab: internal error: {kind.__name__}: {error}"})
    try:
        enter_private()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(DIRECTORY)], check=True)
        os.environ["TMPDIR"] = str(DIRECTORY)
        keep(door, lifeline, taken, msgspec.json.decode(argv[2], type=Plan), machine)
    except (NfmailguardError, OSError, subprocess.SubprocessError) as error:
        _tell(lifeline, {"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
