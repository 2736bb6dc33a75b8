"""Hosts in a row: client, gateway, server; each a network namespace. There may be several gateways.

Promises: both address families routed through the gateway and usable at once; what
was made is gone after ``close``, whatever happened in between. Does not know mail.

    client 10.25.1.2 ── outside (gateway) inside ── 10.25.2.2 server
           fd25:1::2                                fd25:2::2
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from nfmailguard.errors import LabError

__all__ = ["CLIENT", "GATEWAY", "HOSTS", "SERVER", "Address", "Topology"]

CLIENT, GATEWAY, SERVER = "client", "gateway", "server"
HOSTS = (CLIENT, GATEWAY, SERVER)


class Address(NamedTuple):
    """One interface of one host."""

    host: str
    interface: str
    ipv4: str
    ipv6: str


Link = tuple[Address, Address]


def _links(gateways: Sequence[str]) -> tuple[Link, ...]:
    """Both ends of each link, from the client on. A gateway is 1 of its network, or 3 where its neighbour is."""
    hosts = (CLIENT, *gateways, SERVER)
    links = []
    for number, (left, right) in enumerate(itertools.pairwise(hosts), start=1):
        near = 2 if left == CLIENT else 1
        far = 2 if right == SERVER else 1 if left == CLIENT else 3
        ends = ((left, "net0" if left == CLIENT else "inside", near), (right, "net0" if far == 2 else "outside", far))
        links.append(
            tuple(Address(host, name, f"10.25.{number}.{last}", f"fd25:{number}::{last}") for host, name, last in ends)
        )
    return tuple(links)  # type: ignore[arg-type]


_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
}


class Topology:
    """The hosts. A context manager: made on entry, removed on exit.

    ``gateways`` stand in a row, from the client on. ``prefix`` stands before the namespaces'
    names, which are shared by everybody who sees the same /run/netns. Raises LabError when the kernel refuses.
    """

    def __init__(self, prefix: str = "", gateways: Sequence[str] = (GATEWAY,)) -> None:
        self.prefix = prefix
        self.hosts = (CLIENT, *gateways, SERVER)
        self.links = _links(gateways)
        self._ends = {(end.host, end.interface): end for link in self.links for end in link}
        self._processes: list[subprocess.Popen[Any]] = []

    def namespace(self, host: str) -> str:
        """The name of ``host``'s network namespace."""
        return self.prefix + host

    def address(self, host: str, *, family: int = 4, interface: str | None = None) -> str:
        """An address of ``host``; a gateway has one on ``outside`` and one on ``inside``."""
        end = self._ends[host, interface or ("net0" if host in (CLIENT, SERVER) else "inside")]
        return end.ipv4 if family == 4 else end.ipv6

    def exists(self) -> bool:
        """Whether all the namespaces are there."""
        return all(Path("/run/netns", self.namespace(host)).exists() for host in self.hosts)

    def open(self) -> Self:
        """Makes the namespaces and links; whatever was made is removed again when it fails."""
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

        for host in self.hosts:
            netns.create(self.namespace(host))
        for number, (left, right) in enumerate(self.links):
            self._link(number, left, right)
        for host in self.hosts:
            self._configure(host)
        for host in self.hosts:
            self._wait_for_carrier(host)

    def _wait_for_carrier(self, host: str) -> None:
        # Packets sent before the carrier are lost, also those of neighbour discovery.
        from pyroute2 import IPRoute

        deadline = time.monotonic() + 30
        with self.enter(host), IPRoute() as ip:
            while any(link.get("operstate") != "UP" for link in ip.get_links() if link.get("ifname") != "lo"):
                if time.monotonic() > deadline:
                    raise LabError(f"lab: a link of {host} does not come up")
                time.sleep(0.02)

    def _link(self, number: int, left: Address, right: Address) -> None:
        # Lossy links are known by their number. A veth pair is born inside its first host, and one end is handed over.
        # Where the two ends have the same index the kernel tells of their carrier up to a second late.
        from pyroute2 import IPRoute

        with self.enter(left.host), IPRoute() as ip:
            peer = {"ifname": right.interface, "net_ns_fd": self.namespace(right.host)}
            ip.link("add", ifname=left.interface, index=100 + number, kind="veth", peer=peer)

    def _configure(self, host: str) -> None:
        from pyroute2 import IPRoute

        with self.enter(host):
            for key, value in _SYSCTLS.items() if host not in (CLIENT, SERVER) else ():
                Path("/proc/sys", key).write_text(value)
            with IPRoute() as ip:
                ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
                for end in self._ends.values():
                    if end.host != host:
                        continue
                    # No duplicate address detection: an address works as soon as it is there.
                    for where in ("all", end.interface):
                        Path("/proc/sys/net/ipv6/conf", where, "accept_dad").write_text("0")
                    index = ip.link_lookup(ifname=end.interface)[0]
                    ip.addr("add", index=index, address=end.ipv4, prefixlen=24)
                    ip.addr("add", index=index, address=end.ipv6, prefixlen=64)
                    ip.link("set", index=index, state="up")
                for dst4, dst6, through in self._routes(host):
                    ip.route("add", dst=dst4, gateway=through.ipv4)
                    ip.route("add", dst=dst6, gateway=through.ipv6)

    def _routes(self, host: str) -> Iterator[tuple[str, str, Address]]:
        """Networks that are not the host's own, and which neighbour leads there."""
        place = self.hosts.index(host)
        if host in (CLIENT, SERVER):
            near, far = self.links[0 if host == CLIENT else -1]
            yield "0.0.0.0/0", "::/0", far if host == CLIENT else near
            return
        for number in range(1, len(self.links) + 1):
            if number not in (place, place + 1):
                through = self.links[place - 1][0] if number < place else self.links[place][1]
                yield f"10.25.{number}.0/24", f"fd25:{number}::/64", through

    def close(self) -> None:
        """Ends every process started here and removes the namespaces; idempotent."""
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
        for host in self.hosts:
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
        """The calling thread is on ``host`` inside the block: sockets made there belong to it."""
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
