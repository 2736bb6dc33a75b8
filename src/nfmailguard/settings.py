"""The settings: every key of the configuration file, as frozen structs.

Promises: what a struct's methods return follows from its keys alone. Does not read files, and does not report what is
wrong: ``config`` does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from nfmailguard.events.targets import Format, Interfaces
from nfmailguard.policy.load import load_profile, override
from nfmailguard.policy.model import (
    Action,
    FlowRule,
    Limits,
    Mode,
    Network,
    Offer,
    On,
    PartialLines,
    Policy,
    Restore,
    RestoreScope,
    RestoreSide,
)

__all__ = ["Config", "Confine", "Driver", "Gateway", "Hook", "Log", "Queue", "Rule", "Service", "network"]


class Hook(StrEnum):
    """Which packets are taken: those forwarded, for this host, or from it."""

    FORWARD = "forward"
    INPUT = "input"
    OUTPUT = "output"


class Driver(StrEnum):
    """What reads the queue: our own driver, or the NetfilterQueue package."""

    KERNEL = "kernel"
    NETFILTERQUEUE = "netfilterqueue"


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[gateway]``: settings for every flow that no ``[[rule]]`` names."""

    mode: Mode = Mode.MONITOR
    profile: str = "pix63"
    ports: tuple[int, ...] = (25,)
    #: Mail servers' addresses or networks; empty: any server.
    addresses: tuple[str, ...] = ()
    hook: tuple[Hook, ...] = (Hook.FORWARD,)
    dry_run: bool = False
    faithful: bool = False


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from", "destination": "to"}):
    """``[[rule]]``: which flows get another mode or profile; the first match wins."""

    source: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()
    #: The network interface on which the client's packets arrive; None: any.
    interface: str | None = msgspec.field(default=None, name="in")
    ports: tuple[int, ...] = ()
    mode: Mode | None = None
    profile: str | None = None


class RestoreServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[restore.server]]``: what some servers send where nothing is masked, as ``probe --learn`` writes it."""

    #: Addresses or networks of the servers; empty: any server.
    addresses: tuple[str, ...] = ()
    #: The lines of these servers' EHLO reply after the first one, in order, without the reply code: ``SIZE 10240000``.
    keywords: tuple[str, ...] = ()
    #: The servers' greeting without ``220 ``; empty: a masked greeting is not restored.
    banner: str = ""


class Restoring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[restore]``: how rules in ``restore`` mode undo what the firewall of their profile did."""

    side: RestoreSide = RestoreSide.BOTH
    scope: RestoreScope = RestoreScope.SAFE
    starttls: bool = False
    #: EHLO lines and greeting of every server that no ``[[restore.server]]`` names.
    keywords: tuple[str, ...] = ()
    banner: str = ""
    server: tuple[RestoreServer, ...] = ()

    def restore(self) -> Restore:
        """The settings for the engine. Raises ValueError for an invalid network."""
        known = (*self.server, RestoreServer(keywords=self.keywords, banner=self.banner))
        offers = tuple(Offer(_networks(one.addresses), one.keywords, one.banner) for one in known)
        return Restore(self.side, self.scope, self.starttls, offers)


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[queue]``: the kernel's queue and how it is read. ``copy_range`` is in bytes, ``length`` in packets."""

    numbers: str = "0"
    driver: Driver = Driver.KERNEL
    length: int = 4096
    copy_range: int = 0xFFFF
    gso: bool = True
    #: Largest socket receive buffer in bytes; 0: as much as a full queue can fill.
    receive_buffer: int = 0
    #: The CPUs on which the queues' threads run, assigned in turn; empty: the kernel chooses.
    cpus: tuple[int, ...] = ()
    #: Microseconds for which a queue's thread keeps polling for packets before it sleeps; 0: none.
    busy_poll: int = 0
    #: If true, connections that need no more inspection bypass the queue, by a bit of their connection mark.
    offload: bool = False
    #: If true, and addresses are translated, connections with the same addresses and ports are told apart as conntrack
    #: does, by a packet mark in the queue.
    conntrack: bool = True
    #: If true, the gateway does not check other tables' flowtables, whose rules must then leave out the inspected
    #: ports.
    flowtables: bool = False

    @property
    def first(self) -> int:
        return int(self.numbers.partition("-")[0])

    @property
    def last(self) -> int:
        return int(self.numbers.rpartition("-")[2])


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[log]``: where events go: a file's path, ``-`` for standard output, None for nowhere."""

    eve: str | None = None
    #: Seconds between two ``stats`` events.
    stats: float = 60.0
    #: If true, an ``alert`` event is written in addition to each ``mailguard`` event, for consumers that list only
    #: alerts.
    alerts: bool = False


class SyslogStyle(StrEnum):
    """The style of log lines: that of a PIX up to 6.3, of an ASA, or whichever the profile belongs to."""

    AUTO = "auto"
    PIX = "pix"
    ASA = "asa"


class Syslog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[syslog]``: findings as Cisco's log lines, in addition to ``log.eve``."""

    #: Target of the log lines: a file, ``-``, journald, ``udp://HOST[:PORT]``, ``tcp://HOST[:PORT]`` or
    #: ``unix:///PATH``; None: no log lines.
    target: str | None = None
    style: SyslogStyle = SyslogStyle.AUTO
    format: Format = Format.RFC3164
    facility: str = "local4"
    #: Host name in the log lines; empty: this machine's name.
    host: str = ""
    #: Interface names in the log lines for the client's and the server's side.
    client: str = "outside"
    server: str = "inside"
    #: Networks that have interface names of their own: ``dmz = ["10.0.25.0/24"]``.
    interfaces: dict[str, tuple[str, ...]] = {}

    def names(self) -> Interfaces:
        """The interface names in log lines. Raises ValueError for an invalid network."""
        named = ((name, network) for name, texts in self.interfaces.items() for network in _networks(texts))
        return Interfaces(self.client, self.server, tuple(named))


class Confine(StrEnum):
    """Whether a gateway gives up what it does not need once its queues are bound; ``try``: as far as it can."""

    NO = "no"
    TRY = "try"
    REQUIRE = "require"


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[service]``: the control socket of a running gateway, and the rights it runs with."""

    #: The path of the control socket; empty: no control socket.
    control: str = "/run/nfmailguard/control.sock"
    #: Group (name or number) that may use the control socket, besides root and the gateway's own user; empty: no group.
    group: str = ""
    #: User (name or number) that the process becomes once its queues are bound; empty: it stays the user that started
    #: it.
    user: str = ""
    confine: Confine = Confine.TRY


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole configuration. ``policy`` overrides keys of every profile named in it."""

    gateway: Gateway = Gateway()
    rule: tuple[Rule, ...] = ()
    queue: Queue = Queue()
    limits: Limits = Limits()
    on: On = On()
    log: Log = Log()
    syslog: Syslog = Syslog()
    restore: Restoring = Restoring()
    service: Service = Service()
    policy: dict[str, Any] = {}

    def flow_rules(self) -> tuple[FlowRule, ...]:
        """The rules of an Engine; the last one is ``[gateway]`` and matches every flow. Raises ConfigError."""
        rules = [
            FlowRule(
                rule.mode or self.gateway.mode,
                self._policy(rule.profile or self.gateway.profile),
                _networks(rule.source),
                _networks(rule.destination),
                rule.interface,
                rule.ports,
                self.restore.restore(),
            )
            for rule in self.rule
        ]
        last = FlowRule(self.gateway.mode, self._policy(self.gateway.profile), restore=self.restore.restore())
        return (*rules, last)

    def ports(self) -> tuple[int, ...]:
        """Every port that is inspected, in order."""
        return tuple(sorted({*self.gateway.ports, *(port for rule in self.rule for port in rule.ports)}))

    def hooks(self) -> tuple[Hook, ...]:
        """Which packets are taken. A mail host's own traffic is seen completely only by input and output together."""
        hooks = set(self.gateway.hook)
        if hooks & {Hook.INPUT, Hook.OUTPUT}:
            hooks |= {Hook.INPUT, Hook.OUTPUT}
        return tuple(hook for hook in Hook if hook in hooks)

    def on_queue(self, condition: str) -> Action:
        """The action for ``queue_full`` or ``no_listener``: the kernel has one action for all flows, so enforcing any
        of them decides.
        """
        modes = [rule.mode for rule in self.flow_rules()]
        enforcing = Mode.ENFORCE in modes and not self.gateway.dry_run
        return self.on.action(condition, Mode.ENFORCE if enforcing else Mode.MONITOR)

    def needs_conntrack(self) -> bool:
        """Whether conntrack must run: if bytes may be changed, fragments must be reassembled first; and offload marks
        connections.
        """
        watched = self.gateway.dry_run or all(rule.mode is Mode.MONITOR for rule in self.flow_rules())
        return self.queue.offload or not watched

    def tells_connections_apart(self) -> bool:
        """Whether connections get a mark: not if packets may bypass the queue, as the mark would stay on them."""
        passing = any(self.on_queue(name) is Action.PASS for name in ("queue_full", "no_listener"))
        return self.queue.conntrack and self.needs_conntrack() and not passing

    def engine_limits(self) -> Limits:
        """The engine's limits: held packets stay under a quarter of the queue, so that they never fill it."""
        return msgspec.structs.replace(
            self.limits, held_packets=min(self.limits.held_packets, max(1, self.queue.length // 4))
        )

    def _policy(self, name: str) -> Policy:
        policy = override(load_profile(name), _flat(self.policy))
        if self.gateway.faithful:
            commands = msgspec.structs.replace(policy.commands, partial_lines=PartialLines.MASK)
            policy = msgspec.structs.replace(policy, commands=commands)
        return policy


_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def network(text: str) -> Network:
    """An address or a network; ValueError says what is wrong. An IPv4-mapped one (RFC 4291 2.5.5.2) becomes IPv4's.

    Packets carry such addresses as IPv4, wherever in a configuration they are.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which no packet tells; write it without, and `in` for the interface")
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no address or network") from None
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        packed = found.network_address.packed[12:]
        return ipaddress.IPv4Network((packed, found.prefixlen - _MAPPED.prefixlen))
    return found


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(map(network, texts))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    # Turns nested tables into the flat keys that `--set` takes.
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            flat[prefix + key] = ",".join(str(item) for item in value)
        else:
            flat[prefix + key] = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    return flat
