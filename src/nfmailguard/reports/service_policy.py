"""Counters in the form of an ASA's ``show service-policy inspect esmtp``.

Promises: every class of the default map that the policy has, with its count. The form is that of ASA releases 8.x or
9.x (S-GENIE); that ``count`` and ``packet`` count findings is nfmailguard's choice. Does not know where the counters
come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nfmailguard.events.cisco import CLASSES
from nfmailguard.policy.model import Action, BannerRule, EhloMask, Policy

__all__ = ["FORMS", "render"]

#: Text after a map's counters in `show service-policy`, by the ASA's release.
FORMS = {"8": "", "9": ", 5-min-pkt-rate 0 pkts/sec, v6-fail-close 0 sctp-drop-override 0"}
#: Profiles whose inspection map is built into the firewall, and the firewall's name for that map (S-ASA13).
_BUILT_IN = ("asa", "asa-tls", "asa84")
_DEFAULT_MAP = "_default_esmtp_map"

_LOGGED = {
    Action.DROP_CONNECTION: "drop-connection log",
    Action.RESET: "reset log",
    Action.MASK: "mask",
    Action.LOG: "log",
    Action.BLANK: "mask",
}


def _lines(policy: Policy, counters: Mapping[str, int], form: str) -> Iterator[str]:
    found = {name.removeprefix("finding."): count for name, count in counters.items() if name.startswith("finding.")}
    name = _DEFAULT_MAP if policy.name in _BUILT_IN else policy.name
    yield "Global policy:"
    yield "  Service-policy: global_policy"
    yield "    Class-map: inspection_default"
    yield (
        f"      Inspect: esmtp {name}, packet {counters.get('packets', 0)}, lock fail 0,"
        f" drop {counters.get('dropped', 0)}, reset-drop {counters.get('flows_reset', 0)}{FORMS[form]}"
    )
    if policy.banner.rule is not BannerRule.NONE:
        yield f"        mask-banner, count {found.get('banner.masked', 0)}"
    for finding, written in CLASSES:
        text = written(policy)
        if text.endswith(" None") or (finding == "reply.keyword_masked" and policy.replies.ehlo is EhloMask.NONE):
            continue
        action = _LOGGED.get(policy.action(finding))
        if action is not None:
            yield f"        match {text}"
            yield f"          {action}, packet {found.get(finding, 0)}"
    if policy.action("tls.started") is Action.LOG and "STARTTLS" in policy.commands.allow:
        yield f"        allow-tls, count {found.get('tls.started', 0)}, log {found.get('tls.started', 0)}"


def render(policy: Policy, counters: Mapping[str, int], form: str = "8") -> str:
    """The whole text, with its last line end; ``counters`` as ``stats`` events have them, ``form`` of FORMS."""
    return "".join(line + "\n" for line in _lines(policy, counters, form))
