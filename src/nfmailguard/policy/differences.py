"""What differs between two sets of settings, a line a key: profiles, configurations.

Promises: values are shown as they would be typed, cut where they are long, and nothing in them reaches a terminal raw.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from nfmailguard.plain import printable
from nfmailguard.policy.model import FINDINGS, Policy

__all__ = ["flat", "policies", "shown"]

#: Of a value that is told.
_SHOWN = 60


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Leaves by their keys; tables in lists are counted from 1."""
    if isinstance(value, dict) and value:
        items = [(f"{key}.{name}" if key else name, part) for name, part in value.items()]
    elif isinstance(value, list | tuple) and value and all(isinstance(part, dict) for part in value):
        items = [(f"{key} {number}", part) for number, part in enumerate(value, 1)]
    else:
        return {key: value}
    return {name: leaf for under, part in items for name, leaf in flat(part, under).items()}


def shown(value: Any) -> str:
    text = printable(value if isinstance(value, str) and value else json.dumps(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def policies(first: Policy, second: Policy) -> Iterator[str]:
    """What the second profile does otherwise, by the keys of a profile; of lists what has come and gone."""
    had, has = (_values(policy) for policy in (first, second))
    for key in dict.fromkeys((*had, *has)):
        before, after = had.get(key), has.get(key)
        if before == after:
            continue
        if isinstance(before, list | tuple) and isinstance(after, list | tuple):
            gone, come = (
                [one for one in these if one not in those] for these, those in ((before, after), (after, before))
            )
            words = [*(f"-{shown(one)}" for one in gone), *(f"+{shown(one)}" for one in come)]
            yield f"{key}: {' '.join(words) or 'in another order'}"
        else:
            yield f"{key}: {shown(before)} -> {shown(after)}"


def _values(policy: Policy) -> Mapping[str, Any]:
    table = msgspec.to_builtins(policy)
    actions = {f"actions.{spec.name}": str(policy.action(spec.name)) for spec in FINDINGS}
    return {**flat({key: value for key, value in table.items() if key not in ("name", "title", "actions")}), **actions}
