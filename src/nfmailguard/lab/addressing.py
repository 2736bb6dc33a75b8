"""Interfaces and addresses of a lab's hosts, and the routes of their packets.

Promises: the same plan gives the same addresses. A gateway has the first address of its networks, or the third where
another gateway has the first; clients and servers have the even ones. Only gateways forward. Does not make anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nfmailguard.lab.plan import NONE, Attach, Plan, Role, lab_network

__all__ = ["Address", "Attached", "Ends", "Way", "addresses", "attached", "shortest", "unreachable", "ways"]

#: Number of the first lab network that is attached to a network device of the machine; lower numbers are links between
#: lab hosts.
_FIRST_ATTACHED = 101


class Address(NamedTuple):
    """One interface of one host; an address is empty where the network has none of that family."""

    host: str
    interface: str
    ipv4: str
    ipv6: str
    #: Prefix lengths of the interface's IPv4 and IPv6 networks.
    length4: int = 24
    length6: int = 64

    def of(self, family: int) -> str:
        return self.ipv4 if family == 4 else self.ipv6

    def network(self, family: int) -> str:
        """The network of one of its addresses."""
        text = f"{self.of(family)}/{self.length4 if family == 4 else self.length6}"
        return str(ipaddress.ip_interface(text).network)


#: All interfaces that are connected to one link.
Ends = tuple[Address, ...]


class Way(NamedTuple):
    """A route of a host: by the addresses ``through``; if there are several, each connection uses one of them."""

    destination: str
    through: tuple[str, ...]


def addresses(plan: Plan) -> tuple[Ends, ...]:
    """The interfaces on each link of a valid plan, in its order."""
    used: set[tuple[str, str]] = set()
    steps = _steps(plan)
    made = []
    for number, link in enumerate(plan.link, start=1):
        networks = [_network(text, number, version) for text, version in ((link.ipv4, 4), (link.ipv6, 6))]
        odd, even = 1, 2
        ends = []
        for host in link.hosts:
            if plan.role(host) is Role.GATEWAY:
                near = min((steps[name] for name in link.hosts if name != host), default=0) < steps[host]
                place, odd, wanted = odd, odd + 2, "outside" if near else "inside"
            else:
                place, even, wanted = even, even + 2, "net"
            name = _free(wanted, host, used)
            four, six = ("" if network is None else str(network[place]) for network in networks)
            lengths = [0 if network is None else network.prefixlen for network in networks]
            ends.append(Address(host, name, four, six, *lengths))
        made.append(tuple(ends))
    return tuple(made)


class Attached(NamedTuple):
    """A host's interface at a network device of this machine, and the addresses of the firewall behind the device."""

    device: str
    end: Address
    via4: str
    via6: str


def attached(one: Attach, number: int, interface: str) -> Attached:
    """The ``number``-th device, from 0 on, as the host's interface ``interface``."""
    (own4, via4, length4), (own6, via6, length6) = (
        _own(text, via, number, version) for text, via, version in ((one.ipv4, one.via4, 4), (one.ipv6, one.via6, 6))
    )
    return Attached(one.device, Address(one.host, interface, own4, own6, length4, length6), via4, via6)


def _own(text: str, via: str, number: int, version: int) -> tuple[str, str, int]:
    if text == NONE:
        return "", "", 0
    network = ipaddress.ip_network(lab_network(_FIRST_ATTACHED + number, version))
    own = ipaddress.ip_interface(text or f"{network[2]}/{network.prefixlen}")
    return str(own.ip), via or str(own.network[1]), own.network.prefixlen


def _network(text: str, number: int, version: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    return None if text == NONE else ipaddress.ip_network(text or lab_network(number, version))


def _free(wanted: str, host: str, used: set[tuple[str, str]]) -> str:
    """A free interface name: ``net0``, ``net1`` and so on; for a gateway ``outside``, ``outside2``."""
    first = "net0" if wanted == "net" else wanted
    names = [first, *(f"{wanted}{number if wanted != 'net' else number - 1}" for number in range(2, 101))]
    name = next(name for name in names if (host, name) not in used)
    used.add((host, name))
    return name


def _steps(plan: Plan) -> dict[str, int]:
    """How many links each host is away from the first client; a very large number if there is no path."""
    found = dict.fromkeys(plan.host, len(plan.host) + 1)
    reached = [plan.of(Role.CLIENT)[0]]
    found[reached[0]] = 0
    for host in reached:
        for link in plan.link:
            for other in link.hosts if host in link.hosts else ():
                if found[other] > len(plan.host):
                    found[other] = found[host] + 1
                    reached.append(other)
    return found


def ways(plan: Plan, links: Sequence[Ends], host: str) -> Iterator[Way]:
    """The routes of a host: as the plan says, else the shortest; a default route if only one path exists."""
    near = [ends for ends in links if any(end.host == host for end in ends)]
    gateways = [end for ends in near for end in ends if plan.role(end.host) is Role.GATEWAY]
    if plan.role(host) is not Role.GATEWAY and len(near) == 1 and len(gateways) == 1:
        for family, every in ((4, "0.0.0.0/0"), (6, "::/0")):
            if gateways[0].of(family):
                yield Way(every, (gateways[0].of(family),))
        return
    for ends in links:
        if ends in near:
            continue
        for family in (4, 6):
            if ends[0].of(family) and (through := _through(plan, links, host, ends, family)):
                yield Way(ends[0].network(family), through)


def _through(plan: Plan, links: Sequence[Ends], host: str, to: Ends, family: int) -> tuple[str, ...]:
    for route in plan.route:
        if route.sender == host and any(end.host == route.to for end in to):
            found = tuple(text for name in route.via if (text := _beside(links, host, name, family)))
            if found:
                return found
    path = shortest(plan, links, host, to, family)
    return (_beside(links, host, path[0], family),) if path else ()


def _beside(links: Sequence[Ends], host: str, neighbour: str, family: int) -> str:
    """The address of a neighbour on a link that both hosts share; empty if there is none of that family."""
    for ends in links:
        if any(end.host == host for end in ends):
            for end in ends:
                if end.host == neighbour and end.of(family):
                    return end.of(family)
    return ""


def shortest(plan: Plan, links: Sequence[Ends], host: str, to: Ends, family: int) -> list[str]:
    """The gateways on a host's shortest path to a network; none if there is no path, or the host is on it."""
    places = {end.host for end in to}
    reached, found = [host], {host: list[str]()}
    for here in reached:
        if here in places:
            return found[here]
        for ends in links:
            if not ends[0].of(family) or all(end.host != here for end in ends):
                continue
            for end in ends:
                if end.host not in found and plan.role(end.host) is Role.GATEWAY:
                    found[end.host] = [*found[here], end.host]
                    reached.append(end.host)
    return []


def unreachable(plan: Plan, links: Sequence[Ends]) -> Iterator[str]:
    """Servers to which a client has no path, in either address family."""
    for client in plan.of(Role.CLIENT):
        for server in plan.of(Role.SERVER):
            theirs = [ends for ends in links if any(end.host == server for end in ends)]
            if not any(
                any(end.host == client for end in ends)
                or (ends[0].of(family) and shortest(plan, links, client, ends, family))
                for ends in theirs
                for family in (4, 6)
            ):
                yield f"host.{server}: no way from {client} to it"
