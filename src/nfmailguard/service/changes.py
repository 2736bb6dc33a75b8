"""What differs between a gateway's configuration and one that replaces it while packets are processed.

Promises: what cannot change without a restart is in one table, ``FIXED``, and is named with both values; what the
kernel is asked for fits every configuration that a flow is still under. Changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from nfmailguard.config import Config
from nfmailguard.plain import printable
from nfmailguard.policy.model import Action, FlowRule
from nfmailguard.settings import network

__all__ = [
    "FIXED",
    "Treatment",
    "changes",
    "fixed_changes",
    "fixed_differ",
    "fixed_values",
    "needs_restart",
    "reaches_further",
    "treatment",
]

#: Settings that are fixed when the gateway starts, and why: a key or, if it ends with a dot, all keys of a section.
FIXED: Mapping[str, str] = {
    "queue.": "the queues are bound as they are",
    "gateway.hook": "the chains stand in their hooks, and packets that wait in a queue are dropped with them",
    "limits.flows": "the table is as large as it is",
    "limits.memory": "what is in use cannot be taken back; it may grow",
    "limits.cookies": "the notes of earlier connections are of that age",
    "limits.startup": "it is over, or runs",
    "limits.event_memory": "mails under way are kept in it",
    "service.": "whoever asks is connected there",
}
#: Most characters of a setting's value that are shown in a message.
_SHOWN = 60


class Treatment(NamedTuple):
    """How the kernel treats packets: settings of the queues and the table, and so the same for all flows."""

    bypass: bool  # Packets pass while no program reads the queue.
    fail_open: bool  # Packets pass while the queue is full.
    conntrack: bool  # Conntrack runs, which reassembles IP fragments before the queue.
    connections: bool  # Connection marks tell an old connection from a new one with the same addresses and ports.


def treatment(configs: Iterable[Config]) -> Treatment:
    """The treatment that the strictest configuration wants: a flow that is enforced stays enforced to its end."""
    known = list(configs)
    return Treatment(
        bypass=all(config.on_queue("no_listener") is Action.PASS for config in known),
        fail_open=all(config.on_queue("queue_full") is Action.PASS for config in known),
        conntrack=any(config.needs_conntrack() for config in known),
        connections=any(config.tells_connections_apart() for config in known),
    )


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """The single values of a nested structure by their keys; tables in lists are numbered from 1."""
    if isinstance(value, dict) and value:
        items = [(f"{key}.{name}" if key else name, part) for name, part in value.items()]
    elif isinstance(value, list | tuple) and value and all(isinstance(part, dict) for part in value):
        items = [(f"{key} {number}", part) for number, part in enumerate(value, 1)]
    else:
        return {key: value}
    return {name: leaf for under, part in items for name, leaf in _flat(part, under).items()}


def _values(config: Config) -> dict[str, Any]:
    return {key: value for key, value in _flat(msgspec.to_builtins(config)).items() if value != {}}


def _shown(value: Any) -> str:
    text = printable(value if isinstance(value, str) and value else json.dumps(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def changes(old: Config, new: Config, before: Sequence[FlowRule] = (), after: Sequence[FlowRule] = ()) -> list[str]:
    """Every key that differs, one line each; also profiles of the same name whose files differ."""
    had, has = _values(old), _values(new)
    found = []
    for key in [*had, *(key for key in has if key not in had)]:
        if key not in has or key not in had:
            value = had[key] if key in had else has[key]
            if value not in (None, (), []):
                found.append(f"{key}: {'gone' if key in had else _shown(value)}")
        elif had[key] != has[key]:
            found.append(f"{key}: {_shown(had[key])} -> {_shown(has[key])}")
    if not any(line.startswith(("policy.", "gateway.faithful")) for line in found):
        policies = {rule.policy.name: rule.policy for rule in before}
        names = dict.fromkeys(
            rule.policy.name for rule in after if policies.get(rule.policy.name, rule.policy) != rule.policy
        )
        found += [f"profile {printable(name)}: another of that name" for name in names]
    return found


def needs_restart(old: Config, new: Config) -> list[str]:
    """What has changed but cannot change while the gateway runs, one line each."""
    return fixed_differ(fixed_values(old), fixed_values(new))


def fixed_values(config: Config) -> dict[str, Any]:
    """The values that cannot change while the gateway runs, by key, in the form JSON has."""
    values = json.loads(msgspec.json.encode(_values(config)))
    return {key: value for key, value in values.items() if _reason(key) is not None}


def fixed_differ(had: Mapping[str, Any], has: Mapping[str, Any]) -> list[str]:
    """What differs between two results of ``fixed_values``, one line each."""
    return [f"{change}: needs a restart; {reason}" for change, reason in fixed_changes(had, has)]


def fixed_changes(had: Mapping[str, Any], has: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same as pairs: each key with both values, and why it cannot change."""
    found = []
    for key in dict.fromkeys((*had, *has)):
        before, after, reason = had.get(key), has.get(key), _reason(key)
        grows = key == "limits.memory" and isinstance(before, int) and isinstance(after, int) and after > before
        if reason is None or before == after or grows:
            continue
        found.append((f"{printable(key)} changed from {_shown(before)} to {_shown(after)}", reason))
    return found


def _reason(key: str) -> str | None:
    return next((why for fixed, why in FIXED.items() if key == fixed or _within(key, fixed)), None)


def _within(key: str, fixed: str) -> bool:
    return fixed.endswith(".") and key.startswith(fixed)


def reaches_further(old: Config, new: Config) -> bool:
    """Whether packets come to the queue that did not come there before."""
    if set(new.ports()) - set(old.ports()):
        return True
    before, after = ([network(text) for text in config.gateway.addresses] for config in (old, new))
    return bool(before) and (
        not after
        or any(
            not any(one.version == known.version and one.subnet_of(known) for known in before)  # type: ignore[arg-type]
            for one in after
        )
    )
