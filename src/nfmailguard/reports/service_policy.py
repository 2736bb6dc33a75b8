"""Counters in the form of a box's ``show service-policy inspect esmtp``.

Promises: every class of the default map that the policy has, with what was counted. The
form is the box's; that ``count`` and ``packet`` count findings here is ours. Does not know
where the counters come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nfmailguard.events.cisco import CLASSES
from nfmailguard.policy.model import Action, BannerRule, EhloMask, Policy

__all__ = ["render"]

_LOGGED = {
    Action.DROP_CONNECTION: "drop-connection log",
    Action.RESET: "reset log",
    Action.MASK: "mask",
    Action.LOG: "log",
    Action.BLANK: "mask",
}


def _lines(policy: Policy, counters: Mapping[str, int]) -> Iterator[str]:
    found = {name.removeprefix("finding."): count for name, count in counters.items() if name.startswith("finding.")}
    yield "Global policy:"
    yield "  Service-policy: global_policy"
    yield "    Class-map: inspection_default"
    yield (
        f"      Inspect: esmtp {policy.name}, packet {counters.get('packets', 0)}, lock fail 0,"
        f" drop {counters.get('dropped', 0)}, reset-drop {counters.get('flows_reset', 0)}"
    )
    if policy.banner.rule is not BannerRule.NONE:
        yield f"        mask-banner, count {found.get('banner.masked', 0)}"
    for name, written in CLASSES:
        text = written(policy)
        if text.endswith(" None") or (name == "reply.keyword_masked" and policy.replies.ehlo is EhloMask.NONE):
            continue
        action = _LOGGED.get(policy.action(name))
        if action is not None:
            yield f"        match {text}"
            yield f"          {action}, packet {found.get(name, 0)}"
    if policy.action("tls.started") is Action.LOG and "STARTTLS" in policy.commands.allow:
        yield f"        allow-tls, count {found.get('tls.started', 0)}, log {found.get('tls.started', 0)}"


def render(policy: Policy, counters: Mapping[str, int]) -> str:
    """The whole text, with its last line end; ``counters`` as ``stats`` events have them."""
    return "".join(line + "\n" for line in _lines(policy, counters))
