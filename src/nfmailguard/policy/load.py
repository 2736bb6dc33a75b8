"""Profiles and their overrides: TOML in, an immutable Policy out.

Promises: what cannot be used raises ConfigError, one line that names the profile,
the key and what is legal. Does not know configurations or flows.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.plain import printable
from nfmailguard.policy.limits import LIMITS, MOST
from nfmailguard.policy.model import CONDITION_OF, FINDING_INDEX, FINDINGS, Action, Policy
from nfmailguard.reading import text_of, toml

__all__ = ["built", "load_profile", "meant", "override", "parse_value", "profile_names", "profile_text"]

_MOST_PROBLEMS = 50  # Most problems that are listed in the error about a profile.
_TRUE = frozenset({"yes", "true", "on", "1"})
#: How a value of each type is written in TOML, by msgspec's name for the type; used in error messages.
_WRITTEN = {
    "bool": "; true or false, without quotes",
    "int": "; a whole number, without quotes",
    "float": "; a number, without quotes",
    "str": '; text in quotes: "..."',
    "object": "; a table of its own: [name], and its keys below",
}
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
    problems: list[str] = []
    policy: Policy = built(table, Policy, "", problems)
    problems += (*_problems_of_actions(policy), *_problems_of_words(policy), *_problems_of_limits(policy))
    if problems:
        raise ConfigError(*(f"{where}: {problem}" for problem in problems[:_MOST_PROBLEMS]))
    return policy


#: Cached, because msgspec evaluates a class's annotations at each call, once for every table of a large file.
_fields = cache(msgspec.structs.fields)


def built(value: Any, kind: Any, where: str, problems: list[str]) -> Any:
    """Converts ``value`` of TOML to type ``kind``. Errors are added to ``problems``, one line each, and left out of the
    result.
    """
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        fields = {field.encode_name: field for field in _fields(kind)}
        given: dict[str, Any] = {}
        for key, part in value.items():
            at = f"{where} {key}" if where.endswith(":") else f"{where}.{key}".lstrip(".")
            if key not in fields:
                problems.append(f"{at}: no such key{meant(key, fields)}")
                continue
            before = len(problems)
            made = built(part, fields[key].type, at, problems)
            if len(problems) == before or made is not None:
                given[fields[key].name] = made
        missing = [field.name for field in fields.values() if field.required and field.name not in given]
        if missing:
            problems.append(f"{where or 'profile'}: no {', '.join(missing)}")
        return kind(**given, **dict.fromkeys(missing, ""))
    inner = (typing.get_args(kind) or (None,))[0]
    if typing.get_origin(kind) is tuple and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        parts = value if isinstance(value, list | tuple) else [value]
        made = (built(part, inner, f"{where} {number}:", problems) for number, part in enumerate(parts, start=1))
        return tuple(one for one in made if one is not None)
    try:
        return msgspec.convert(lists(value, kind), kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        of = next(
            (part for part in (kind, *typing.get_args(kind)) if isinstance(part, type) and issubclass(part, Enum)), None
        )
        if of is not None and "enum value" in message:
            message = f"{message.rpartition('enum value ')[2]}; one of {', '.join(str(member.value) for member in of)}"
        wanted = re.match(r"Expected `(\w+)", message)
        hint = _WRITTEN.get(wanted[1], "") if wanted else ""
        problems.append(f"{where.rstrip(':')}{place.rstrip('`')}: {message[0].lower()}{message[1:]}{hint}")
        return None


def meant(name: str, known: Mapping[str, Any]) -> str:
    """A suggestion which key was meant by an unknown one."""
    close = difflib.get_close_matches(name[:80], known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; one of {', '.join(known)}"


def lists(value: Any, kind: Any) -> Any:
    """Allows a single value where a list is expected: it becomes a list of one."""
    if typing.get_origin(kind) is tuple:
        values = value if isinstance(value, list | tuple) else [value]
        return [lists(item, typing.get_args(kind)[0]) for item in values]
    return value


def _problems_of_actions(policy: Policy) -> Iterator[str]:
    """Problems that the types cannot express, here and in the next two functions."""
    for name, action in policy.actions.items():
        if name not in FINDING_INDEX or name == "none":
            close = difflib.get_close_matches(name[:80], FINDING_INDEX, n=1)
            yield f"actions.{name}: no such finding; " + (
                f"did you mean {close[0]!r}?" if close else "`nfmailguard profile findings` lists them"
            )
        elif name in CONDITION_OF:
            yield f"actions.{name}: decided by [on] {CONDITION_OF[name].name}"
        elif action not in (legal := FINDINGS[FINDING_INDEX[name]].actions):
            yield f"actions.{name}: {action} is not possible here; one of {', '.join(legal)}"


def _problems_of_words(policy: Policy) -> Iterator[str]:
    if policy.commands.letter not in ("X", "x"):
        yield f"commands.letter: {policy.commands.letter!r}; X or x"
    for key, words in (("commands.allow", policy.commands.allow), ("replies.keywords", policy.replies.keywords)):
        for word in words:
            if word != "*" and not (word.isascii() and word.isprintable() and " " not in word and 0 < len(word) <= 24):
                yield f"{key}: {word!r} is no word of 1 to 24 printable ASCII characters"
    texts = (("address.characters", policy.address.characters), ("replies.keyword_end", policy.replies.keyword_end))
    for key, characters in texts:
        if not all(ord(character) < 128 and character not in "\r\n" for character in characters):
            yield f"{key}: ASCII characters other than CR and LF only"


def _problems_of_limits(policy: Policy) -> Iterator[str]:
    numbers = {limit.setting: limit.of(policy) for limit in LIMITS}
    for key, value in (numbers | {"commands.secret_length": policy.commands.secret_length}).items():
        if value is not None and not 0 < value <= MOST:
            yield f"{key}: {value}; a positive number, or none"


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
        return tuple(parse_value(part, inner, key) for part in _parts(text, key))
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


def _parts(text: str, key: str) -> list[str]:
    """The parts of a list: separated by commas, or as in a file, ``[25, "587"]``."""
    if not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    found = toml(f"list = {text}", key).get("list")
    if not isinstance(found, list) or any(isinstance(part, list | dict) for part in found):
        raise ConfigError(f"{key}: {text!r}; a list has no lists in it")
    return [str(part) for part in found]


def override(policy: Policy, settings: Mapping[str, str]) -> Policy:
    """``policy`` with keys like ``banner.separator`` set from text; ConfigError names the key."""
    table = msgspec.to_builtins(policy)
    problems: list[str] = []
    for key, text in settings.items():
        try:
            _set(table, key, text)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(*problems)
    return _policy(table, f"profile {policy.name} as set")


def _set(table: dict[str, Any], key: str, text: str) -> None:
    section, _, rest = key.partition(".")
    fields = typing.get_type_hints(Policy)
    if section == "actions" and rest:
        if len(rest) > 2 and rest[0] == rest[-1] and rest[0] in "\"'":
            rest = rest[1:-1]  # The finding's name may be in quotes, as it is written in a profile file.
        table["actions"][rest] = parse_value(text, Action, key)
        return
    kind = fields.get(section)
    inner = typing.get_type_hints(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else {}
    if rest not in inner:
        known = [f"{section}.{name}" for name in inner] or [name for name in fields if name not in ("name", "title")]
        raise ConfigError(f"--set {key}: no such key{meant(key, dict.fromkeys(known))}")
    table[section][rest] = parse_value(text, inner[rest], key)
