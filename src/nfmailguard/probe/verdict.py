"""What is on the path, how sure that is, what it breaks, and what its owner can do about it.

Promises: exit code 0 nothing found, 1 found, 3 could not tell; every claim has its evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nfmailguard.plain import printable
from nfmailguard.policy.load import load_profile, profile_names
from nfmailguard.policy.model import EhloMask, Policy
from nfmailguard.probe.features import MASKED, NOOP, OK, Features, contradictions, observe
from nfmailguard.probe.talk import NONSENSE, Answer, ProbeError, converse, data_first

__all__ = ["FAMILIES", "Verdict", "examine", "learned", "remedy"]

#: What a profile's box is called, and how its owner turns the inspection off; by the beginning of its name.
_INSPECT = ("policy-map global_policy", " class inspection_default")
FAMILIES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("pix70", "Cisco PIX or ASA ESMTP inspection", (*_INSPECT, "  no inspect esmtp")),
    ("asa", "Cisco PIX or ASA ESMTP inspection", (*_INSPECT, "  no inspect esmtp")),
    ("pix", "Cisco PIX Mailguard", ("no fixup protocol smtp 25",)),
    ("fwsm", "Cisco FWSM SMTP inspection", (*_INSPECT, "  no inspect smtp")),
    ("ios", "Cisco IOS firewall", ("no ip inspect name NAME smtp", "no ip inspect name NAME esmtp")),
    ("rfc821", "a filter of RFC 821's seven commands", ()),
)
UNKNOWN = "a Mailguard-like box of an unknown kind"
#: What mail software asks for, with the verb it needs.
_WANTED = {
    "TLS": ("STARTTLS", "STARTTLS"),
    "AUTH": ("AUTH", "AUTH"),
    "delivery notices (DSN)": ("DSN", "EHLO"),
    "SIZE": ("SIZE", "EHLO"),
    "8-bit mail": ("8BITMIME", "EHLO"),
    "CHUNKING": ("CHUNKING", "BDAT"),
    "PIPELINING": ("PIPELINING", "EHLO"),
}


@dataclass(frozen=True)
class Verdict:
    """``found`` None: could not tell. ``sure``: high, medium or low."""

    host: str
    port: int
    found: bool | None
    family: str
    candidates: tuple[str, ...]
    sure: str
    evidence: tuple[str, ...]
    breaks: tuple[str, ...]
    restore: str
    remedy: tuple[str, ...]
    dialogue: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def exit_code(self) -> int:
        return {True: 1, False: 0, None: 3}[self.found]


def family_of(name: str) -> tuple[str, tuple[str, ...]]:
    return next((label, lines) for prefix, label, lines in FAMILIES if name.startswith(prefix))


def _broken(policy: Policy) -> tuple[str, ...]:
    allowed = {verb.upper() for verb in policy.commands.allow}
    passed = {word.upper() for word in policy.replies.keywords}
    lost = []
    for label, (keyword, verb) in _WANTED.items():
        hidden = policy.replies.ehlo is not EhloMask.NONE and keyword not in passed
        if "EHLO" not in allowed or verb not in allowed or hidden:
            lost.append(label)
    return tuple(lost)


def _restore(seen: Features) -> str:
    if seen.masked_keywords:
        return "on this side of the box it would put back the EHLO keywords (restore.side = client, with keywords)"
    if seen.ehlo in (MASKED, NOOP, OK):
        return "not on this side; on the server's side of the box it would put back EHLO (restore.side = server)"
    return "there is nothing it could put back here"


def _sure(seen: Features, candidates: Sequence[str]) -> str:
    if not candidates:
        return "low"
    return "high" if len(seen.positive) >= 2 or seen.letter or seen.masked_keywords else "medium"


def examine(host: str, port: int = 25, timeout: float = 30.0) -> Verdict:
    """Talks to the host and judges. ProbeError when it cannot be reached or does not speak SMTP."""
    talk = converse(host, port, timeout)
    if not talk.greeting.code:
        raise ProbeError(f"{host} port {port}: that is no SMTP: {talk.greeting.lines[0][:80]!r}")
    said = list(talk.said)
    after: tuple[Answer, Answer] | None = None
    if talk.greeting.code == 220:
        refused, answer, more = data_first(host, port, timeout)
        after = refused, answer
        said += more
    seen = observe(talk, after)
    policies = {name: load_profile(name) for name in profile_names()}
    candidates = [name for name, policy in policies.items() if not contradictions(seen, policy)]
    dialogue = tuple((command, answer.lines) for command, answer in said)
    if talk.greeting.code != 220:
        said_no = (f"refused: {printable(' '.join(talk.greeting.lines))}",)
        return Verdict(host, port, None, "", (), "low", said_no, (), "", (), dialogue)
    if not seen.positive:
        ehlo_refused = seen.ehlo is None and "HELO" in talk.answers
        found = None if ehlo_refused else False
        why = ("EHLO is refused, and the server does not say what it understood",) if ehlo_refused else ()
        return Verdict(host, port, found, "", (), "low" if ehlo_refused else "high", why, (), "", (), dialogue)
    families = list(dict.fromkeys(family_of(name)[0] for name in candidates))
    family = families[0] if len(families) == 1 else f"one of: {'; '.join(families)}" if families else UNKNOWN
    breaks = tuple(dict.fromkeys(what for name in candidates for what in _broken(policies[name])))
    evidence = [*seen.positive]
    if seen.ehlo in (MASKED, NOOP, OK):
        evidence.append(f"EHLO is {seen.ehlo}")
    if seen.bypass:
        evidence.append("a refused DATA opens the filter (CVE-2000-1022)")
    commands = tuple(dict.fromkeys(line for name in candidates for line in family_of(name)[1]))
    return Verdict(
        host,
        port,
        True,
        family,
        tuple(candidates),
        _sure(seen, candidates),
        tuple(evidence),
        breaks,
        _restore(seen),
        commands,
        dialogue,
    )


def remedy(verdict: Verdict) -> str:
    """A message to the firewall's owner, ready to be sent; empty when there is nothing to ask for."""
    if not verdict.found:
        return ""
    shown: list[str] = []
    told: set[str] = set()
    for command, lines in verdict.dialogue:
        if command.split(" ")[0] in ("", "EHLO", NONSENSE) and command not in told:
            told.add(command)
            shown += [f"    C: {command}"] if command else []
            shown += [f"    S: {printable(line)}" for line in lines[:16]]
    text = [
        f"Mail to {verdict.host} port {verdict.port} goes through a firewall that changes SMTP: {verdict.family}.",
        "",
        *(f"* {line}" for line in verdict.evidence),
        "",
        *shown,
        "",
    ]
    if verdict.breaks:
        text += [f"Through it there is no {', no '.join(verdict.breaks)}.", ""]
    if verdict.remedy:
        text += ["On that firewall, this turns it off:", "", *(f"    {line}" for line in verdict.remedy)]
    if any(name.startswith("asa") for name in verdict.candidates):
        text += [
            "",
            "or, to keep the inspection and have TLS: `parameters` and `allow-tls` in a policy-map type inspect esmtp.",
        ]
    return "\n".join(text) + "\n"


def learned(host: str, port: int = 25, timeout: float = 30.0) -> str:
    """A ``[[restore.server]]`` of what the host says; ProbeError where that is masked already."""
    talk = converse(host, port, timeout)
    seen = observe(talk, None)
    ehlo = talk.answers.get("EHLO")
    if seen.positive or ehlo is None or seen.keywords is None:
        what = ", ".join(seen.positive) or "EHLO is refused"
        raise ProbeError(f"{host} port {port}: {what}; ask it from where nothing is masked")
    import json

    def written(text: str) -> str:
        return json.dumps(printable(text))

    keywords = ",\n".join(f"  {written(text)}" for text in ehlo.texts[1:])
    return (
        f"[[restore.server]]\naddresses = [{written(host)}]\nbanner = {written(talk.greeting.texts[-1])}\n"
        f"keywords = [\n{keywords},\n]\n"
    )


def as_json(verdict: Verdict) -> dict[str, Any]:
    """All of it, and the message."""
    import msgspec

    return {**msgspec.to_builtins(verdict), "exit_code": verdict.exit_code, "message": remedy(verdict)}
