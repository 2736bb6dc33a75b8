"""Profiles and their overrides: TOML in, an immutable Policy out.

Promises: what cannot be used raises ConfigError, one line that names the profile,
the key and what is legal. Does not know configurations or flows.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.plain import printable
from nfmailguard.policy.model import CONDITION_OF, FINDING_INDEX, FINDINGS, Action, Policy
from nfmailguard.reading import text_of, toml

__all__ = ["load_profile", "override", "parse_value", "profile_names", "profile_text"]

_TRUE = frozenset({"yes", "true", "on", "1"})
_FALSE = frozenset({"no", "false", "off", "0"})


def _directory() -> Any:
    return resources.files("nfmailguard.policy").joinpath("profiles")


def profile_names() -> list[str]:
    """The profiles that come with the program, in alphabetical order."""
    return sorted(entry.name.removesuffix(".toml") for entry in _directory().iterdir() if entry.name.endswith(".toml"))


def profile_text(name: str) -> str:
    """The TOML text of a profile by name, or by the path of a file; ConfigError when there is none."""
    if "/" in name or name.endswith(".toml"):
        return text_of(name, f"profile {name}")
    if name not in profile_names():
        raise ConfigError(
            f"profile {name!r}: unknown; one of {', '.join(profile_names())}, or the path of a .toml file"
        )
    text: str = _directory().joinpath(f"{name}.toml").read_text()
    return text


def load_profile(name: str) -> Policy:
    """The policy of a profile; ConfigError names the profile and the key that is wrong."""
    table = toml(profile_text(name), f"profile {name}")
    return _policy({**table, "name": printable(Path(name).stem if "/" in name else name)}, f"profile {name}")


def _policy(table: dict[str, Any], where: str) -> Policy:
    try:
        policy = msgspec.convert(table, Policy)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error
    problem = _problem(policy)
    if problem:
        raise ConfigError(f"{where}: {problem}")
    return policy


def _problem(policy: Policy) -> str | None:
    """What the types cannot say, or None."""
    return _problem_of_actions(policy) or _problem_of_words(policy) or _problem_of_limits(policy)


def _problem_of_actions(policy: Policy) -> str | None:
    for name, action in policy.actions.items():
        if name not in FINDING_INDEX or name == "none":
            return f"actions.{name}: no such finding; they are {', '.join(spec.name for spec in FINDINGS[1:])}"
        if name in CONDITION_OF:
            return f"actions.{name}: decided by [on] {CONDITION_OF[name].name}"
        legal = FINDINGS[FINDING_INDEX[name]].actions
        if action not in legal:
            return f"actions.{name}: {action} is not possible here; one of {', '.join(legal)}"
    return None


def _problem_of_words(policy: Policy) -> str | None:
    if policy.commands.letter not in ("X", "x"):
        return f"commands.letter: {policy.commands.letter!r}; X or x"
    for key, words in (("commands.allow", policy.commands.allow), ("replies.keywords", policy.replies.keywords)):
        for word in words:
            if word != "*" and not (word.isascii() and word.isprintable() and " " not in word and 0 < len(word) <= 24):
                return f"{key}: {word!r} is no word of 1 to 24 printable ASCII characters"
    texts = (("address.characters", policy.address.characters), ("replies.keyword_end", policy.replies.keyword_end))
    for key, characters in texts:
        if not all(ord(character) < 128 and character not in "\r\n" for character in characters):
            return f"{key}: ASCII characters other than CR and LF only"
    return None


def _problem_of_limits(policy: Policy) -> str | None:
    limits = {
        "commands.line_length": policy.commands.line_length,
        "commands.secret_length": policy.commands.secret_length,
        "address.sender_length": policy.address.sender_length,
        "address.recipients": policy.address.recipients,
        "data.header_line_length": policy.data.header_line_length,
        "data.body_line_length": policy.data.body_line_length,
        "data.header_length": policy.data.header_length,
        "data.body_length": policy.data.body_length,
        "data.to_fields": policy.data.to_fields,
        "address.invalid_recipients": policy.address.invalid_recipients,
        "data.filename_length": policy.data.filename_length,
    }
    for key, value in limits.items():
        if value is not None and not 0 < value < 2**31:
            return f"{key}: {value}; a positive number, or none"
    return None


def parse_value(text: str, kind: Any, key: str) -> Any:
    """``text`` of a ``--set`` as a value of the field's type; ConfigError says what is legal.

    Yes, no, on, off, true and false are booleans; ``none`` empties what may be
    empty; lists are separated by commas.
    """
    options = (
        typing.get_args(kind) if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union else ()
    )
    if type(None) in options:
        if text.lower() == "none":
            return None
        kind = next(option for option in options if option is not type(None))
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigError(f"{key}: {text!r}; yes or no")
        return text.lower() in _TRUE
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(parse_value(part.strip(), inner, key) for part in text.split(",") if part.strip())
    if kind in (int, float):
        try:
            return kind(text.replace("_", ""))
        except ValueError:
            raise ConfigError(f"{key}: {text!r} is no number") from None
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(text)
        except ValueError:
            raise ConfigError(f"{key}: {text!r}; one of {', '.join(str(member.value) for member in kind)}") from None
    return text


def override(policy: Policy, settings: Mapping[str, str]) -> Policy:
    """``policy`` with keys like ``banner.separator`` set from text; ConfigError names the key."""
    table = msgspec.to_builtins(policy)
    for key, text in settings.items():
        section, _, rest = key.partition(".")
        fields = typing.get_type_hints(Policy)
        if section == "actions" and rest:
            table["actions"][rest] = parse_value(text, Action, key)
            continue
        kind = fields.get(section)
        inner = typing.get_type_hints(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else {}
        if rest not in inner:
            known = [f"{section}.{name}" for name in inner] or [
                name for name in fields if name not in ("name", "title")
            ]
            raise ConfigError(f"--set {key}: no such key; one of {', '.join(known)}")
        table[section][rest] = parse_value(text, inner[rest], key)
    return _policy(table, f"profile {policy.name} as set")
