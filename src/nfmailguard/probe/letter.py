"""The message to the owner of a firewall: what was seen, when and from where, and the lines for the product.

Promises: there is a message only if it is certain that there is a firewall. Plain text, in which everything a server
wrote is escaped. Does not send it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfmailguard.plain import printable
from nfmailguard.probe.families import Family
from nfmailguard.probe.talk import NONSENSE

if TYPE_CHECKING:
    from nfmailguard.probe.verdict import Verdict

__all__ = ["letter"]

_SHOWN = 16  # Most lines of a reply that are quoted.
_ASKED = ("", "EHLO", NONSENSE, "STARTTLS")


def _dialogue(verdict: Verdict) -> list[str]:
    shown: list[str] = []
    told: set[str] = set()
    for command, lines in verdict.dialogue:
        if command.split(" ")[0] in _ASKED and command not in told:
            told.add(command)
            shown += [f"    C: {command}"] if command else []
            shown += [f"    S: {printable(line)}" for line in lines[:_SHOWN]]
    return shown


def _remedy(family: Family, several: bool) -> list[str]:
    where = f"On {family.product}" if several else "On that firewall"
    text = []
    if family.instead:
        text += [
            f"{where}, this keeps the inspection and lets TLS through (7.2(3), 8.0(3) and later):",
            "",
            *(f"    {line}" for line in family.instead),
            "",
        ]
    head = f"{where}, this turns the inspection off:"
    if family.instead:
        head = f"Or, on {family.product}, this turns the inspection off:" if several else "Or this turns it off:"
    text += [head, "", *(f"    {line}" for line in family.off), ""]
    if family.document:
        text += [f"({family.document})", ""]
    return text


def letter(verdict: Verdict) -> str:
    """The message, ready to be sent; empty if nothing is certain enough."""
    if not verdict.found or verdict.sure == "low":
        return ""
    families = [family for family in verdict.families if family.off]
    text = [
        f"Subject: A firewall changes SMTP to {verdict.host} (port {verdict.port})",
        "",
        "Hello,",
        "",
        f"mail to {verdict.host} [{verdict.address}] port {verdict.port} goes through a firewall that changes SMTP:",
        f"{verdict.family}. It was seen at {verdict.time} from {verdict.source or 'here'}.",
        "",
        *(f"* {line}" for line in verdict.evidence),
        "",
        *_dialogue(verdict),
        "",
    ]
    if verdict.breaks:
        text += [f"Through it there is no {', no '.join(verdict.breaks)}.", ""]
    if "TLS" in verdict.breaks:
        text += [
            "Mail is therefore sent unencrypted, for the firewall hides that the server can do TLS (STARTTLS);",
            "senders that insist on TLS cannot deliver at all.",
            "",
        ]
    for family in families:
        text += _remedy(family, len(families) > 1)
    text += ["The mail servers themselves check what they are sent; nothing is lost by it.", "", "Thank you."]
    return "\n".join(text) + "\n"
