"""Writes a Policy as the configuration text of the Cisco device that does the same.

Promises: ``cisco.read`` of the text gives the policy back, except for what ``Written.lost`` names: that is found by
reading the text, not predicted. Does not know profiles that no device has.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nfmailguard.policy.cisco.builder import SPECIAL_CHARACTERS, asa, default_title, profile
from nfmailguard.policy.cisco.match import KEYWORDS, OTHERS
from nfmailguard.policy.cisco.read import read
from nfmailguard.policy.limits import LIMITS
from nfmailguard.policy.model import (
    CONDITION_OF,
    FINDINGS,
    Action,
    BannerRule,
    EhloMask,
    PartialLines,
    Policy,
)

__all__ = ["Written", "write"]

_GLOBAL_INSPECTION = """\
class-map inspection_default
 match default-inspection-traffic
policy-map global_policy
 class inspection_default
  {inspect}
service-policy global_policy global
"""
#: Configuration text for firewalls that have no inspection maps, by profile.
_WITHOUT_MAPS = {
    "pix63": "PIX Version 6.3(5)\nfixup protocol smtp 25\n",
    "pix51": "PIX Version 5.3(4)\nfixup protocol smtp 25\n",
    "pix44": "PIX Version 4.4(8)\nfixup protocol smtp 25\n",
    "pix42": "PIX Version 4.2(2)\nfixup protocol smtp 25\n",
    "pix40": "! Put your server's addresses, outside and inside.\nPIX Version 4.1(7)\nmailhost 192.0.2.25 10.0.0.25\n",
    "fwsm2": "FWSM Version 2.3(4)\nfixup protocol smtp 25\n",
    "pix70": "PIX Version 7.0(8)\n" + _GLOBAL_INSPECTION.format(inspect="inspect esmtp"),
    "asa84": "ASA Version 8.4(1)\n" + _GLOBAL_INSPECTION.format(inspect="inspect esmtp"),
    "ios-smtp": "ip inspect name mail smtp\n",
    "ios-esmtp": "ip inspect name mail esmtp\n",
}
_NAMES = {keyword: name for name, keyword in reversed(KEYWORDS.items())}


class Written(msgspec.Struct, frozen=True):
    """Configuration text, and a line for each thing it cannot express."""

    text: str
    lost: tuple[str, ...]


def write(policy: Policy) -> Written:
    """The text for ``policy``: of a device without maps if one does exactly that, else an ASA's map."""
    for name in (policy.name, *_WITHOUT_MAPS):
        if name in _WITHOUT_MAPS and not _differences(policy, profile(name)):
            return Written(_WITHOUT_MAPS[name], ())
    text = "\n".join(_map(policy)) + "\n"
    (again,) = read(text).policies
    return Written(text, tuple(_differences(policy, again)))


def _name(policy: Policy) -> str:
    return "_".join(_plain(policy.name).split()) or "mail"


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _map(policy: Policy) -> list[str]:
    name, title = _name(policy), " ".join(_plain(policy.title).split())
    lines = [f"policy-map type inspect esmtp {name}"]
    if title and title != default_title(name):
        lines.append(f" description {title}")
    passing = _passing(policy)
    return [*lines, *_parameters(policy, passing), *_limits(policy), *_verbs(policy, passing), *_keywords(policy)]


def _passing(policy: Policy) -> tuple[str, ...]:
    """The verbs that pass without a match for them."""
    shown = policy.replies.ehlo is EhloMask.E1 and "STARTTLS" in policy.replies.keywords
    tls = shown or "STARTTLS" in policy.commands.allow
    return (*asa().commands.allow, *(("STARTTLS",) if tls else ()))


def _parameters(policy: Policy, passing: tuple[str, ...]) -> list[str]:
    special = policy.address.characters == SPECIAL_CHARACTERS
    illegal = policy.action("address.illegal_character")
    logs = policy.action("tls.started") is not Action.PASS
    return [
        " parameters",
        f"  {'' if policy.banner.rule is BannerRule.BASA else 'no '}mask-banner",
        "  no mail-relay",
        f"  special-character action {_cisco_action(illegal)}"
        if special and _cisco_action(illegal)
        else "  no special-character",
        f"  allow-tls{' action log' if logs else ''}" if "STARTTLS" in passing else "  no allow-tls",
    ]


def _cisco_action(action: Action) -> str:
    """The action as a map writes it; empty for an action that maps do not have."""
    if action is Action.LOG:
        return "log"
    return f"{action} log" if action in (Action.MASK, Action.DROP_CONNECTION, Action.RESET) else ""


def _rule(match: str, action: Action) -> list[str]:
    return [f" match {match}", f"  {_cisco_action(action)}"] if _cisco_action(action) else []


def _limits(policy: Policy) -> list[str]:
    lines = []
    for limit in LIMITS:
        most, action = limit.of(policy), policy.action(limit.finding)
        if limit.cisco and most is not None and action is not Action.MASK:
            lines += _rule(f"{limit.cisco} gt {most}", action)
    return lines


def _verbs(policy: Policy, passing: tuple[str, ...]) -> list[str]:
    action = policy.action("command.denied")
    allow = [verb.lower() for verb in passing if verb in policy.commands.allow or "*" in policy.commands.allow]
    denied = [verb.lower() for verb in passing if verb.lower() not in allow]
    if action is Action.LOG:
        return []  # Action `log` lets denied verbs pass; an inspection map has no line for that.
    if action is not Action.MASK:
        return _rule(f"not cmd verb {' '.join(allow)}" if allow else f"cmd verb {' '.join(denied)} unknown", action)
    if not denied:
        return []
    shorter = len(denied) <= len(allow) or not allow
    return _rule(f"cmd verb {' '.join(denied)}" if shorter else f"not cmd verb {' '.join(allow)}", action)


def _keywords(policy: Policy) -> list[str]:
    if policy.replies.ehlo is not EhloMask.E1:
        return []
    hidden = [_NAMES[keyword] for keyword in asa().replies.keywords if keyword not in policy.replies.keywords]
    return _rule(f"ehlo-reply-parameter {' '.join([_NAMES[OTHERS], *hidden])}", policy.action("reply.keyword_masked"))


def _differences(policy: Policy, other: Policy) -> list[str]:
    """The settings of ``policy`` that ``other`` lacks, one line each; titles and settings without
    effect are ignored.
    """
    mine, theirs = _facts(policy), _facts(other)
    return [
        f"{key} = {mine.get(key, 'none')}: not in the text, which says {theirs.get(key, 'none')}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]


def _facts(policy: Policy) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for section in ("banner", "commands", "replies", "address", "data", "bugs"):
        values: dict[str, Any] = msgspec.structs.asdict(getattr(policy, section))
        facts |= {f"{section}.{name}": value for name, value in values.items()}
    facts["commands.allow"] = " ".join(sorted({verb.upper() for verb in policy.commands.allow}))
    facts["replies.keywords"] = " ".join(sorted({keyword.upper() for keyword in policy.replies.keywords}))
    if policy.commands.partial_lines is PartialLines.PREFIX:
        # partial_lines is a setting of nfmailguard's own; no Cisco firewall has it.
        del facts["commands.partial_lines"]
    if policy.banner.rule is BannerRule.NONE:
        facts = {key: value for key, value in facts.items() if not key.startswith("banner.") or key == "banner.rule"}
    if policy.replies.ehlo is EhloMask.NONE:
        facts = {key: value for key, value in facts.items() if not key.startswith("replies.") or key == "replies.ehlo"}
    idle = _without_effect(policy)
    facts |= {
        f"actions.{spec.name}": str(policy.action(spec.name))
        for spec in FINDINGS[1:]
        if spec.name not in idle and spec.name not in CONDITION_OF
    }
    return facts


def _without_effect(policy: Policy) -> set[str]:
    """Findings this policy cannot cause."""
    tls = "STARTTLS" in policy.commands.allow or "*" in policy.commands.allow
    address = policy.address.characters or policy.address.brackets
    there = {
        **{limit.finding: limit.of(policy) for limit in LIMITS},
        "banner.masked": policy.banner.rule is not BannerRule.NONE,
        "reply.keyword_masked": policy.replies.ehlo is not EhloMask.NONE,
        "address.illegal_character": address,
        "tls.started": tls,
        "tls.not_a_handshake": tls,
    }
    return {name for name, value in there.items() if not value}
