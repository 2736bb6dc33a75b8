"""``lab up | down | exec``: a lab that stands until it is taken down, for people to work in.

Promises: up and down are idempotent; nothing but the three namespaces is made. Needs
root, because what stands has to be seen by other processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from nfmailguard.errors import LabError
from nfmailguard.lab.topology import HOSTS, SERVER, Topology

__all__ = ["described", "down", "execute", "up"]

PREFIX = "nfmg-"


def _topology() -> Topology:
    if os.geteuid() != 0:
        raise LabError("lab: a standing lab needs root (`lab demo` does not)")
    return Topology(PREFIX)


def up() -> bool:
    """Makes the hosts; False when they stand already. A half-made lab is made anew."""
    topology = _topology()
    if topology.exists():
        return False
    topology.close()
    topology.open()
    return True


def described() -> Iterator[str]:
    """Who is where in it, and how to go on, a line each."""
    topology = _topology()
    for host in HOSTS:
        ends = [
            f"{end.interface} {end.ipv4}, {end.ipv6}" for link in topology.links for end in link if end.host == host
        ]
        yield f"{host:8} {'; '.join(ends)}"
    server = topology.address(SERVER)
    yield "go on:   nfmailguard lab exec gateway -- nfmailguard run -c /dev/null --set log.eve=-"
    yield f"         nfmailguard lab exec client -- nmap -sV -p 25 {server}"
    yield "end it:  nfmailguard lab down"


def down() -> bool:
    """Removes the hosts; False when there were none."""
    topology = _topology()
    stood = topology.exists()
    topology.close()
    return stood


def execute(host: str, argv: Sequence[str]) -> int:
    """Runs a command on ``host`` and returns its exit code."""
    topology = _topology()
    if host not in HOSTS:
        raise LabError(f"lab: no host {host!r}; the hosts are {', '.join(HOSTS)}")
    if not topology.exists():
        raise LabError("lab: it does not stand; run `nfmailguard lab up`")
    return topology.run(host, argv).returncode
