"""``lab up | status | set | exec | down``: labs that stand until they are taken down, for people to work in.

Promises: up and down are idempotent; a lab is one process (``keeper``) with namespaces of its own, so that nothing is
left of it however it ends; several stand side by side under names of their own. Labs are found by their sockets, which
have no file (the abstract namespace of unix(7)). Needs no root where the kernel allows unprivileged user namespaces,
but for servers that change users.
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

from nfmailguard.errors import LabError
from nfmailguard.lab.keeper import CONTROL, EVENTS, SERVER_KINDS
from nfmailguard.lab.namespaces import start_private
from nfmailguard.lab.topology import CLIENT, HOSTS, SERVER, Topology

__all__ = ["DEFAULT", "Wanted", "described", "down", "execute", "names", "reset", "status", "talk", "up"]

DEFAULT = "lab"
_PREFIX = "nfmailguard-lab/"
_PATIENCE = 90.0  # seconds a lab may take to stand
#: Those that this process has begun, and not taken down.
_WORLDS: dict[str, subprocess.Popen[bytes]] = {}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class Wanted(NamedTuple):
    """What a lab is to hold. ``server``: a kind of ``SERVER_KINDS``, or none; ``gateway``: a profile, or empty."""

    server: str = "aiosmtpd"
    gateway: str = ""
    mode: str = "enforce"


def _address(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise LabError(f"lab: {name!r} is no name for a lab; use letters a-z, digits and -, at most 32")
    return f"\0{_PREFIX}{name}"


def names() -> list[str]:
    """The labs that stand, or are being made."""
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines():
        path = line.rpartition(" ")[2]
        if path.startswith(f"@{_PREFIX}"):
            found.add(path.removeprefix(f"@{_PREFIX}"))
    return sorted(found)


def _connect(name: str) -> socket.socket | None:
    """A connection to a lab; None where there is none."""
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
    if uid not in (0, os.geteuid()):  # anybody may take a name
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


def up(name: str = DEFAULT, wanted: Wanted | None = None) -> bool:
    """Makes a lab; False when one of that name stands already. Raises LabError with what failed."""
    wanted = wanted or Wanted()
    if wanted.server not in ("none", *SERVER_KINDS):
        raise LabError(f"lab: no server {wanted.server!r}; one of {', '.join(SERVER_KINDS)}, none")
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
            numbers = (door.fileno(), theirs.fileno())
            quiet: dict[str, int] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            world = start_private([*argv, json.dumps(wanted._asdict()), name], numbers, **quiet)
        ours.settimeout(_PATIENCE)
        try:
            _answered(ours)
            ours.sendall(b"+")
        except BaseException:
            ours.close()  # which ends the world
            world.wait(30)
            raise
    _WORLDS[name] = world
    return True


def status(name: str = DEFAULT) -> dict[str, Any]:
    """What the lab says of itself."""
    return _ask(name, {"command": "status"})


def reset(name: str, profile: str | None, mode: str | None) -> dict[str, Any]:
    """Has its gateway take another profile or mode, or starts one; what is in force now, and what has changed.

    Connections that are open keep the rules they began under (docs/daemon.md).
    """
    return _ask(name, {"command": "set", "profile": profile, "mode": mode})


def down(name: str = DEFAULT) -> bool:
    """Ends a lab, and waits until it has gone; False when there was none."""
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


def execute(host: str, argv: Sequence[str], name: str = DEFAULT) -> int:
    """Runs a command on ``host`` and returns its exit code; /run and /mnt are the lab's there, all else is here's."""
    if host not in HOSTS:
        raise LabError(f"lab: no host {host!r}; the hosts are {', '.join(HOSTS)}")
    link = _connect(name)
    if link is None:
        raise _gone(name)
    with link:
        pid, _, _ = _peer(link)
        namespace = f"/proc/{pid}/root/run/netns/{Topology().namespace(host)}"
        here = os.getcwd()  # noqa: PTH109 - for another process
        command = ["nsenter", f"--target={pid}", "--mount", "--pid", f"--net={namespace}"]
        if os.geteuid() != 0:
            command += ["--user", "--preserve-credentials"]
        return subprocess.run([*command, "--", "env", f"--chdir={here}", *argv], check=False).returncode


def talk(name: str = DEFAULT) -> int:
    """Speaks SMTP from the client to the server, line by line, as telnet would; the exit code."""
    argv = [sys.executable, "-m", "nfmailguard.lab.talk", Topology().address(SERVER)]
    return execute(CLIENT, argv, name)


def described(found: Mapping[str, Any], name: str = DEFAULT) -> Iterator[str]:
    """Who is where in it, what runs, and how to go on, a line each."""
    option = "" if name == DEFAULT else f" --name {name}"
    server, gateway = found["server"], found["gateway"]
    for host, ends in found["hosts"]:
        what = ""
        if host == SERVER and server:
            listens = "on port 25" if server["listens"] else "does NOT listen"
            what = f"; {server['kind']} {listens}, {server['mails']} mails"
        if host == "gateway" and gateway:
            state = f"{gateway['mode']} {gateway['profile']}"
            running = f", {found.get('events', 0)} events" if gateway["running"] else f" has ENDED: {gateway['said']}"
            what = f"; nfmailguard {state}{running}"
        yield f"{host:8} " + "; ".join(f"{interface} {four}, {six}" for interface, four, six in ends) + what
    address = Topology().address(SERVER)
    yield "next:"
    if server:
        yield f"  nfmailguard lab talk{option}    speak SMTP from the client to the server, line by line"
    else:
        yield f"  nfmailguard lab exec{option} server -- COMMAND    start a mail server of yours"
    yield f"  nfmailguard lab exec{option} client -- nmap -sV -p 25 {address}"
    other = "pix63" if gateway and gateway["profile"] != "pix63" else "asa"
    does = "be another box, for new connections" if gateway else "put a gateway in the path"
    yield f"  nfmailguard lab set{option} --profile {other}    {does}"
    if gateway:
        yield f"  nfmailguard lab exec{option} gateway -- nfmailguard status --socket {CONTROL}"
        yield f"  nfmailguard lab exec{option} gateway -- nfmailguard transcript {EVENTS}"
    yield f"  nfmailguard lab down{option}    remove it, with everything in it"
