"""What ``check --live`` examines: this network namespace, its rules, interfaces, sockets and switches, as values.

Promises: reads, and changes nothing. What cannot be read is in ``unread``, and nothing is guessed from it. Does not
know what of it is wrong: ``live`` does.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from nfmailguard import foreign
from nfmailguard.config import Config
from nfmailguard.errors import RulesetError
from nfmailguard.queues.kernel import holder, queue_states
from nfmailguard.ruleset import Installed, Others, installed, others, rules_of_others
from nfmailguard.service.preflight import ruleset
from nfmailguard.settings import network

__all__ = ["Link", "Machine", "read"]

SYSCTLS = Path("/proc/sys/net")
NFTABLES_CONF = "etc/nftables.conf"
#: Constants of the kernel's linux/if.h and net/tcp_states.h; LISTEN as in /proc/net/tcp.
IFF_UP, IFF_LOOPBACK, LISTEN = 0x1, 0x8, "0A"
MOST_INCLUDED = 100


class Link(NamedTuple):
    """A network interface. ``filters``: a bridge whose own switch passes bridged packets through netfilter's hooks."""

    number: int
    name: str
    kind: str | None = None
    up: bool = True
    loopback: bool = False
    master: int | None = None
    addresses: tuple[str, ...] = ()
    xdp: bool = False
    vlans: bool = False
    filters: bool = False


class Machine(NamedTuple):
    """The machine. ``queues``: who reads each; ``uplinks``: interfaces of default routes; ``ways``: those of protected
    networks.

    ``flushing``: files in use that contain `flush ruleset`; ``refused``: why the kernel would not take our table.
    """

    rules: foreign.Rules = foreign.Rules()
    others: Others = Others((), ())
    ours: Installed | None = None
    queues: dict[int, str] = {}
    links: tuple[Link, ...] = ()
    uplinks: tuple[str, ...] = ()
    ways: dict[str, str] = {}
    listening: tuple[tuple[str, int], ...] = ()
    sysctls: dict[str, str] = {}
    flushing: tuple[str, ...] = ()
    refused: str | None = None
    unread: tuple[str, ...] = ()


def read(config: Config, root: Path = Path("/")) -> Machine:
    """Reads this machine; configuration files are those below ``root``."""
    unread, refused = [], None
    rules, around, ours = foreign.Rules(), Others((), ()), None
    try:
        rules, around, ours = rules_of_others(), others(), installed()
        ruleset(config).check()
    except RulesetError as error:
        unread = ["others' rules"] if not rules.chains else []
        refused = str(error)
    try:
        links, uplinks, ways = _network(config)
    except OSError as error:
        links, uplinks, ways = (), (), {}
        unread.append(f"interfaces and routes ({error.strerror})")
    with suppress(OSError):
        for family in ("ip", "ip6"):
            if Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split():
                unread.append(f"rules of iptables-legacy ({family})")
    return Machine(
        rules,
        around,
        ours,
        {number: holder(state.portid) for number, state in queue_states().items()},
        links,
        uplinks,
        ways,
        tuple(_listening()),
        dict(_sysctls([link.name for link in links])),
        tuple(_flushing(root, {chain.table for chain in rules.chains})),
        refused,
        tuple(unread),
    )


def _network(config: Config) -> tuple[tuple[Link, ...], tuple[str, ...], dict[str, str]]:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ip:
        try:
            addresses: dict[int, list[str]] = {}
            for one in ip.get_addr():
                addresses.setdefault(one["index"], []).append(one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS"))
            links = tuple(_link(one, tuple(addresses.get(one["index"], ()))) for one in ip.get_links())
            names = {link.number: link.name for link in links}
            uplinks = {
                index for family in (2, 10) for route in ip.get_default_routes(family=family) for index in _out(route)
            }
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from error
        ways = {}
        for text in config.gateway.addresses:
            with suppress(NetlinkError, ValueError):  # There is no route to the servers' network.
                servers = network(text)
                family = 2 if servers.version == 4 else 10
                (way,) = ip.route("get", dst=str(servers.network_address), family=family)
                ways[text] = names.get(way.get_attr("RTA_OIF"), "")
    return links, tuple(sorted(names[index] for index in uplinks if index in names)), ways


def _out(route: Any) -> Iterator[int]:
    if (index := route.get_attr("RTA_OIF")) is not None:
        yield index
    for hop in route.get_attr("RTA_MULTIPATH") or ():
        yield hop["oif"]


def _link(link: Any, addresses: tuple[str, ...]) -> Link:
    def of_bridge(name: str) -> bool:
        return bool(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", f"IFLA_BR_{name}"))

    return Link(
        link["index"],
        link.get_attr("IFLA_IFNAME"),
        link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND"),
        bool(link["flags"] & IFF_UP),
        bool(link["flags"] & IFF_LOOPBACK),
        link.get_attr("IFLA_MASTER"),
        addresses,
        bool(link.get_nested("IFLA_XDP", "IFLA_XDP_ATTACHED")),
        of_bridge("VLAN_FILTERING"),
        of_bridge("NF_CALL_IPTABLES") or of_bridge("NF_CALL_IP6TABLES"),
    )


def _sysctls(interfaces: list[str]) -> Iterator[tuple[str, str]]:
    names = [
        "ipv4/ip_forward",
        "ipv6/conf/all/forwarding",
        "netfilter/nf_conntrack_count",
        "netfilter/nf_conntrack_max",
    ]
    names += [f"ipv4/conf/{name}/rp_filter" for name in ("all", *interfaces)]
    names += [f"bridge/bridge-nf-{name}" for name in ("call-iptables", "call-ip6tables", "filter-vlan-tagged")]
    for name in names:
        with suppress(OSError):
            yield name, (SYSCTLS / name).read_text().strip()


def _listening() -> Iterator[tuple[str, int]]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/thread-self/net", name).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].partition(":")
                if fields[3] == LISTEN:
                    # /proc/net/tcp writes an address as 32-bit words in the host's byte order; the address itself is in
                    # network byte order.
                    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                    yield str(ip_address(b"".join(map(_word, words)))), int(port, 16)


def _word(number: int) -> bytes:
    return socket.htonl(number).to_bytes(4)


def _flushing(root: Path, tables: set[str]) -> Iterator[str]:
    """Files that nftables.service loads, or that a table in the kernel comes from."""
    main = root / NFTABLES_CONF
    enabled = any((root / "etc/systemd/system").glob("*.wants/nftables.service"))
    pending, seen = [main], list[Path]()
    while pending and len(seen) < MOST_INCLUDED:
        path = pending.pop(0)
        seen.append(path)
        with suppress(OSError, UnicodeDecodeError):
            text = re.sub("#.*", "", path.read_text())
            used = enabled or bool(tables & set(re.findall(r"^\s*table\s+(?:\w+\s+)?(\w+)\s*\{", text, re.MULTILINE)))
            if used and re.search(r"^\s*flush\s+ruleset\b", text, re.MULTILINE):
                yield str(path)
            for pattern in re.findall(r'^\s*include\s+"([^"]+)"', text, re.MULTILINE):
                where = root / pattern.lstrip("/") if pattern.startswith("/") else path.parent / pattern
                pending += sorted(found for found in where.parent.glob(where.name) if found not in seen)
