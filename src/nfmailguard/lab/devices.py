"""Network devices of this machine in a lab: each by a macvlan on it (mode passthru), which is the lab's interface.

Promises: the device itself is not moved or changed, and the kernel removes the macvlan with the lab's namespaces,
however the lab ends. While the lab uses it, this machine receives nothing on it. What cannot be attached raises
LabError, a line that says why.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any

from nfmailguard.errors import LabError
from nfmailguard.lab.addressing import Attached, Way, attached
from nfmailguard.lab.plan import Role
from nfmailguard.lab.topology import Topology, add_address, add_route

__all__ = ["attach", "described", "planned"]

_IFF_UP, _IFF_LOOPBACK, _IFF_LOWER_UP = 0x1, 0x8, 0x10000
_WHY = {
    errno.EBUSY: "is a port of a bridge, or otherwise taken",
    errno.EINVAL: "is in another lab, or is no Ethernet device",
    errno.EOPNOTSUPP: "cannot be shared: this kernel has no macvlan (CONFIG_MACVLAN); try `modprobe macvlan`",
    errno.EPERM: "cannot be had without root",
    errno.ENODEV: "has gone",
}


def planned(topology: Topology) -> list[Attached]:
    """The plan's devices, each as the next interface of its host."""
    counts = {host: len(topology.ends(host)) for host in topology.hosts}
    found = []
    for number, one in enumerate(topology.plan.attach):
        found.append(attached(one, number, f"net{counts[one.host]}"))
        counts[one.host] += 1
    return found


def attach(topology: Topology, machine: int) -> list[Attached]:
    """Makes the plan's devices interfaces of its hosts; ``machine``: a descriptor of the network
    namespace they are in.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    found = planned(topology)
    try:
        for one in found:
            _make(topology, machine, one)
            _set_up(topology, one)
        _routes(topology, found)
    except NetlinkError as error:
        raise LabError(f"lab: attach: the addresses cannot be had beside the lab's own: {error}") from error
    return found


@contextlib.contextmanager
def _on(machine: int, device: str) -> Any:
    from pyroute2.netns import setns

    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            setns(machine)
        except PermissionError as error:
            raise LabError(f"lab: attach: {device} {_WHY[errno.EPERM]}") from error
        try:
            yield
        finally:
            setns(before)
    finally:
        os.close(before)


def _make(topology: Topology, machine: int, one: Attached) -> None:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with _on(machine, one.device), IPRoute() as ip:
        index = _usable(ip, one.device)
        try:
            ip.link(
                "add",
                ifname=one.end.interface,
                kind="macvlan",
                link=index,
                macvlan_mode="passthru",
                net_ns_fd=topology.namespace(one.end.host),
            )
        except NetlinkError as error:
            raise LabError(f"lab: attach: {one.device} {_WHY.get(error.code, error)}") from error


def _usable(ip: Any, device: str) -> int:
    """The index of a device that can be used; it is not changed, so it has to be up already."""
    links = {link.get("ifname"): link for link in ip.get_links()}
    if device not in links:
        others = ", ".join(sorted(name for name, link in links.items() if not link["flags"] & _IFF_LOOPBACK))
        raise LabError(f"lab: attach: no device {device!r} on this machine; there are {others or 'none'}")
    link = links[device]
    index = int(link["index"])
    if link["flags"] & _IFF_LOOPBACK:
        raise LabError(f"lab: attach: {device} is the loopback device")
    if not link["flags"] & _IFF_UP:
        raise LabError(f"lab: attach: {device} is down, and a lab changes nothing of it; `ip link set {device} up`")
    routes = (route for family in (2, 10) for route in ip.get_routes(family=family))
    if any(not route["dst_len"] and route.get("oif") == index and route["type"] == 1 for route in routes):
        raise LabError(f"lab: attach: {device} has this machine's default route, which would be cut off")
    return index


def _set_up(topology: Topology, one: Attached) -> None:
    from pyroute2 import IPRoute

    with topology.enter(one.end.host), IPRoute() as ip:
        add_address(ip, one.end)


def _routes(topology: Topology, found: list[Attached]) -> None:
    """Adds routes: a client's first device and a server's first device are the two sides of one firewall, and so on."""
    from pyroute2 import IPRoute

    sides: dict[Role, list[Attached]] = {Role.CLIENT: [], Role.SERVER: []}
    for one in found:
        sides[topology.plan.role(one.end.host)].append(one)
    for both in zip(sides[Role.CLIENT], sides[Role.SERVER], strict=False):
        for here, there in (both, both[::-1]):
            with topology.enter(here.end.host), IPRoute() as ip:
                for family, via in ((4, here.via4), (6, here.via6)):
                    if via and there.end.of(family):
                        add_route(ip, Way(there.end.network(family), (via,)))


def described(topology: Topology, found: list[Attached]) -> list[dict[str, Any]]:
    """The state of each device: ``state`` is up, no carrier, or gone."""
    from pyroute2 import IPRoute

    told = []
    for one in found:
        with topology.enter(one.end.host), IPRoute() as ip:
            link = next((link for link in ip.get_links() if link.get("ifname") == one.end.interface), None)
        state = "gone" if link is None else "up" if link["flags"] & _IFF_LOWER_UP else "no carrier"
        addresses = {"ipv4": one.end.ipv4, "ipv6": one.end.ipv6, "via4": one.via4, "via6": one.via6}
        told.append({"device": one.device, "host": one.end.host, "interface": one.end.interface, "state": state}
                    | addresses)  # fmt: skip
    return told
