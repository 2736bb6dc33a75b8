"""Topologies: those that come with the program and the user's own, read from TOML and checked.

Promises: errors in a file raise one ConfigError with a line for each, which names the key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.lab.addressing import addresses, unreachable
from nfmailguard.lab.plan import LOSS, NONE, TIME, Attach, Host, Link, Plan, Role, Route, lab_network
from nfmailguard.lab.unpacked import KINDS
from nfmailguard.policy.load import built, load_profile
from nfmailguard.reading import text_of, toml

__all__ = ["SERVER_KINDS", "names", "parsed", "problems_of_devices", "read", "text_named", "with_devices"]

SERVER_KINDS = ("aiosmtpd", "postfix", *KINDS)
#: A host's name; "control" is excluded, because the lab has a file of that name beside the hosts' directories.
_HOST = re.compile(r"(?!control$)[a-z][a-z0-9-]{0,30}")
#: Names that Linux allows for a network device (IFNAMSIZ, dev_valid_name).
_DEVICE = re.compile(r"(?!\.{1,2}$)[!-.0-9;-~]{1,15}")
_MOST_DELAY = 60_000_000  # Largest delay of a link, in microseconds.
#: Limits of a link's MTU: every host takes 576 bytes (RFC 791 3.2), IPv6 needs 1280 (RFC 8200 5), and a veth device has
#: 65535 at most.
_LEAST_MTU, _LEAST_MTU6, _MOST_MTU = 576, 1280, 65_535
_MOST_LINKS = 99
_MOST_ATTACHED = 16


def _directory() -> Any:
    return resources.files("nfmailguard.lab").joinpath("topologies")


def names() -> list[str]:
    """The topologies that come with the program."""
    return sorted(entry.name.removesuffix(".toml") for entry in _directory().iterdir() if entry.name.endswith(".toml"))


def text_named(name: str) -> str:
    """The TOML text of a topology by name, or by the path of a file; ConfigError if there is none."""
    if "/" in name or name.endswith(".toml"):
        return text_of(name, f"topology {name}")
    if name not in names():
        raise ConfigError(f"topology {name!r}: unknown; one of {', '.join(names())}, or the path of a .toml file")
    text: str = _directory().joinpath(f"{name}.toml").read_text()
    return text


def read(name: str) -> Plan:
    """The plan of a topology by name or file; profile files named in it are relative to its directory."""
    is_file = "/" in name or name.endswith(".toml")
    return parsed(text_named(name), f"topology {name}", Path(name).absolute().parent if is_file else None)


def parsed(text: str, where: str, beside: Path | None = None) -> Plan:
    """The plan in a TOML text. Raises ConfigError with all errors, one line each."""
    table = toml(text, where)
    problems: list[str] = []
    hosts = table.pop("host", {})
    plan: Plan = built(table, Plan, "", problems) or Plan()
    if not isinstance(hosts, dict):
        problems.append("host: a table for each host: [host.client]")
        hosts = {}
    made = {}
    for name, value in hosts.items():
        wrong = len(problems)
        if not _HOST.fullmatch(name):
            problems.append(f"host.{name}: no name for a host; letters a-z, digits and -, at most 31, and not control")
        if not isinstance(value, dict):
            problems.append(f"host.{name}: a table: [host.{name}]")
        elif (host := built(value, Host, f"host.{name}", problems)) is not None and _HOST.fullmatch(name):
            made[name] = _found(host, beside) if len(problems) == wrong else host
    plan = msgspec.structs.replace(plan, host=made)
    problems += _check(plan)
    if not problems:
        problems += unreachable(plan, addresses(plan))
    if problems:
        raise ConfigError(*(f"{where}: {problem}" for problem in dict.fromkeys(problems)))
    return plan


def _found(host: Host, beside: Path | None) -> Host:
    if beside is None or not ("/" in host.profile or host.profile.endswith(".toml")):
        return host
    return msgspec.structs.replace(host, profile=str(beside / host.profile))


def _check(plan: Plan) -> Iterator[str]:
    """What is wrong with a plan, one line each, beginning with the key."""
    for name in plan.host:
        yield from _of_host(plan, name)
    yield from (f"host: no {role} in it" for role in (Role.CLIENT, Role.SERVER) if not plan.of(role))
    if len(plan.link) > _MOST_LINKS:
        yield f"link: {len(plan.link)}; {_MOST_LINKS} at most"
    taken: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, str] = {}
    for number, link in enumerate(plan.link[:_MOST_LINKS], start=1):
        yield from _of_link(plan, link, f"link {number}:")
        yield from _of_networks(link, f"link {number}:", number, taken)
    linked = {name for link in plan.link for name in link.hosts}
    yield from (f"host.{name}: on no link" for name in plan.host if name not in linked)
    for number, route in enumerate(plan.route, start=1):
        yield from _of_route(plan, route, f"route {number}:")
    yield from problems_of_devices(plan)


def _of_host(plan: Plan, name: str) -> Iterator[str]:
    host, role = plan.host[name], plan.role(name)
    if role is not Role.GATEWAY:
        given = {"profile": host.profile, "mode": host.mode}
        yield from (f"host.{name}.{key}: a {role} has none; a gateway has" for key, value in given.items() if value)
    if role is not Role.SERVER and host.server:
        yield f"host.{name}.server: a {role} has none; a server has"
    if host.server and host.server not in (*SERVER_KINDS, NONE):
        yield f"host.{name}.server: {host.server!r}; one of {', '.join((*SERVER_KINDS, NONE))}"
    if host.profile:
        try:
            load_profile(host.profile)
        except ConfigError as error:
            yield from (f"host.{name}.profile: {line}" for line in error.lines)


def _of_link(plan: Plan, link: Link, where: str) -> Iterator[str]:
    if len(link.hosts) < 2:
        yield f'{where} hosts: two at least: hosts = ["client", "gateway"]'
    if len(set(link.hosts)) < len(link.hosts):
        yield f"{where} hosts: one of them is there twice"
    yield from _strangers(plan, link.hosts, f"{where} hosts")
    if link.delay and (not TIME.fullmatch(link.delay) or link.microseconds > _MOST_DELAY):
        yield f'{where} delay: {link.delay!r}; a time as "20ms", "500us" or "1.5s", at most a minute'
    if link.loss and (not LOSS.fullmatch(link.loss) or link.lost > 100):
        yield f'{where} loss: {link.loss!r}; a share as "1%" or "0.5%"'
    least = _LEAST_MTU if link.ipv6 == NONE else _LEAST_MTU6
    if link.mtu is not None and not least <= link.mtu <= _MOST_MTU:
        why = "" if link.ipv6 == NONE else ' (IPv6 needs 1280; ipv6 = "none" goes without)'
        yield f"{where} mtu: {link.mtu}; {least} to {_MOST_MTU}{why}"


def _of_networks(link: Link, where: str, number: int, taken: dict[Any, str]) -> Iterator[str]:
    if link.ipv4 == link.ipv6 == NONE:
        yield f"{where} ipv4, ipv6: both are none"
    for key, text, version in (("ipv4", link.ipv4, 4), ("ipv6", link.ipv6, 6)):
        if text == NONE:
            continue
        try:
            found = ipaddress.ip_network(text or lab_network(number, version))
        except ValueError as error:
            yield f"{where} {key}: {error}"
            continue
        if found.version != version:
            yield f"{where} {key}: {text} is of IPv{found.version}"
        elif found.num_addresses < 2 * len(link.hosts) + 2:
            yield f"{where} {key}: {text} has too few addresses for {len(link.hosts)} hosts"
        elif other := next((name for one, name in taken.items() if one.version == version and one.overlaps(found)), ""):
            yield f"{where} {key}: {found} overlaps that of {other}"
        else:
            taken[found] = where.rstrip(":")


def _strangers(plan: Plan, hosts: Sequence[str], where: str) -> Iterator[str]:
    for name in hosts:
        if name not in plan.host:
            yield f"{where}: no host {name!r}; the hosts are {', '.join(plan.host)}"


def _of_route(plan: Plan, route: Route, where: str) -> Iterator[str]:
    for key, name in (("from", route.sender), ("to", route.to)):
        if name:
            yield from _strangers(plan, [name], f"{where} {key}")
        else:
            yield f"{where} {key}: a host's name is missing"
    if not route.via:
        yield f'{where} via: at least one gateway: via = ["a"]'
    yield from _strangers(plan, route.via, f"{where} via")
    beside = {name for link in plan.link if route.sender in link.hosts for name in link.hosts}
    for name in route.via:
        if name in plan.host and plan.role(name) is not Role.GATEWAY:
            yield f"{where} via: {name} is no gateway"
        elif name in plan.host and route.sender in plan.host and name not in beside:
            yield f"{where} via: {name} is on no link of {route.sender}"


def problems_of_devices(plan: Plan) -> Iterator[str]:
    """What is wrong with the devices of this machine that a plan uses, except what only the kernel knows."""
    if len(plan.attach) > _MOST_ATTACHED:
        yield f"attach: {len(plan.attach)}; {_MOST_ATTACHED} at most"
    seen = set()
    for number, one in enumerate(plan.attach[:_MOST_ATTACHED], start=1):
        where = f"attach {number}:"
        if not _DEVICE.fullmatch(one.device):
            yield f"{where} device: {one.device!r} is no name of a device"
        elif one.device in seen:
            yield f"{where} device: {one.device} is there twice"
        seen.add(one.device)
        yield from _strangers(plan, [one.host], f"{where} host")
        if one.host in plan.host and plan.role(one.host) is Role.GATEWAY:
            yield f"{where} host: {one.host} is a gateway; a device stands beside it, at a client or a server"
        if one.ipv4 == one.ipv6 == NONE:
            yield f"{where} ipv4, ipv6: both are none"
        for key, via, version in (("ipv4", "via4", 4), ("ipv6", "via6", 6)):
            yield from _of_attached(getattr(one, key), getattr(one, via), (key, via), version, where)


def _of_attached(own: str, box: str, keys: tuple[str, str], version: int, where: str) -> Iterator[str]:
    key, via = keys
    if own == NONE:
        if box:
            yield f"{where} {via}: {key} is none"
        return
    network = None
    if own:
        try:
            interface = ipaddress.ip_interface(own)
        except ValueError as error:
            yield f"{where} {key}: {error}"
            return
        if interface.version != version or "/" not in own:
            yield f"{where} {key}: {own}; an address of IPv{version} with its network's length, as " + (
                '"192.0.2.2/24"' if version == 4 else '"2001:db8::2/64"'
            )
            return
        network = interface.network
    if box:
        try:
            found = ipaddress.ip_address(box)
        except ValueError as error:
            yield f"{where} {via}: {error}"
            return
        if network is None:
            yield f"{where} {via}: {key} is missing: the host's own address beside it"
        elif found not in network or str(found) == str(ipaddress.ip_interface(own).ip):
            yield f"{where} {via}: {box} is no other address of {network}"


def with_devices(plan: Plan, devices: Sequence[str]) -> Plan:
    """``plan`` with devices of this machine: on a firewall's client side, then on its server side.
    Raises ConfigError.
    """
    order = (plan.of(Role.CLIENT)[0], plan.of(Role.SERVER)[0])
    more = (Attach(device, order[number % 2]) for number, device in enumerate(devices))
    made = msgspec.structs.replace(plan, attach=(*plan.attach, *more))
    if problems := list(problems_of_devices(made)):
        raise ConfigError(*(f"--attach: {problem}" for problem in problems))
    return made
