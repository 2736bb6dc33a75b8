"""The parts of a lab as values: hosts, links, routes, devices of this machine.

Promises: values only. Does not check or make anything: ``plans`` reads and checks, ``topology`` makes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from nfmailguard.policy.model import Mode

__all__ = ["LOSS", "NONE", "TIME", "Attach", "Host", "Link", "Plan", "Role", "Route", "lab_network", "row"]

#: How a plan file writes a link's delay and its packet loss.
TIME = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(us|ms|s)")
LOSS = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%")
#: The word that a plan has for a network without this address family, and for a host without a mail server.
NONE = "none"
_MICROSECONDS = {"us": 1, "ms": 1000, "s": 1_000_000}


class Role(StrEnum):
    """What a host is for: a gateway forwards, and may inspect; mail goes from clients to servers."""

    CLIENT = "client"
    GATEWAY = "gateway"
    SERVER = "server"


class Host(msgspec.Struct, frozen=True):
    """A host. ``profile``: of a gateway; empty: it only forwards. ``server``: which mail server, or ``none``.

    ``role`` None: by the name, which is ``client``, ``server``, or else a gateway's.
    """

    role: Role | None = None
    profile: str = ""
    mode: Mode | None = None
    server: str = ""


class Link(msgspec.Struct, frozen=True):
    """A network: a cable between two ``hosts``, or a switch between more.

    ``ipv4`` and ``ipv6`` are its addresses, ``none``, or empty for the lab's own. ``delay`` ("20ms") and ``loss``
    ("1%") apply to what each of its hosts sends.
    """

    hosts: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    delay: str = ""
    loss: str = ""
    mtu: int | None = None

    @property
    def microseconds(self) -> int:
        found = TIME.fullmatch(self.delay)
        return round(float(found[1]) * _MICROSECONDS[found[2]]) if found else 0

    @property
    def lost(self) -> float:
        """The packet loss in percent."""
        found = LOSS.fullmatch(self.loss)
        return float(found[1]) if found else 0.0


class Route(msgspec.Struct, frozen=True):
    """What ``sender`` sends to ``to`` goes through the gateways ``via``, each connection through one of them."""

    sender: str = msgspec.field(default="", name="from")
    to: str = ""
    via: tuple[str, ...] = ()


class Attach(msgspec.Struct, frozen=True):
    """A network device of this machine as one more interface of a client or a server.

    ``ipv4`` and ``ipv6``: the host's addresses there, with the length of the network ("192.0.2.2/24"), ``none``, or
    empty for the lab's own. ``via4`` and ``via6``: the addresses of the firewall behind the device; empty: the
    network's first.
    """

    device: str = ""
    host: str = ""
    ipv4: str = ""
    ipv6: str = ""
    via4: str = ""
    via6: str = ""


class Plan(msgspec.Struct, frozen=True):
    """A lab. ``host``: the hosts by name, in the order in which they are shown."""

    title: str = ""
    host: dict[str, Host] = {}
    link: tuple[Link, ...] = ()
    route: tuple[Route, ...] = ()
    attach: tuple[Attach, ...] = ()

    def role(self, name: str) -> Role:
        return self.host[name].role or (Role(name) if name in (Role.CLIENT, Role.SERVER) else Role.GATEWAY)

    def of(self, role: Role) -> list[str]:
        """The hosts with that role."""
        return [name for name in self.host if self.role(name) is role]


def row(gateways: Sequence[str], *, server: str = "none", profile: str = "", mode: Mode = Mode.ENFORCE) -> Plan:
    """A client, gateways in a row, all under one profile, and a server."""
    hosts = {Role.CLIENT.value: Host()}
    hosts |= {name: Host(profile=profile, mode=mode) for name in gateways}
    hosts[Role.SERVER.value] = Host(server=server)
    order = list(hosts)
    return Plan("", hosts, tuple(Link(both) for both in itertools.pairwise(order)))


def lab_network(number: int, version: int) -> str:
    """The lab's own network for a link."""
    return f"10.25.{number}.0/24" if version == 4 else f"fd25:{number}::/64"
