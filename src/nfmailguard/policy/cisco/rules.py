"""Drafts of rules for what a configuration inspects only on some interfaces, ports or hosts.

Promises: the rules, in the order of nfmailguard's configuration (the first that fits wins), do what the Cisco device
does; a flow that no rule fits gets the policy that is applied everywhere. They are drafts: the operator puts them into
the configuration, with this machine's interface names. Does not read text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec

from nfmailguard.plain import printable
from nfmailguard.policy.cisco.classes import Inspection
from nfmailguard.policy.cisco.ports import MAIL, every
from nfmailguard.policy.cisco.text import Statement

__all__ = ["MOST_RULES", "DraftedRule", "rules_of", "text"]

_MOST_PORTS = 64
Target = tuple[Inspection, str | None]
#: Most [[rule]] tables that a configuration may have (checked by ``config``).
MOST_RULES = 63


class DraftedRule(msgspec.Struct, frozen=True):
    """``profile`` None: mail of these flows is not inspected. Empty addresses and ports: any."""

    why: str
    interface: str | None = None
    source: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    profile: str | None = None


def _array(values: tuple[str, ...] | tuple[int, ...]) -> str:
    return json.dumps(list(values))


def text(rules: tuple[DraftedRule, ...]) -> str:
    """The rules as text for the configuration, in their order: the first that fits a flow is its rule."""
    lines = []
    for rule in rules:
        lines += [f"# {printable(rule.why)}", "[[rule]]"]
        if rule.interface is not None:
            lines.append(f"in = {json.dumps(printable(rule.interface))}  # here: the name this machine has for it")
        if rule.source:
            lines.append(f"from = {_array(rule.source)}")
        if rule.destination:
            lines.append(f"to = {_array(rule.destination)}")
        if rule.ports:
            lines.append(f"ports = {_array(rule.ports)}")
        if rule.profile is None:
            lines.append('mode = "monitor"  # not inspected there: nothing is changed')
        else:
            lines += ['mode = "enforce"', f"profile = {json.dumps(printable(rule.profile))}"]
        lines.append("")
    return "\n".join(lines)


def rules_of(
    targets: Sequence[Target], exceptions: Sequence[tuple[str, Statement]]
) -> tuple[tuple[DraftedRule, ...], int]:
    """The rules, and by how many they exceed what a configuration may have."""
    applied = [target for target in targets if target[0].applied and target[1] is not None]
    scopes: dict[str | None, list[Target]] = {None: []}
    for target in applied:
        scopes.setdefault(target[0].interface, []).append(target)
    everywhere = scopes.pop(None)
    first = next(iter(everywhere or applied), None)
    main = next((target for target in everywhere if target[0].ports & MAIL), first)
    ports = {target[0].ports for target in applied}
    everyones = next(iter(ports)) if len(ports) == 1 else None
    rules: list[DraftedRule] = []
    for interface, some in scopes.items():
        rules += _scope(some, interface, main, everyones)
    for interface, service in exceptions:
        why = f"{service.place}: {service.text}: mail is not inspected there"
        rules.append(DraftedRule(why, interface=interface))
    rules += _scope(everywhere, None, main, everyones)
    if scopes and not everywhere:
        rules.append(DraftedRule("all others: no policy is applied there"))
    return tuple(rules[:MOST_RULES]), max(0, len(rules) - MOST_RULES)


def _scope(
    targets: Sequence[Target], interface: str | None, main: Target | None, everyones: int | None
) -> list[DraftedRule]:
    """The rules for a policy's classes in order: a flow belongs to the first class that matches it (S-MPF)."""
    left: list[Target] = []
    covered = 0
    for one, profile in targets:
        if one.ports & ~covered:
            left.append((replace(one, ports=one.ports & ~covered), profile))
        covered |= 0 if one.entries else one.ports
    groups: list[list[DraftedRule]] = []
    later = 0  # Ports that later lines inspect too: a packet that this line does not match may match one of them.
    for one, profile in reversed(left):
        groups.append(list(_rules(one, profile, interface, main, everyones, last=not one.ports & later)))
        later |= one.ports
    return [rule for group in reversed(groups) for rule in group]


def _rules(
    one: Inspection,
    profile: str | None,
    interface: str | None,
    main: Target | None,
    everyones: int | None,
    *,
    last: bool,
) -> Iterator[DraftedRule]:
    """The rules for one line, in the order of its access lists' entries."""
    ports = _ports(one.ports, everyones)
    for entry in one.entries:
        if entry.permit and entry.of_all:
            break
        if entry.permit or last:
            why = f"{entry.statement.place}: {entry.statement.text}"
            what = profile if entry.permit else None
            yield DraftedRule(why, interface, entry.source, entry.destination, ports, what)
    else:
        if one.entries:
            if last:
                yield DraftedRule("all others: no line permits them", interface, ports=ports)
            return
    if interface is not None or main is None or one.statement is not main[0].statement:
        service = one.service or one.statement
        yield DraftedRule(f"{service.place}: {service.text}", interface, ports=ports, profile=profile)


def _ports(ports: int, everyones: int | None) -> tuple[int, ...]:
    """The ports a rule has to name: none if every line has the same ports."""
    if ports == everyones:
        return ()
    found = every(ports)
    return found if len(found) <= _MOST_PORTS else ()
