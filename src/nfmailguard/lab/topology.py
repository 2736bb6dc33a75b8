"""Hosts of a plan, each a network namespace: by default a row of client, gateway and server.

Promises: addresses are usable and routed at once; what was made is gone after ``close``, whatever happened in
between. Does not know mail.

    client 10.25.1.2 ── outside (gateway) inside ── 10.25.2.2 server
           fd25:1::2                                fd25:2::2
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nfmailguard.errors import LabError
from nfmailguard.lab.addressing import Address, Ends, Way, addresses, ways
from nfmailguard.lab.plan import Link, Plan, Role, row

__all__ = ["CLIENT", "GATEWAY", "SERVER", "Address", "Topology", "add_address", "add_route"]

CLIENT, GATEWAY, SERVER = "client", "gateway", "server"


_FORWARDS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
}
#: Fields that choose between several routes: source and destination address, protocol, source and destination port.
_BY_PORTS = 0x1 | 0x2 | 0x4 | 0x10 | 0x20
#: Settings for hosts with routes through several gateways: packets are accepted on any interface, and each connection
#: keeps to one route.
_SEVERAL_WAYS = {
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    # Hash policy 3 uses only the fields below (ip-sysctl.rst). Policy 1 would use the hash that a local socket gave the
    # packet, which a veth device keeps, so the two directions of a connection would choose their routes separately.
    "net/ipv4/fib_multipath_hash_policy": "3",
    "net/ipv6/fib_multipath_hash_policy": "3",
    "net/ipv4/fib_multipath_hash_fields": str(_BY_PORTS),
    "net/ipv6/fib_multipath_hash_fields": str(_BY_PORTS),
}
#: ICMP redirects are switched off: they would change the routes that a plan describes.
_REDIRECTS = {
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}


class Topology:
    """The hosts. A context manager: made on entry, removed on exit.

    Those of ``plan``, else ``gateways`` in a row, from the client on. ``prefix`` is put before the namespaces' names,
    which are shared by all users of the same /run/netns. Raises LabError when the kernel refuses.
    """

    def __init__(self, prefix: str = "", gateways: Sequence[str] = (GATEWAY,), plan: Plan | None = None) -> None:
        self.prefix = prefix
        self.plan = row(gateways) if plan is None else plan
        self.hosts = tuple(self.plan.host)
        self.links = addresses(self.plan)
        self._ends = {(end.host, end.interface): end for link in self.links for end in link}
        #: Namespaces of the switches, for links with more than two hosts; no host's name has a capital letter, so names
        #: do not clash.
        self._switches = {number: f"Switch{number}" for number, ends in enumerate(self.links) if len(ends) > 2}
        self._processes: list[subprocess.Popen[Any]] = []

    def namespace(self, host: str) -> str:
        """The name of ``host``'s network namespace."""
        return self.prefix + host

    def address(self, host: str, *, family: int = 4, interface: str | None = None) -> str:
        """An address of ``host``, for a gateway on the server's side; empty if it has none of that family."""
        if interface is not None:
            return self._ends[host, interface].of(family)
        own = sorted(self.ends(host), key=lambda end: end.interface != "inside")
        return next((end.of(family) for end in own if end.of(family)), "")

    def ends(self, host: str) -> list[Address]:
        """The interfaces of ``host`` and their addresses."""
        return [end for (name, _), end in self._ends.items() if name == host]

    def exists(self) -> bool:
        """Whether all the namespaces are there."""
        return all(Path("/run/netns", self.namespace(host)).exists() for host in self.hosts)

    def open(self) -> Self:
        """Makes the namespaces and links; if that fails, everything made is removed again."""
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            self._make()
        except (OSError, NetlinkError) as error:
            self.close()
            code = getattr(error, "code", None) or getattr(error, "errno", None)
            if code in (errno.EPERM, errno.EACCES):
                raise LabError("lab: no permission to make network namespaces; run as root") from error
            raise LabError(f"lab: cannot build the network: {error}") from error
        except BaseException:
            self.close()
            raise
        return self

    def _make(self) -> None:
        from pyroute2 import netns

        for host in (*self.hosts, *self._switches.values()):
            netns.create(self.namespace(host))
        for number, ends in enumerate(self.links):
            if len(ends) == 2:
                self._link(number, *ends)
            else:
                self._switch(number, ends)
        for host in self.hosts:
            self._configure(host)
        for host in self.hosts:
            self._wait_for_carrier(host)

    def _wait_for_carrier(self, host: str) -> None:
        # Packets sent before a link's carrier is up are lost, including those of neighbour discovery.
        from pyroute2 import IPRoute

        deadline = time.monotonic() + 30
        with self.enter(host), IPRoute() as ip:
            while any(link.get("operstate") != "UP" for link in ip.get_links() if link.get("ifname") != "lo"):
                if time.monotonic() > deadline:
                    raise LabError(f"lab: a link of {host} does not come up")
                time.sleep(0.02)

    def _link(self, number: int, left: Address, right: Address) -> None:
        # The interface index is made from the link's number, by which a rule that loses packets finds its link. A veth
        # pair is created inside the first host's namespace, and one end is moved. If both ends had the same index, the
        # kernel would report their carrier up to a second late.
        from pyroute2 import IPRoute

        with self.enter(left.host), IPRoute() as ip:
            peer = {"ifname": right.interface, "net_ns_fd": self.namespace(right.host)}
            ip.link("add", ifname=left.interface, index=100 + number, kind="veth", peer=peer)

    def _switch(self, number: int, ends: Ends) -> None:
        from pyroute2 import IPRoute

        name = self._switches[number]
        with self.enter(name), IPRoute() as ip:
            # IPv6 is switched off in the switch's namespace, so that the switch sends no packets of its own.
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
            # No multicast snooping: neighbour discovery is multicast, and no host here answers a querier.
            ip.link("add", ifname="bridge", kind="bridge", br_mcast_snooping=0)
            bridge = ip.link_lookup(ifname="bridge")[0]
            for port, end in enumerate(ends):
                peer = {"ifname": end.interface, "net_ns_fd": self.namespace(end.host)}
                ip.link("add", ifname=f"port{port}", index=200 + port, kind="veth", peer=peer)
                ip.link("set", index=200 + port, master=bridge, state="up")
            ip.link("set", index=bridge, state="up")

    def _configure(self, host: str) -> None:
        from pyroute2 import IPRoute

        with self.enter(host):
            for key, value in self._settings(host).items():
                Path("/proc/sys", key).write_text(value)
            with IPRoute() as ip:
                ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
                for number, ends in enumerate(self.links):
                    for end in ends:
                        if end.host == host:
                            self._set_up(ip, number, end)
                for way in ways(self.plan, self.links, host):
                    add_route(ip, way)

    def _settings(self, host: str) -> dict[str, str]:
        found = dict(_FORWARDS if self.plan.role(host) is Role.GATEWAY else {})
        if self.plan.route or self._switches:
            found |= _SEVERAL_WAYS | _REDIRECTS
        return found

    def _set_up(self, ip: Any, number: int, end: Address) -> None:
        link = self.plan.link[number]
        if link.mtu is not None:
            ip.link("set", index=ip.link_lookup(ifname=end.interface)[0], mtu=link.mtu)
        index = add_address(ip, end)
        if link.microseconds or link.lost:
            _impair(ip, index, link, number + 1)

    def close(self) -> None:
        """Ends every process started here and removes the namespaces. May be called repeatedly."""
        from pyroute2 import netns

        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 5
        for process in self._processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        for host in (*self.hosts, *self._switches.values()):
            if Path("/run/netns", self.namespace(host)).exists():
                with contextlib.suppress(OSError):
                    netns.remove(self.namespace(host))

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def enter(self, host: str) -> Iterator[None]:
        """Inside the block the calling thread is on ``host``: sockets made there belong to it."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._setns(Path("/run/netns", self.namespace(host)))
            try:
                yield
            finally:
                self._setns(Path(f"/proc/self/fd/{before}"))
        finally:
            os.close(before)

    @staticmethod
    def _setns(path: Path) -> None:
        from pyroute2.netns import setns

        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd)
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        """``argv`` as a command that runs on ``host``."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(host)}", "--", *argv]

    def popen(self, host: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts ``argv`` on ``host``; it is ended with the topology at the latest."""
        process: subprocess.Popen[Any] = subprocess.Popen(self.command(host, argv), **options)
        self._processes.append(process)
        return process

    def run(self, host: str, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Runs ``argv`` on ``host`` to its end, like ``subprocess.run``."""
        return subprocess.run(self.command(host, argv), **{"check": False, **options})  # noqa: PLW1510


def add_address(ip: Any, end: Address) -> int:
    """Gives the interface of ``end``, in the thread's namespace, its addresses, and sets it up; its index."""
    # No duplicate address detection, so that an address can be used at once.
    for where in ("all", end.interface):
        Path("/proc/sys/net/ipv6/conf", where, "accept_dad").write_text("0")
    index = int(ip.link_lookup(ifname=end.interface)[0])
    for address, length in ((end.ipv4, end.length4), (end.ipv6, end.length6)):
        if address:
            ip.addr("add", index=index, address=address, prefixlen=length)
    ip.link("set", index=index, state="up")
    return index


def add_route(ip: Any, way: Way) -> None:
    """Adds a route in the thread's namespace."""
    if len(way.through) == 1:
        ip.route("add", dst=way.destination, gateway=way.through[0])
        return
    family = socket.AF_INET6 if ":" in way.destination else socket.AF_INET
    ip.route("add", family=family, dst=way.destination, multipath=[{"gateway": one} for one in way.through])


def _impair(ip: Any, index: int, link: Link, number: int) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    keys = " and ".join(key for key, value in (("delay", link.microseconds), ("loss", link.lost)) if value)
    try:
        ip.tc("add", "netem", index, "1:", delay=link.microseconds, loss=link.lost)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise
        raise LabError(
            f"lab: link {number}: {keys}: this kernel has no netem (CONFIG_NET_SCH_NETEM); load its module with"
            f" `modprobe sch_netem`, or leave {keys} out"
        ) from error
