"""A Policy as the TOML text of a profile.

Promises: ``load_profile`` of the text gives the same policy back, except for its name, which is the file's. Does not
know where the policy came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec

from nfmailguard.policy.model import FINDINGS, BugPolicy, Policy

__all__ = ["render"]

_COLUMN = 28  # Column in which comments begin, as in the profiles that come with the program.
_WIDTH = 118


def render(policy: Policy, comments: Mapping[str, str] | None = None, head: Sequence[str] = ()) -> str:
    """The TOML text. ``comments``: for a key like ``commands.allow``, the comment after it; ``head``: lines before
    everything.
    """
    notes = comments or {}
    lines = [f"# {_printable(line)}" for line in head]
    lines += _entry("title", policy.title, notes.get("title"))
    for section in ("banner", "commands", "replies", "address", "data", "bugs"):
        part = getattr(policy, section)
        if isinstance(part, BugPolicy) and part == BugPolicy():
            continue
        entries: list[str] = []
        for name, value in msgspec.structs.asdict(part).items():
            if value is not None:
                entries += _entry(name, value, notes.get(f"{section}.{name}"))
        if entries:
            lines += ["", f"[{section}]", *entries]
    if policy.actions:
        lines += ["", "[actions]"]
        for spec in FINDINGS:
            if spec.name in policy.actions:
                key = f"actions.{spec.name}"
                lines += _entry(_string(spec.name), policy.actions[spec.name], notes.get(key))
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, note: str | None) -> list[str]:
    comment = f"# {_printable(note)}" if note else ""
    if isinstance(value, tuple):
        items = [_string(item) for item in value]
        line = f"{key} = [{', '.join(items)}]"
        if len(line) + len(comment) > _WIDTH - 2:
            return [_commented(f"{key} = [", comment), *_wrapped(items), "]"]
    else:
        line = f"{key} = {_value(value)}"
    return [_commented(line, comment)]


def _commented(line: str, comment: str) -> str:
    return f"{line:{_COLUMN}}{'' if len(line) < _COLUMN else ' '}{comment}" if comment else line


def _wrapped(items: Sequence[str]) -> list[str]:
    lines = [" "]
    for item in items:
        if len(lines[-1]) + len(item) + 2 > _WIDTH:
            lines.append(" ")
        lines[-1] += f" {item},"
    return lines


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return _string(str(value))
    return str(value) if isinstance(value, int) else _string(value)


def _string(text: str) -> str:
    """A basic string (TOML 1.0): quotation mark, backslash and what is not printable are escaped."""

    def escaped(character: str) -> str:
        if character in '"\\':
            return f"\\{character}"
        number = ord(character)
        if 0xD800 <= number < 0xE000:
            return "?"  # Half of a UTF-16 surrogate pair, which TOML cannot express.
        return character if character.isprintable() else f"\\U{number:08x}" if number > 0xFFFF else f"\\u{number:04x}"

    return f'"{"".join(map(escaped, text))}"'


def _printable(text: str) -> str:
    """Text that may be in a comment: control characters are replaced."""
    return "".join(character if character.isprintable() else "?" for character in text)
