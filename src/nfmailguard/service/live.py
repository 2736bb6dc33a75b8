"""What on a machine lets mail bypass the queue, or breaks it: each with its remedy, in a line.

Promises: a function of configuration and machine; nothing is read from the system here. What is only possibly wrong is
left out where a correct machine looks the same. docs/live.md lists the names.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from nfmailguard import foreign
from nfmailguard.config import IMPLICIT_TLS, Config
from nfmailguard.engine import flows_at_once
from nfmailguard.policy.model import Action, Mode
from nfmailguard.service.machine import Link, Machine
from nfmailguard.settings import Hook, network
from nfmailguard.statements import OFFLOAD_MARK, Network

__all__ = ["Trouble", "troubles"]

#: Part of the conntrack table's size from which on it is reported as too full.
FULL = 0.8


class Trouble(NamedTuple):
    """One problem. ``name`` is the same in every version."""

    name: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}; {self.remedy}"


def troubles(config: Config, machine: Machine) -> list[Trouble]:
    """Every problem once; those that let mail pass uninspected come first."""
    found = (trouble for look in LOOKS for trouble in look(config, machine))
    return list(dict.fromkeys(found))


def _enforces(config: Config) -> bool:
    return not config.gateway.dry_run and any(rule.mode is Mode.ENFORCE for rule in config.flow_rules())


def _forwards(config: Config) -> bool:
    return Hook.FORWARD in config.hooks()


def _effects(config: Config, machine: Machine, *kinds: str) -> Iterator[tuple[int, bool, foreign.Effect]]:
    """What other tables' rules may do to mail before or where it is queued: port, whether to the server's packets, the
    effect.
    """
    hooks = ("ingress", "prerouting", *config.hooks())
    for port, answer, family in product(config.ports(), (False, True), (4, 6)):
        for effect in foreign.followed(machine.rules, foreign.Packet(port, answer, family), hooks):
            if effect.kind in kinds:
                yield port, answer, effect


def _kernel(config: Config, machine: Machine) -> Iterator[Trouble]:
    if machine.refused:
        what, _, remedy = machine.refused.removeprefix("rules: ").rpartition("; ")
        yield Trouble("kernel", f"our table is refused: {what or remedy}", remedy if what else "see `dmesg`")


def _queues(config: Config, machine: Machine) -> Iterator[Trouble]:
    wanted = range(config.queue.first, config.queue.last + 1)
    ours = machine.ours
    for number in wanted:
        who = machine.queues.get(number)
        running = ours and ours.queue_first <= number <= ours.queue_last and who and "nfmailguard" in who
        if who and not running:
            yield Trouble(
                "queue_taken", f"queue {number} is read by {who}", "stop that, or set queue.numbers to another"
            )
    if ours and not any(number in machine.queues for number in range(ours.queue_first, ours.queue_last + 1)):
        yield Trouble("rules_left", "our table is in place and nobody reads its queue", "`nfmailguard rules remove`")
    for _, _, effect in _effects(config, machine, "queue"):
        if effect.value in wanted:
            yield Trouble(
                "queue_shared",
                f"a rule in {effect.where} sends mail to queue {effect.value}, too: packets are seen twice",
                "give that rule, or queue.numbers, another number",
            )
        elif effect.value not in machine.queues and not effect.bypass:
            yield Trouble(
                "queue_unread",
                f"a rule in {effect.where} sends mail to queue {effect.value}, which nobody reads: it is dropped there",
                "start its reader, or say `bypass` in that rule",
            )


def _past(config: Config, machine: Machine) -> Iterator[Trouble]:
    ports = ", ".join(map(str, config.ports()))
    if _forwards(config):
        taking = set()
        for _, _, effect in _effects(config, machine, "flow"):
            taking.add(effect.value)
            yield Trouble(
                "flowtable",
                f"a rule in {effect.where} puts mail connections into flowtable {effect.value}, past the queue",
                f"add `tcp dport != {{ {ports} }} tcp sport != {{ {ports} }}` before its `flow add`",
            )
        for name in () if config.queue.flowtables or not _enforces(config) else machine.others.flowtables:
            if name.split()[-1] not in taking:
                yield Trouble(
                    "flowtable_unsaid",
                    f"flowtable {name} is there, and `run` does not start to enforce beside one",
                    "its rules leave mail out, so say queue.flowtables = true",
                )
        for _, _, effect in _effects(config, machine, "fwd"):
            yield Trouble(
                "forwarded_early",
                f"a rule in {effect.where} forwards mail at the interface, before any hook",
                f"let it leave tcp port {ports} out, in both directions",
            )
    for link in machine.links:
        if link.xdp:
            yield Trouble(
                "xdp",
                f"interface {link.name} has an XDP program, which may send packets on before any hook",
                f"make sure that it passes tcp port {ports}, or `ip link set {link.name} xdp off`",
            )
    for path in machine.flushing:
        yield Trouble(
            "flush_ruleset",
            f"{path} says `flush ruleset`: loading it again takes our table away, and mail passes uninspected",
            "write `table inet NAME` and `delete table inet NAME` before each table of its own instead",
        )


def _handshakes(config: Config, machine: Machine) -> Iterator[Trouble]:
    for port, _, effect in _effects(config, machine, "notrack", "synproxy", "tproxy"):
        if effect.kind == "notrack" and config.needs_conntrack():
            yield Trouble(
                "notrack",
                f"a rule in {effect.where} keeps tcp port {port} from conntrack: fragments of mail are not joined",
                f"leave tcp port {port} out of it, in both directions",
            )
        elif effect.kind == "synproxy":
            yield Trouble(
                "synproxy",
                f"a rule in {effect.where} answers handshakes on tcp port {port} itself: no connection is understood",
                f"leave tcp port {port} out of it; the engine copes with SYN floods",
            )
        elif effect.kind == "tproxy" and _forwards(config):
            yield Trouble(
                "tproxy",
                f"a rule in {effect.where} hands tcp port {port} to a proxy on this machine, which nothing inspects",
                'leave it out, or inspect what the proxy sends: gateway.hook = ["input", "output"]',
            )


def _translated(config: Config, machine: Machine) -> Iterator[Trouble]:
    ports = config.ports()
    for port, answer, effect in _effects(config, machine, "dnat", "redirect"):
        if answer:
            continue
        to = effect.value if effect.kind == "redirect" else effect.value[1]
        if to is not None and to not in ports:
            yield Trouble(
                "translated_port",
                f"a rule in {effect.where} sends tcp port {port} on to port {to}, which is not inspected",
                f"gateway.ports = [{', '.join(map(str, (*ports, to)))}]",
            )
        if effect.kind == "redirect" and Hook.INPUT not in config.hooks():
            yield Trouble(
                "redirected",
                f"a rule in {effect.where} sends tcp port {port} to this machine, and only forwarded mail is inspected",
                'gateway.hook = ["input", "output"]',
            )
    known = [network(text) for text in config.gateway.addresses]
    texts = {*config.gateway.addresses, *(text for rule in config.rule for text in rule.destination)}
    for text, port in product(sorted(texts), ports):
        servers = network(text)
        if servers.prefixlen < servers.max_prefixlen:
            continue
        packet = foreign.Packet(port, False, servers.version, servers.network_address.packed)
        for effect in foreign.followed(machine.rules, packet, ("prerouting",)):
            to = effect.value[0] if effect.kind == "dnat" else None
            if to is None or to == text or any(_in(to, one) for one in known):
                continue
            yield Trouble(
                "translated_address",
                f"{text} becomes {to} by a rule in {effect.where} before mail comes to us, and then matches nothing",
                f"write {to} where the configuration says {text}",
            )


def _in(text: str, servers: Network) -> bool:
    found = network(text)
    return found.version == servers.version and found.network_address in servers


def _dropped(config: Config, machine: Machine) -> Iterator[Trouble]:
    for port, answer, effect in _effects(config, machine, "drop", "reject"):
        if effect.sure:
            way = "from" if answer else "to"
            yield Trouble(
                "dropped",
                f"a rule in {effect.where} drops everything {way} tcp port {port} before or beside us",
                "let mail pass there: it is inspected only where nothing else drops it",
            )


def _marks(config: Config, machine: Machine) -> Iterator[Trouble]:
    translated = any(_effects(config, machine, "dnat", "redirect"))
    for _, _, effect in _effects(config, machine, "mark", "ct_mark"):
        if effect.kind == "mark" and effect.value != 0 and translated and config.tells_connections_apart():
            yield Trouble(
                "mark",
                f"a rule in {effect.where} marks mail, and addresses are translated: connections of two public"
                " addresses of one server are not told apart",
                "leave mail out of that rule, or set the mark after us (postrouting)",
            )
        ours = effect.value is None or effect.value & OFFLOAD_MARK
        if effect.kind == "ct_mark" and ours and config.queue.offload:
            yield Trouble(
                "connection_mark",
                f"a rule in {effect.where} sets connection marks that may hold 0x{OFFLOAD_MARK:08x}, which is"
                " queue.offload's",
                "mask that bit out of the rule, or set queue.offload = false",
            )


def _ways(config: Config, machine: Machine) -> Iterator[Trouble]:
    if not _forwards(config):
        return
    switch = machine.sysctls.get
    families = {network(text).version for text in config.gateway.addresses} or {4}
    for version, name in ((4, "ipv4/ip_forward"), (6, "ipv6/conf/all/forwarding")):
        if version in families and switch(name) == "0":
            key = f"net.{name.replace('/', '.')}"
            yield Trouble("forwarding", f"IPv{version} is not forwarded, so no mail is", f"`sysctl -w {key}=1`")
    several = len(machine.uplinks) > 1
    everywhere = switch("ipv4/conf/all/rp_filter", "0")
    for name in machine.uplinks:
        strict = max(everywhere, switch(f"ipv4/conf/{name}/rp_filter", "0")) == "1"
        if several and strict:
            yield Trouble(
                "rp_filter",
                f"interface {name} is one of several uplinks, and strict: mail that came by another way is dropped",
                f"`sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{name}.rp_filter=2`",
            )
        elif not several and not strict and _enforces(config):
            yield Trouble(
                "rp_filter",
                f"interface {name} takes packets that claim a protected server's address",
                f"`sysctl -w net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.{name}.rp_filter=1`",
            )
    if several and _enforces(config) and config.on.action("wrong_interface", Mode.ENFORCE) is not Action.PASS:
        yield Trouble(
            "uplinks",
            f"default routes by {', '.join(machine.uplinks)}: a connection that changes its uplink is cut off",
            'on.wrong_interface = "pass"',
        )


def _conntrack(config: Config, machine: Machine) -> Iterator[Trouble]:
    most, count = (int(machine.sysctls.get(f"netfilter/nf_conntrack_{name}", 0)) for name in ("max", "count"))
    flows = flows_at_once(config.limits) * (config.queue.last - config.queue.first + 1)
    remedy = f"`sysctl -w net.netfilter.nf_conntrack_max={max(4 * flows, 2 * most)}`"
    if most and config.needs_conntrack() and most < flows:
        yield Trouble("conntrack_size", f"conntrack has room for {most} connections, we for {flows}", remedy)
    if most and count > FULL * most:
        yield Trouble(
            "conntrack_full", f"conntrack holds {count} of at most {most} connections; full, it drops new mail", remedy
        )


def _bridges(config: Config, machine: Machine) -> Iterator[Trouble]:
    everyone = [machine.sysctls.get(f"bridge/bridge-nf-call-{name}", "0") for name in ("iptables", "ip6tables")]
    bridges = {link.number: link for link in machine.links if link.kind == "bridge"}
    for number, link in bridges.items():
        if not _forwards(config) or sum(one.master == number for one in machine.links) < 2:
            continue
        if not (link.filters or "1" in everyone):
            # If the routes to the servers are known and none uses this bridge, the packets it bridges are not to be
            # inspected.
            if not machine.ways or link.name in machine.ways.values():
                yield Trouble(
                    "bridge",
                    f"bridge {link.name} sends what it bridges past every hook, and mail between its ports with it",
                    "`modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1"
                    " net.bridge.bridge-nf-call-ip6tables=1`",
                )
            continue
        if link.vlans and machine.sysctls.get("bridge/bridge-nf-filter-vlan-tagged") == "0":
            yield Trouble(
                "bridge_vlan",
                f"bridge {link.name} sends tagged frames past every hook",
                "`sysctl -w net.bridge.bridge-nf-filter-vlan-tagged=1`",
            )
        if not any(not text.startswith("fe80:") for text in link.addresses) and _enforces(config):
            yield Trouble(
                "bridge_address",
                f"bridge {link.name} has no address: our resets find no way, and both sides wait for their time-outs",
                f"give it one, with routes to both sides: `ip address add ADDRESS/LENGTH dev {link.name}`",
            )
    yield from _named(config, machine, bridges)


def _named(config: Config, machine: Machine, bridges: dict[int, Link]) -> Iterator[Trouble]:
    names = {link.name: link for link in machine.links}
    for place, rule in enumerate(config.rule, 1):
        link = names.get(rule.interface or "")
        if rule.interface and names and link is None:
            yield Trouble(
                "no_interface",
                f"rule {place} is for interface {rule.interface}, which is not there",
                "correct its `in`",
            )
        elif link and link.master is not None and link.master in bridges:
            bridge = bridges[link.master].name
            yield Trouble(
                "bridge_port",
                f"rule {place} is for {link.name}, a port of bridge {bridge}, and never matches",
                f'in = "{bridge}"',
            )


def _mail_host(config: Config, machine: Machine) -> Iterator[Trouble]:
    if Hook.INPUT in config.hooks():
        return
    remedy = 'gateway.hook = ["forward", "input", "output"], or ["input", "output"] where nothing is forwarded'
    own = {text for link in machine.links if not link.loopback for text in link.addresses}
    for text, local in product(config.gateway.addresses, sorted(own)):
        servers = network(text)
        if servers.prefixlen == servers.max_prefixlen and local == str(servers.network_address):
            yield Trouble("mail_host", f"{text} is this machine itself, and only what it forwards is inspected", remedy)
    for port in config.ports():
        if any(number == port and not _loopback(address) for address, number in machine.listening):
            yield Trouble(
                "mail_host",
                f"this machine listens on tcp port {port} itself, and only what it forwards is inspected",
                remedy,
            )


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:7f00:1")


def _implicit_tls(config: Config, machine: Machine) -> Iterator[Trouble]:
    for port in sorted({*config.ports()} & {*IMPLICIT_TLS}):
        yield Trouble(
            "implicit_tls",
            f"tcp port {port} speaks TLS from the first byte on: there is no SMTP to inspect",
            f"take {port} out of gateway.ports",
        )


def _logs(config: Config, machine: Machine) -> Iterator[Trouble]:
    eve = config.log.eve
    if eve is None and config.syslog.target is None:
        yield Trouble("no_events", "findings are written nowhere", "set log.eve to a file")
    elif eve not in (None, "-"):
        folder = Path(str(eve)).absolute().parent
        if not os.access(folder, os.W_OK):
            there = "cannot be written to" if folder.is_dir() else "does not exist"
            yield Trouble("log_folder", f"log.eve: {folder} {there}", f"`install -d -m 750 {folder}`")
    target = urlsplit(config.syslog.target or "")
    if target.scheme in ("udp", "tcp") and target.hostname:
        try:
            socket.getaddrinfo(target.hostname, target.port or 514)
        except OSError as error:
            yield Trouble(
                "log_host",
                f"syslog.target: {target.hostname} has no address ({error.strerror or error})",
                "correct the name, or write its address",
            )


LOOKS: tuple[Callable[[Config, Machine], Iterator[Trouble]], ...] = (
    _kernel, _queues, _past, _translated, _mail_host, _bridges, _marks,
    _ways, _handshakes, _dropped, _conntrack, _implicit_tls, _logs,
)  # fmt: skip
