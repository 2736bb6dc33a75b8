"""``lab up | status | set | exec | down``: labs that run until they are taken down, for people to work in.

Promises: up and down are idempotent; a lab is one process (``keeper``) with namespaces of its own, so that nothing is
left of it however it ends; several run side by side under different names. Labs are found by their sockets, which have
no file (the abstract namespace of unix(7)). Needs no root where the kernel allows unprivileged user namespaces, except
for servers that change users.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nfmailguard.errors import LabError
from nfmailguard.lab.keeper import control_of, events_of
from nfmailguard.lab.namespaces import start_private
from nfmailguard.lab.plan import Plan, row
from nfmailguard.lab.plans import SERVER_KINDS
from nfmailguard.lab.topology import GATEWAY, Topology
from nfmailguard.policy.model import Mode

__all__ = [
    "DEFAULT",
    "Wanted",
    "described",
    "down",
    "execute",
    "first",
    "names",
    "reset",
    "status",
    "talk",
    "up",
    "within",
]

DEFAULT = "lab"
_PREFIX = "nfmailguard-lab/"
_PATIENCE = 60.0  # Seconds a lab may take to start, and as many again for each host's programs, on a busy machine.
#: Labs started by this process and not stopped yet: the process that holds each lab's namespaces, by the lab's name.
_WORLDS: dict[str, subprocess.Popen[bytes]] = {}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class Wanted(NamedTuple):
    """The contents of a lab. ``server``: a kind of ``SERVER_KINDS``, or none; ``gateway``: a profile, or empty."""

    server: str = "aiosmtpd"
    gateway: str = ""
    mode: str = "enforce"

    def plan(self) -> Plan:
        return row((GATEWAY,), server=self.server, profile=self.gateway, mode=Mode(self.mode))


def _address(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise LabError(f"lab: {name!r} is no name for a lab; use letters a-z, digits and -, at most 32")
    return f"\0{_PREFIX}{name}"


def names() -> list[str]:
    """Names of the labs that are running or being started."""
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines():
        path = line.rpartition(" ")[2]
        if path.startswith(f"@{_PREFIX}"):
            found.add(path.removeprefix(f"@{_PREFIX}"))
    return sorted(found)


def _connect(name: str) -> socket.socket | None:
    """A connection to a lab; None if there is none."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(60)
    try:
        link.connect(_address(name))
    except ConnectionRefusedError:
        link.close()
        return None
    except BaseException:
        link.close()
        raise
    _, uid, _ = _peer(link)
    # Any user may listen under any abstract socket name, so the owner of the other end is checked.
    if uid not in (0, os.geteuid()):
        link.close()
        raise LabError(f"lab: the lab {name!r} is another user's (uid {uid}); choose a --name of your own")
    return link


def _peer(link: socket.socket) -> tuple[int, int, int]:
    """Process, user and group at the other end."""
    pid, uid, gid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def _gone(name: str) -> LabError:
    others = f"; these do: {', '.join(names())}" if names() else ""
    option = "" if name == DEFAULT else f" --name {name}"
    return LabError(f"lab: no lab {name!r} is running{others}; start one with `nfmailguard lab up{option}`")


def _ask(name: str, question: Mapping[str, Any]) -> dict[str, Any]:
    link = _connect(name)
    if link is None:
        raise _gone(name)
    with link:
        link.sendall(json.dumps(question).encode() + b"\n")
        return _answered(link)


def _answered(link: socket.socket) -> dict[str, Any]:
    try:
        line = link.makefile("rb").readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "lab: it ended"}
    except (OSError, ValueError) as error:
        raise LabError(f"lab: it does not answer: {error}") from error
    if "error" in answer:
        raise LabError(str(answer["error"]))
    found: dict[str, Any] = answer["answer"]
    return found


def up(name: str = DEFAULT, wanted: Wanted | Plan | None = None) -> bool:
    """Starts a lab; False if one of that name is running already. Raises LabError with what failed."""
    wanted = wanted or Wanted()
    if isinstance(wanted, Wanted) and wanted.server not in ("none", *SERVER_KINDS):
        raise LabError(f"lab: no server {wanted.server!r}; one of {', '.join(SERVER_KINDS)}, none")
    plan = wanted.plan() if isinstance(wanted, Wanted) else wanted
    address = _address(name)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ours, theirs = socket.socketpair()
    with door, ours:
        try:
            door.bind(address)
        except OSError as error:
            theirs.close()
            if (link := _connect(name)) is None:
                raise LabError(f"lab: the lab {name!r} is being made, or removed: {error.strerror}") from error
            link.close()
            return False
        with theirs:
            argv = [sys.executable, "-m", "nfmailguard.lab.keeper", str(door.fileno()), str(theirs.fileno())]
            argv += [msgspec.json.encode(plan).decode(), name]
            numbers = [door.fileno(), theirs.fileno()]
            if plan.attach:
                numbers.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
                argv.append(str(numbers[-1]))
            quiet: dict[str, int] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            try:
                world = start_private(argv, numbers, **quiet)
            finally:
                for number in numbers[2:]:
                    os.close(number)
        ours.settimeout(_PATIENCE * (1 + len(plan.host)))
        try:
            _answered(ours)
            ours.sendall(b"+")
        except BaseException:
            ours.close()  # Closing this connection ends the lab's process and its namespaces.
            world.wait(30)
            raise
    _WORLDS[name] = world
    return True


def status(name: str = DEFAULT) -> dict[str, Any]:
    """The lab's status."""
    return _ask(name, {"command": "status"})


def reset(name: str, host: str, profile: str | None, mode: str | None) -> dict[str, Any]:
    """Makes a gateway take another profile or mode, or starts one; what is in force now, and what has changed.

    ``host``: empty if there is only one. Connections that are open keep the rules they began under (docs/daemon.md).
    """
    return _ask(name, {"command": "set", "host": host, "profile": profile, "mode": mode})


def down(name: str = DEFAULT) -> bool:
    """Ends a lab, and waits until it has gone; False if there was none."""
    link = _connect(name)
    if link is None:
        return False
    with link:
        pid, _, _ = _peer(link)
        handle = os.pidfd_open(pid)
        try:
            link.sendall(b'{"command": "down"}\n')
            import select

            if not select.select([handle], [], [], 30)[0]:
                raise LabError(f"lab: process {pid} does not end; `kill -9 {pid}` ends it, and leaves nothing")
        finally:
            os.close(handle)
    if name in _WORLDS:
        _WORLDS.pop(name).wait(30)
    deadline = time.monotonic() + 10
    while name in names() and time.monotonic() < deadline:
        time.sleep(0.02)
    return True


def first(found: Mapping[str, Any], role: str) -> str:
    """The first host with a role in a lab's status."""
    return next(str(host) for host, its in found["roles"].items() if its == role)


def execute(host: str, argv: Sequence[str], name: str = DEFAULT) -> int:
    """Runs a command on ``host`` and returns its exit code; /run and /mnt are the lab's, all other
    files this machine's.
    """
    hosts = list(status(name)["roles"])
    if host not in hosts:
        raise LabError(f"lab: no host {host!r}; the hosts are {', '.join(hosts)}")
    return within(name, argv, host).returncode


def within(name: str, argv: Sequence[str], host: str = "", **options: Any) -> subprocess.CompletedProcess[Any]:
    """Runs a command in a lab, on ``host`` or, without one, beside its hosts; ``options`` as of ``subprocess.run``."""
    link = _connect(name)
    if link is None:
        raise _gone(name)
    with link:
        pid, _, _ = _peer(link)
        network = f"/proc/{pid}/root/run/netns/{Topology().namespace(host)}" if host else f"/proc/{pid}/ns/net"
        here = os.getcwd()  # noqa: PTH109 - for another process
        command = ["nsenter", f"--target={pid}", "--mount", "--pid", f"--net={network}"]
        if os.geteuid() != 0:
            command += ["--user", "--preserve-credentials"]
        return subprocess.run([*command, "--", "env", f"--chdir={here}", *argv], check=False, **options)


def talk(name: str = DEFAULT, to: str = "", family: int = 4) -> int:
    """Speaks SMTP from the client to a server, line by line, as with telnet; the exit code.

    ``to``: an address; else that of the first server.
    """
    found = status(name)
    server = first(found, "server")
    ends = next(ends for host, ends in found["hosts"] if host == server)
    address = to or next((end[1 if family == 4 else 2] for end in ends if end[1 if family == 4 else 2]), "")
    if not address:
        raise LabError(f"lab: {server} has no address of IPv{family}")
    return execute(first(found, "client"), [sys.executable, "-m", "nfmailguard.lab.talk", address], name)


def described(found: Mapping[str, Any], name: str = DEFAULT) -> Iterator[str]:
    """The lab's hosts, what runs on them, and what can be done next, one line each."""
    width = max(8, *(len(host) for host, _ in found["hosts"]))
    for host, ends in found["hosts"]:
        places = "; ".join(f"{interface} {', '.join(filter(None, texts))}" for interface, *texts in ends)
        yield f"{host:{width}} {places}{_runs(found, host)}"
    for one in found["attached"]:
        box = ", ".join(filter(None, (one["via4"], one["via6"])))
        own = ", ".join(filter(None, (one["ipv4"], one["ipv6"])))
        yield (
            f"{one['device']:{width}} of this machine, {one['state']}; {one['host']} {one['interface']} {own};"
            f" the box behind it is {box}"
        )
    if len(found["paths"]) > 1:
        ways = (f"{one['name']} ({one['ipv4'] or one['ipv6']})" for one in found["paths"])
        yield f"{'paths':{width}} {', '.join(ways)}"
    yield "next:"
    yield from _next_steps(found, "" if name == DEFAULT else f" --name {name}")


def _runs(found: Mapping[str, Any], host: str) -> str:
    if server := found["servers"].get(host):
        listens = "on port 25" if server["listens"] else "does NOT listen"
        return f"; {server['kind']} {listens}, {server['mails']} mails"
    if gateway := found["gateways"].get(host):
        running = f", {gateway['events']} events" if gateway["running"] else f" has ENDED: {gateway['said']}"
        return f"; nfmailguard {gateway['mode']} {gateway['profile']}{running}"
    return ""


def _next_steps(found: Mapping[str, Any], option: str) -> Iterator[str]:
    client, server = first(found, "client"), first(found, "server")
    ends = next(ends for host, ends in found["hosts"] if host == server)
    if found["servers"]:
        yield f"  nfmailguard lab talk{option}    speak SMTP from the client to the server, line by line"
    else:
        yield f"  nfmailguard lab exec{option} {server} -- COMMAND    start a mail server of yours"
    yield f"  nfmailguard lab exec{option} {client} -- nmap -sV -p 25 {next(filter(None, ends[0][1:]))}"
    gateways = [host for host, role in found["roles"].items() if role == "gateway"]
    running = next(iter(found["gateways"]), "")
    for host in gateways[:1]:
        gateway = found["gateways"].get(running)
        other = "pix63" if gateway and gateway["profile"] != "pix63" else "asa"
        does = "be another box, for new connections" if gateway else "put a gateway in the path"
        which = f" {running or host}" if len(gateways) > 1 else ""
        yield f"  nfmailguard lab set{which}{option} --profile {other}    {does}"
    if running:
        yield f"  nfmailguard lab exec{option} {running} -- nfmailguard status --socket {control_of(running)}"
        yield f"  nfmailguard lab exec{option} {running} -- nfmailguard transcript {events_of(running)}"
    if len(found["paths"]) > 1:
        yield f"  nfmailguard lab diff{option}    send the same dialogues by both paths, and see where they differ"
    yield f"  nfmailguard lab down{option}    remove it, with everything in it"
