"""What an operator should know before packets come: limits and conditions, and what the machine does to them.

Promises: reports, and changes nothing. Only ``long_packets`` and ``interfaces`` read from the system.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nfmailguard.cext.engine import FLOW_BYTES
from nfmailguard.config import Config, Driver
from nfmailguard.engine import flows_at_once
from nfmailguard.errors import RulesetError
from nfmailguard.policy.model import CONDITIONS, Action, Mode, RestoreScope, RestoreSide, UnknownCommand
from nfmailguard.ruleset import Network, Others, Ruleset
from nfmailguard.service.changes import Treatment, treatment
from nfmailguard.settings import Hook, network

__all__ = [
    "Condition",
    "Interfaces",
    "beside",
    "conditions",
    "conntrack",
    "conntrack_warnings",
    "ehlo_warnings",
    "flow_room",
    "flowtable_warnings",
    "interface_warnings",
    "interfaces",
    "limit_warnings",
    "long_packets",
    "refuse_flowtables",
    "restore_warnings",
    "ruleset",
    "silence_warnings",
    "sink_notes",
    "summary",
    "translation_warnings",
    "warnings",
]

#: Longest packet in bytes that a queue passes on whole (nfnetlink_queue: the copy range has 16 bits).
LONGEST_PACKET = 0xFFFF + 1
LONGEST_COMMON_PACKET = 1500
#: Netlink attribute numbers of an interface's GRO and GSO limits (linux/if_link.h); pyroute2 0.9 knows two of the four
#: by name.
SIZES = {58: "gro_max_size", 41: "gso_max_size", 64: "gro_ipv4_max_size", 63: "gso_ipv4_max_size"}
#: Constants of the kernel's linux/if.h and linux/rtnetlink.h.
IFF_UP, IFF_LOOPBACK, RTN_UNICAST = 0x1, 0x8, 1
_TIME_OF_DAY = re.compile(r"\b\d\d:\d\d:\d\d\b")
#: Switches that pass bridged packets through netfilter (net/bridge/br_netfilter_hooks.c); missing without the module
#: br_netfilter.
BRIDGED = Path("/proc/sys/net/bridge")


class Interfaces(NamedTuple):
    """Names of interfaces that clients and servers may share.

    ``bridges``: bridges whose packets pass netfilter's hooks. ``alone``: the machine's only interface. ``servers``: the
    interface of each protected network that is reached through the default route's interface.
    """

    bridges: tuple[str, ...] = ()
    alone: str | None = None
    servers: tuple[tuple[str, str], ...] = ()


class Condition(NamedTuple):
    """A condition of ``[on]`` under one configuration: ``actions`` by mode, ``others`` are further legal actions."""

    name: str
    actions: dict[str, Action]
    others: tuple[Action, ...]
    counter: str
    meaning: str

    def __str__(self) -> str:
        done = ", ".join(f"{mode} {action}" for mode, action in self.actions.items())
        if len(set(self.actions.values())) == 1:
            done = next(iter(self.actions.values()))
        return f"{done} (or {', '.join(self.others)})"


def ruleset(config: Config, treated: Treatment | None = None) -> Ruleset:
    """The rules that ``config`` asks for; ``treated``: needed if flows are under other configurations too."""
    treated = treated or treatment([config])
    return Ruleset(
        config.queue.first,
        config.queue.last,
        config.ports(),
        config.hooks(),
        bypass=treated.bypass,
        conntrack=treated.conntrack,
        connections=treated.connections,
        offload=config.queue.offload,
        addresses=[network(text) for text in config.gateway.addresses],
    )


def summary(config: Config) -> str:
    """What ``config`` does, in a line."""
    gateway = config.gateway
    parts = [f"{gateway.mode} {gateway.profile}"]
    if config.rule:
        parts.append(f"{len(config.rule)} rules before it")
    if gateway.dry_run:
        parts.append("dry run")
    parts += [f"queue {config.queue.numbers}", f"ports {','.join(map(str, config.ports()))}"]
    return ", ".join([*parts, f"hook {','.join(config.hooks())}"])


def warnings(config: Config) -> list[str]:
    """What works, but perhaps not as intended."""
    found = []
    queue, modes = config.queue, {rule.mode for rule in config.flow_rules()}
    enforced = Mode.ENFORCE in modes and not config.gateway.dry_run
    for condition in ("queue_full", "no_listener"):
        if enforced and config.on_queue(condition) is Action.PASS:
            found.append(f"on.{condition}: packets of enforced flows pass uninspected then")
        if Mode.MONITOR in modes and config.on_queue(condition) is not Action.PASS:
            found.append(
                f"on.{condition}: packets of monitored flows are dropped then; the kernel cannot tell them apart"
            )
    found += _faults(config)
    if queue.driver is Driver.NETFILTERQUEUE:
        found.append(
            "queue.driver: netfilterqueue knows none of gso, busy_poll, offload and on.queue_full, and when enforcing"
            " drops packets that are out of order or longer than 3840 octets"
        )
    elif queue.copy_range < LONGEST_COMMON_PACKET:
        found.append("queue.copy_range: longer packets reach the engine truncated; on.truncated decides then")
    found += [*conntrack_warnings(config), *ehlo_warnings(config), *silence_warnings(config)]
    if Hook.OUTPUT in config.hooks():
        found.append("gateway.hook: what this machine sends to itself is queued once, on output")
    return [*found, *limit_warnings(config), *restore_warnings(config)]


def beside(config: Config, found: Others) -> list[str]:
    """What other rules on this machine do to ours."""
    return [*flowtable_warnings(config, found), *translation_warnings(config, found)]


def refuse_flowtables(config: Config, found: Others) -> None:
    """Raises RulesetError if mail that must be inspected could bypass the queue through a flowtable."""
    modes = {rule.mode for rule in config.flow_rules()}
    for line in flowtable_warnings(config, found):
        if Mode.ENFORCE in modes and not config.gateway.dry_run:
            raise RulesetError(f"rules: {line}")


def _faults(config: Config) -> list[str]:
    faults: dict[str, None] = {}  # A dict used as an ordered set: each fault once, in the order of the rules.
    for rule in config.flow_rules():
        on = [f"bugs.{name}" for name, value in msgspec.structs.asdict(rule.policy.bugs).items() if value]
        if on and rule.mode is Mode.ENFORCE and not config.gateway.dry_run:
            faults[f"{', '.join(on)}: {rule.policy.name} has the faults of its release, and guards nothing"] = None
    return list(faults)


def conditions(config: Config) -> list[Condition]:
    """What is done on each condition; where a mode or a dry run lets packets pass, that is what is given."""
    modes = list(dict.fromkeys(rule.mode for rule in config.flow_rules()))
    found = []
    for name, spec in CONDITIONS.items():
        if name in ("queue_full", "no_listener"):
            actions = {"every flow": config.on_queue(name)}
        else:
            stopped = {mode: mode is not Mode.MONITOR and not config.gateway.dry_run for mode in modes}
            actions = {str(mode): config.on.action(name, mode) if stopped[mode] else Action.PASS for mode in modes}
        others = tuple(action for action in spec.actions if action not in actions.values())
        found.append(Condition(name, actions, others or spec.actions, spec.counter, spec.meaning))
    return found


def flow_room(config: Config) -> str:
    """How many flows a queue follows at once, and what its memory is for."""
    limits = config.limits
    flows = flows_at_once(limits)
    return (
        f"each queue: up to {flows:,} connections at once, {flows * FLOW_BYTES / 2**20:.0f} MiB, and"
        f" {limits.memory // 2 / 2**20:.0f} MiB for what they have on the way"
    )


def limit_warnings(config: Config) -> Iterator[str]:
    """Limits that differ from what was asked for."""
    asked, given = config.limits, config.engine_limits()
    if given.held_packets != asked.held_packets:
        yield f"limits.held_packets: lowered to {given.held_packets}, a quarter of queue.length"
    room = flows_at_once(asked)
    if room < asked.flows:
        yield (
            f"limits.flows: lowered from {asked.flows} to {room}, what fits into half of limits.memory;"
            f" {2 * FLOW_BYTES * asked.flows} octets would hold them all"
        )


def conntrack(config: Config) -> str:
    """Whether our table makes conntrack run, and what that means for other traffic."""
    if not config.needs_conntrack():
        return "conntrack: not needed; packets in parts go past the queue, unseen (queue.fragments_unseen)"
    return (
        "conntrack: runs, for the whole network namespace: fragments of every protocol are joined first, one that"
        " stays alone never leaves, and a full nf_conntrack_max drops new connections of others, too"
    )


def conntrack_warnings(config: Config) -> Iterator[str]:
    """A note if nothing may be changed, but conntrack changes other traffic all the same."""
    modes = {rule.mode for rule in config.flow_rules()}
    if config.queue.offload and (config.gateway.dry_run or modes == {Mode.MONITOR}):
        yield "queue.offload: makes conntrack run, which joins others' fragments; without it nothing would be changed"


def restore_warnings(config: Config) -> Iterator[str]:
    """What restore mode cannot do, or does only for the lab."""
    rules = [rule for rule in config.flow_rules() if rule.mode is Mode.RESTORE]
    if not rules:
        return
    restore = config.restore
    if restore.starttls:
        yield (
            "restore.starttls: a firewall that masks STARTTLS goes on reading behind it, and masks the TLS handshake as"
            " it would a command: clients that insist on TLS do not get through"
        )
    if restore.scope is RestoreScope.ALL:
        yield "restore.scope: all is for the lab; AUTH and CHUNKING do not work through a firewall that masks them"
    replies = restore.side is not RestoreSide.SERVER
    if replies and not restore.keywords and not restore.server:
        yield "restore.keywords: none configured, so masked EHLO replies stay as they come; see `probe --learn`"
    banners = (restore.banner, *(known.banner for known in restore.server))
    for banner in filter(_TIME_OF_DAY.search, banners):
        yield f"restore: banner {banner!r} holds a time, and every client would be told it for ever; leave it out"
    for name in dict.fromkeys(
        rule.policy.name for rule in rules if rule.policy.commands.unknown is UnknownCommand.XALL
    ):
        yield f"{name}: it masks whole commands; what they were cannot be told, so none is restored"


def ehlo_warnings(config: Config) -> Iterator[str]:
    """Profiles under which a server answers EHLO as if it had been accepted (`250`), and then wants a HELO (`503`)."""
    silent = (UnknownCommand.NOOP, UnknownCommand.OK)
    rules = [rule for rule in config.flow_rules() if rule.mode is Mode.ENFORCE and not config.gateway.dry_run]
    for name in dict.fromkeys(
        rule.policy.name
        for rule in rules
        if rule.policy.commands.unknown in silent and not {"EHLO", "*"} & {*rule.policy.commands.allow}
    ):
        yield (
            f"{name}: EHLO is answered with 250 and not taken, so servers that insist on a HELO answer 503 to MAIL, and"
            " clients that begin with EHLO do not get through; for the lab, or `--set commands.unknown=xverb`"
        )


def silence_warnings(config: Config) -> Iterator[str]:
    """Profiles that end a connection without telling either side."""
    rules = [rule for rule in config.flow_rules() if rule.mode is Mode.ENFORCE and not config.gateway.dry_run]
    for name, policy in {rule.policy.name: rule.policy for rule in rules}.items():
        silent = [finding for finding, action in policy.actions.items() if action is Action.DROP_CONNECTION]
        if silent:
            likely = "recipients.too_many" if "recipients.too_many" in silent else silent[0]
            yield (
                f"{name}: {', '.join(silent)}: drop-connection, as on the box: both sides wait for their time-outs, and"
                f" the client tries again; `--set actions.{likely}=reset` ends both at once"
            )


def sink_notes(config: Config) -> Iterator[str]:
    """Notes if findings are not written anywhere."""
    if config.log.eve is None and config.syslog.target is None:
        yield "findings are counted, and events written nowhere: nobody sees what was found; set log.eve"


def flowtable_warnings(config: Config, others: Others) -> Iterator[str]:
    """Flowtables that take forwarded packets past every hook; a mail host's own traffic is in none."""
    if config.queue.flowtables or Hook.FORWARD not in config.hooks():
        return
    ports = ",".join(map(str, config.ports()))
    for name in others.flowtables:
        yield (
            f"flowtable {name}: what its rules put there goes past the queue, uninspected; leave tcp port {ports} out"
            " of `flow add`, in both directions, then say queue.flowtables = true"
        )


def translation_warnings(config: Config, others: Others) -> Iterator[str]:
    """What cannot be done if addresses are translated."""
    if not others.translating or not config.needs_conntrack():
        return
    where = ", ".join(dict.fromkeys(name.partition(" ")[2] for name in others.translating))
    if not config.tells_connections_apart():
        reason = "queue.conntrack is off" if not config.queue.conntrack else "packets may pass the queue (on.*)"
        yield (
            f"addresses are translated ({where}): two that lead to one server, or two clients behind one, are not told"
            f" apart, for {reason}"
        )
    if {"prerouting", "postrouting"} <= {name.partition(" ")[0] for name in others.translating}:
        yield (
            f"addresses are translated ({where}): where both the client's and the server's are, our resets reach"
            " neither side, which wait for their time-outs"
        )


def interface_warnings(config: Config, found: Interfaces) -> Iterator[str]:
    """Notes if a packet's interface does not distinguish the server's side from the clients'."""
    if Hook.FORWARD not in config.hooks():
        return
    open_to = "can speak for the server: on.wrong_interface holds nobody off there"
    for name in found.bridges:
        yield (
            f"bridge {name}: what it bridges is queued, and comes from it on both sides: who is bridged to a client"
            f" {open_to}; route between the two, or keep clients from sending with the servers' addresses"
        )
    if found.alone and found.alone not in found.bridges:
        yield f"interface {found.alone}: the only one, for both sides: a client {open_to}"
        return
    for where, name in found.servers:
        yield f"interface {name}: {where} is behind it, and the default route: a client that comes in there {open_to}"


def interfaces(config: Config) -> Interfaces:
    """Interfaces of this network namespace; what cannot be read is left out."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with suppress(OSError, NetlinkError), IPRoute() as ip:
        links = list(ip.get_links())
        names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in links}
        servers = []
        for text in config.gateway.addresses:
            # There is no route to the network, or its address family is switched off.
            with suppress(OSError, NetlinkError):
                found = _shared_route(ip, network(text))
                servers += [(text, names[found])] if found in names else []
        return Interfaces(tuple(_bridges(links, _all_bridges())), _alone(links), tuple(servers))
    return Interfaces()


def _all_bridges() -> bool:
    # The network namespace's switches for IPv4 and IPv6; a bridge may have its own.
    for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
        with suppress(OSError):
            if (BRIDGED / name).read_text().strip() != "0":
                return True
    return False


def _kind(link: Any) -> str | None:
    return link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")  # type: ignore[no-any-return]


def _bridges(links: Iterable[Any], everyone: bool) -> Iterator[str]:
    """Names of the bridges that have at least two ports and pass packets through netfilter."""
    links = list(links)
    masters = [link.get_attr("IFLA_MASTER") for link in links]
    for link in links:
        if _kind(link) == "bridge" and masters.count(link["index"]) > 1:
            own = (
                link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", f"IFLA_BR_NF_CALL_{name}")
                for name in ("IPTABLES", "IP6TABLES")
            )
            if everyone or any(own):
                yield str(link.get_attr("IFLA_IFNAME"))


def _alone(links: Iterable[Any]) -> str | None:
    """The interface that is up, if only one is; a bridge's ports belong to the bridge."""
    found = [
        str(link.get_attr("IFLA_IFNAME"))
        for link in links
        if link["flags"] & (IFF_UP | IFF_LOOPBACK) == IFF_UP
        and not link.get_attr("IFLA_MASTER")
        and _kind(link) not in ("dummy", "ifb")
    ]
    return found[0] if len(found) == 1 else None


def _shared_route(ip: Any, servers: Network) -> int | None:
    """The interface of the route to ``servers``, if the default route uses it too."""
    family = 2 if servers.version == 4 else 10
    (way,) = ip.route("get", dst=str(servers.network_address), family=family)
    defaults = {route.get_attr("RTA_OIF") for route in ip.get_default_routes(family=family)}
    interface: int | None = way.get_attr("RTA_OIF")
    return interface if way["type"] == RTN_UNICAST and interface in defaults else None


def long_packets() -> Iterator[str]:
    """Interfaces that may make packets longer than a queue passes on (Linux's BIG TCP), one line each."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        for link in ip.get_links():
            for name, size in _sizes(link):
                if size > LONGEST_PACKET:
                    interface = link.get("ifname")
                    yield (
                        f"interface {interface}: {name} is {size}; packets above {LONGEST_PACKET - 1} octets do not"
                        f" reach us whole, and on.truncated decides; `ip link set {interface} {name} {LONGEST_PACKET}`"
                        " prevents them"
                    )


def _sizes(link: Any) -> Iterator[tuple[str, int]]:
    names = {f"IFLA_{name.upper()}": name for name in SIZES.values()}
    for name, value in link["attrs"]:
        if name in names:
            yield names[name], value
        elif name == "UNKNOWN" and value["header"]["type"] in SIZES:
            # An attribute that pyroute2 left undecoded: a header of 4 bytes, then the number.
            yield SIZES[value["header"]["type"]], struct.unpack_from("=I", value.data, value.offset + 4)[0]
