"""Compares two profiles: every setting that differs, and what that means for a dialogue.

Promises: profiles without a difference here decide alike. Does not know captures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from nfmailguard.policy.findings import FINDINGS
from nfmailguard.policy.limits import LIMITS, PolicyLimit
from nfmailguard.policy.model import CONDITION_OF, BannerRule, EhloMask, Policy
from nfmailguard.smtp.masks import masked_banner, masked_command

__all__ = ["Difference", "differences"]

_GREETING = b"220-mail2.example ESMTP 20 of 2024"
_DENIED = b"XFOO argument"
_KEYWORD = b"250-AUTH=LOGIN"
_PARTS = ("banner", "commands", "replies", "address", "data", "bugs")


class Difference(msgspec.Struct, frozen=True):
    """One setting. ``left`` and ``right``: its values; ``meaning``: its effect on a dialogue, under each."""

    setting: str
    left: str
    right: str
    meaning: str


def _greeting(policy: Policy) -> str:
    if policy.banner.rule is BannerRule.NONE:
        return "a greeting passes as it is"
    pairs = zip(_GREETING, b"\0" + _GREETING, strict=False)
    masked = bytes(masked_banner(policy.banner, column, *pair) for column, pair in enumerate(pairs))
    return f"`{_GREETING.decode()}` becomes `{masked.decode()}`"


def _denied(policy: Policy) -> str:
    if "*" in policy.commands.allow:
        return "every verb passes"
    masked = masked_command(policy.commands, _DENIED.split()[0], len(_DENIED))
    answered = ", and its refusal `250 OK`" if policy.commands.unknown == "ok" else ""
    return f"`{_DENIED.decode()}` becomes `{(masked + _DENIED[len(masked) :]).decode()}`{answered}"


def _keyword(policy: Policy) -> str:
    rules = policy.replies
    if rules.ehlo is EhloMask.NONE:
        return "keywords pass as they are"
    word = "AUTH" if "=" in rules.keyword_end else "AUTH=LOGIN"
    return f"`{_KEYWORD.decode()}` is {'shown' if word in rules.keywords else 'hidden'}"


def _limit(limit: PolicyLimit) -> Callable[[Policy], str]:
    def say(policy: Policy) -> str:
        most = limit.of(policy)
        if most is None:
            return f"{limit.counted} are not limited"
        return f"{limit.counted} over {most:,}: {policy.action(limit.finding)}"

    return say


#: For each setting, a function that describes in a phrase what a policy does by it. Settings that are lists are
#: described item by item, by _ITEMS.
_MEANS: Mapping[str, Callable[[Policy], str]] = {
    **{limit.setting: _limit(limit) for limit in LIMITS},
    "banner.rule": _greeting,
    "banner.separator": _greeting,
    "banner.multiline": _greeting,
    "commands.unknown": _denied,
    "commands.letter": _denied,
    "commands.secret_length": lambda one: f"AUTH's line has at most {one.commands.secret_length:,} bytes",
    "commands.partial_lines": lambda one: (
        "a verb cut over packets is put together"
        if one.commands.partial_lines == "prefix"
        else "a verb cut over packets is masked"
    ),
    "replies.ehlo": _keyword,
    "replies.keyword_end": _keyword,
    "address.brackets": lambda one: (
        "an unpaired bracket becomes a space" if one.address.brackets else "brackets pass as they are"
    ),
    "data.seven_bits": lambda one: (
        "the client's bytes lose their eighth bit" if one.data.seven_bits else "bytes keep their eighth bit"
    ),
    "bugs.dot_crlf": lambda one: _bug("an end of data cut between packets is lost", one.bugs.dot_crlf),
    "bugs.data_bypass": lambda one: _bug("after any DATA all passes to the dot", one.bugs.data_bypass),
    "bugs.noop_body": lambda one: _bug("after a NOOP a message is masked as commands", one.bugs.noop_body),
}
#: Settings that are lists: the verb phrase for an item that one policy has, and what happens to it under the other
#: policy.
_ITEMS = {
    "commands.allow": ("pass", "masked"),
    "replies.keywords": ("are shown to the client", "hidden"),
    "address.characters": ("in an address become a space", "let through"),
}


def _bug(what: str, on: bool) -> str:
    return what if on else f"not: {what}"


def differences(left: Policy, right: Policy) -> Iterator[Difference]:
    """Setting by setting, in the order of a profile; then what is done about findings."""
    for part in _PARTS:
        for key, one in msgspec.structs.asdict(getattr(left, part)).items():
            other = getattr(getattr(right, part), key)
            setting = f"{part}.{key}"
            if setting in _ITEMS:
                yield from _items(setting, one, other, left, right)
            elif one != other:
                says = [_MEANS[setting](policy) for policy in (left, right)]
                meaning = (
                    f"{left.name}: {says[0]}; {right.name}: {says[1]}" if says[0] != says[1] else f"nothing: {says[0]}"
                )
                yield Difference(setting, _value(one), _value(other), meaning)
    for spec in FINDINGS[1:]:
        actions = left.action(spec.name), right.action(spec.name)
        if actions[0] is not actions[1] and spec.name not in CONDITION_OF:
            yield Difference(f"actions.{spec.name}", str(actions[0]), str(actions[1]), spec.meaning)


def _items(setting: str, one: Any, other: Any, left: Policy, right: Policy) -> Iterator[Difference]:
    with_it, without = _ITEMS[setting]
    for policy, rest, mine, theirs in ((left, right, one, other), (right, left, other, one)):
        only = [item for item in mine if item not in theirs]
        if not only:
            continue
        every = "*" in only
        what = "every verb" if every else " ".join(only)
        missing = "masked but for those in the list" if every else without
        has = f"has {' '.join(only)}"
        values = (has, "-") if policy is left else ("-", has)
        yield Difference(
            setting, values[0], values[1], f"{what} {with_it} under {policy.name}, and {missing} under {rest.name}"
        )


def _value(value: object) -> str:
    if value is None:
        return "no limit"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value) if isinstance(value, str) and not value.isalnum() and "_" not in value else str(value)
