"""What is on the path, how certain that is, what it breaks, and what its owner can do about it.

Promises: exit code 0 nothing found, 1 found, 3 could not be determined; every claim has its evidence, and is no more
certain than the evidence: what a server may do by itself counts against no firewall, and a firewall that deletes lines
leaves no trace.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from nfmailguard.plain import printable
from nfmailguard.policy.load import load_profile, profile_names
from nfmailguard.policy.model import EhloMask, Policy
from nfmailguard.probe.compare import PORTS, Glance, Vantage, glance
from nfmailguard.probe.families import OWN_MAP, UNKNOWN, Family, families_of
from nfmailguard.probe.features import MASKED, NOOP, OK, Features, contradictions, observe
from nfmailguard.probe.letter import letter
from nfmailguard.probe.talk import Answer, ProbeError, Talk, addresses_of, converse, data_first

__all__ = ["Verdict", "as_json", "examine", "examine_all", "judge"]

#: Services that mail software asks for: the EHLO keyword, and the verb that must pass for it.
_WANTED = {
    "TLS": ("STARTTLS", "STARTTLS"),
    "AUTH": ("AUTH", "AUTH"),
    "delivery notices (DSN)": ("DSN", "EHLO"),
    "SIZE": ("SIZE", "EHLO"),
    "8-bit mail": ("8BITMIME", "EHLO"),
    "CHUNKING": ("CHUNKING", "BDAT"),
    "PIPELINING": ("PIPELINING", "EHLO"),
}
#: Features that only a firewall produces; replies to single verbs also differ between servers.
_STRONG = frozenset({"banner", "letter", "keywords", "ehlo", "bypass"})
_MOST_ADDRESSES = 8
_WHOSE = (
    "It is between this machine and the server. To find out whose: ask again from the server's own network (nothing"
    " there: the box is between), and ask another server from here (the same there: it is yours)."
)


@dataclass(frozen=True)
class Verdict:
    """The verdict. ``found`` None: could not be determined. ``sure``: high, medium or low.

    ``tls``: "offered", "stripped" on the way, "absent" as far as this path shows, or None. ``source``: our address.
    ``conflicts``: features of the candidates that the server did not show. ``others``: verdicts for the host's other
    addresses.
    """

    host: str
    port: int
    found: bool | None
    family: str = ""
    candidates: tuple[str, ...] = ()
    sure: str = "low"
    evidence: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    restore: str = ""
    remedy: tuple[str, ...] = ()
    dialogue: tuple[tuple[str, tuple[str, ...]], ...] = ()
    address: str = ""
    source: str = ""
    time: str = ""
    banner: str | None = None
    keywords: tuple[str, ...] = ()
    tls: str | None = None
    conflicts: tuple[str, ...] = ()
    where: str = ""
    ports: tuple[Glance, ...] = ()
    vantages: tuple[Vantage, ...] = ()
    others: tuple[Verdict, ...] = ()
    families: tuple[Family, ...] = field(default=(), repr=False)

    @property
    def exit_code(self) -> int:
        answers = [self.found, *(other.found for other in self.others)]
        return 1 if True in answers else 3 if self.found is None else 0


def _broken(policy: Policy) -> list[str]:
    allowed = {verb.upper() for verb in policy.commands.allow}
    passed = {word.upper() for word in policy.replies.keywords}
    lost = []
    for label, (keyword, verb) in _WANTED.items():
        hidden = policy.replies.ehlo is not EhloMask.NONE and keyword not in passed
        if "EHLO" not in allowed or verb not in allowed or hidden:
            lost.append(label)
    return lost


def _restore(seen: Features) -> str:
    if seen.masked_keywords:
        return "run here (restore.side = client), nfmailguard can put back the EHLO keywords"
    if seen.ehlo in (MASKED, NOOP, OK):
        return "not from here; run at the server (restore.side = server), nfmailguard can put back EHLO"
    return "there is nothing that nfmailguard could put back here"


def _passes(policy: Policy, verb: str) -> bool:
    return bool({verb, "*"} & {name.upper() for name in policy.commands.allow})


def _candidates(seen: Features, policies: Mapping[str, Policy]) -> tuple[list[str], tuple[str, ...]]:
    """The profiles that fit best, and which of their features the server did not show."""
    wrong = {name: set(contradictions(seen, policy)) for name, policy in policies.items()}
    fitting = [name for name, what in wrong.items() if not what]
    if seen.masked_keywords and seen.banner in ("clear", "decorated") and seen.letter != "x":
        # IOS leaves the greeting alone, and so does an ASA with `no mask-banner`.
        fitting += [name for name, what in wrong.items() if what == {"banner"}]
    if "EHLO" in seen.refused and seen.ehlo is None:
        # Mail servers have known EHLO for thirty years: a refusal that does not quote the command comes more likely
        # from a firewall's masking.
        fitting = [name for name in fitting if not _passes(policies[name], "EHLO")] or fitting
    if fitting:
        return fitting, ()
    # The server's replies to single verbs fit no profile, so only the features that a firewall alone produces decide.
    possible = {name: what for name, what in wrong.items() if not what & _STRONG}
    fewest = min((len(what) for what in possible.values()), default=0)
    best = [name for name, what in possible.items() if len(what) == fewest]
    return best, tuple(sorted({word for name in best for word in possible[name]}))


def _sure(seen: Features, candidates: Sequence[str], conflicts: Sequence[str], families: int) -> str:
    if not candidates:
        return "low"
    strong = len(seen.positive) >= 2 or bool(seen.letter) or bool(seen.masked_keywords)
    unclear = bool(seen.masked_keywords) and seen.banner in ("clear", "decorated") and families > 1
    return "high" if strong and not conflicts and not unclear else "medium"


def judge(seen: Features, policies: Mapping[str, Policy], start: Verdict) -> Verdict:
    """The verdict that follows from the features, added to what ``start`` says of the connections."""
    if not seen.positive:
        return _nothing(seen, start)
    if seen.positive == ["the greeting is masked"] and seen.keywords is not None:
        return _greeting_alone(seen, policies, start)
    candidates, conflicts = _candidates(seen, policies)
    families = families_of(candidates)
    labels = [family.label for family in families] or [UNKNOWN.label]
    evidence = [*seen.positive]
    if seen.ehlo in (MASKED, NOOP, OK):
        evidence.append(f"EHLO is {seen.ehlo}")
    if seen.bypass:
        evidence.append("a refused DATA opens the filter (CVE-2000-1022)")
    if seen.tls == "stripped":
        evidence.append("STARTTLS was stripped on the way")
    sets = [set(_broken(policies[name])) for name in candidates]
    lost = [what for what in _WANTED if sets and all(what in one for one in sets)]
    if seen.tls == "offered":
        lost = [what for what in lost if what != "TLS"]
    return replace(
        start,
        found=True,
        family=labels[0] if len(labels) == 1 else f"one of: {'; '.join(labels)}",
        candidates=tuple(candidates),
        sure=_sure(seen, candidates, conflicts, len(families)),
        evidence=tuple(evidence),
        breaks=tuple(lost),
        restore=_restore(seen),
        remedy=families[0].off if len(families) == 1 else (),
        conflicts=conflicts,
        where=_WHOSE,
        families=tuple(families),
    )


def _nothing(seen: Features, start: Verdict) -> Verdict:
    if seen.ehlo is None and seen.keywords is None:
        why = "EHLO is refused, and the server does not say what it understood"
        return replace(start, found=None, sure="low", evidence=(why,))
    if seen.tls == "absent":
        why = "STARTTLS is not offered: the server has none, or a box deletes the line and leaves no trace"
        return replace(start, found=False, sure="medium", evidence=(why,))
    if seen.tls == "stripped":
        why = "STARTTLS is not offered, and works when it is asked for: a box on the way deletes the line"
        return replace(
            start, found=True, family=UNKNOWN.label, sure="medium", evidence=(why,), breaks=("TLS",), where=_WHOSE
        )
    return replace(start, found=False, sure="high" if seen.tls == "offered" else "medium")


def _greeting_alone(seen: Features, policies: Mapping[str, Policy], start: Verdict) -> Verdict:
    """Only the greeting is masked: some administrators mask their own greeting, and some ASA maps mask nothing else."""
    evidence = ("the greeting is masked, and nothing else is",)
    known = {word.upper() for policy in policies.values() for word in policy.replies.keywords}
    passing = ", ".join(sorted((seen.keywords or frozenset()) - known)[:6])
    if passing:
        why = f"keywords pass that every such box masks ({passing}): the server may have written the greeting itself"
        return replace(start, found=None, sure="low", evidence=(*evidence, why))
    candidates, conflicts = _candidates(seen, policies)
    return replace(
        start, found=True, family=OWN_MAP.label, candidates=tuple(candidates), sure="low", evidence=evidence,
        restore=_restore(seen), remedy=OWN_MAP.off, conflicts=conflicts, where=_WHOSE, families=(OWN_MAP,),
    )  # fmt: skip


def _beside_ports(verdict: Verdict, seen: Features, ports: Sequence[Glance]) -> Verdict:
    """Adds what the host's other ports show: where TLS comes first, nothing on the way can change the dialogue."""
    verdict = replace(verdict, ports=tuple(ports))
    masked = seen.banner not in (None, "clear", "decorated")
    clear = [one for one in ports if not one.fault and one.banner in ("clear", "decorated") and not one.masked_keywords]
    starred = [
        one for one in ports if not one.fault and PORTS.get(one.port) and one.banner not in ("clear", "decorated")
    ]
    alone = masked and not seen.masked_keywords and not seen.letter
    if starred and alone and verdict.sure == "low":
        why = (
            f"port {starred[0].port}, where nobody on the way can write, has the same stars: they are the server's own"
        )
        return replace(
            verdict, found=False, family="", candidates=(), sure="medium", evidence=(why,), remedy=(), families=(),
            restore="", where="",
        )  # fmt: skip
    offered = [one for one in ports if "STARTTLS" in one.keywords or (PORTS.get(one.port) and not one.fault)]
    notes = list(verdict.evidence)
    if clear and masked:
        notes.append(f"the greeting of port {clear[0].port} is clear")
    if seen.tls == "absent" and offered:
        notes.append(f"port {offered[0].port} has TLS, so the server can: port {verdict.port} should offer it")
    return replace(verdict, evidence=tuple(notes))


def beside_vantages(verdict: Verdict, seen_tls: str | None, vantages: Sequence[Vantage]) -> Verdict:
    """Adds what the same server showed to others: where that differs, something is on the way."""
    verdict = replace(verdict, vantages=tuple(vantages))
    for other in vantages:
        stripped = other.tls == "offered" and seen_tls in ("absent", "stripped", None)
        cleared = verdict.banner in ("stars", "stars but 2 and 0", "cmap") and other.banner == "clear"
        if stripped or cleared:
            what = "STARTTLS is offered there and not here" if stripped else "the greeting is clear there"
            why = f"{other.where} [{other.source}]: {what}: the box is on the way from here, and not from there"
            lost = tuple(dict.fromkeys((*verdict.breaks, "TLS"))) if stripped else verdict.breaks
            verdict = replace(
                verdict, found=True, family=verdict.family or UNKNOWN.label, sure="high",
                evidence=(*verdict.evidence, why), breaks=lost, where=verdict.where or _WHOSE,
                tls="stripped" if stripped else verdict.tls,
            )  # fmt: skip
        elif other.tls == "absent" and seen_tls == "absent":
            why = f"{other.where} [{other.source}]: STARTTLS is not offered there either"
            verdict = replace(verdict, evidence=(*verdict.evidence, why))
    return verdict


def examine(
    host: str,
    port: int = 25,
    timeout: float = 30.0,
    *,
    address: str | None = None,
    ports: bool = False,
    vantages: Sequence[Vantage] = (),
) -> Verdict:
    """Asks one address and judges. ProbeError if it cannot be reached or does not speak SMTP."""
    address = address or addresses_of(host, port)[0]
    talk = converse(address, port, timeout)
    if not talk.greeting.code:
        raise ProbeError(f"{host} port {port}: that is no SMTP: {talk.greeting.lines[0][:80]!r}")
    said = list(talk.said)
    after: tuple[Answer, Answer] | None = None
    if talk.greeting.code == 220:
        refused, answer, more = data_first(address, port, timeout)
        after = refused, answer
        said += more
    seen = observe(talk, after)
    start = _start(host, port, address, talk, said, seen)
    if talk.greeting.code != 220:
        return replace(start, evidence=(f"refused: {printable(' '.join(talk.greeting.lines))}",))
    verdict = judge(seen, {name: load_profile(name) for name in profile_names()}, start)
    if ports:
        verdict = _beside_ports(verdict, seen, [glance(address, other, timeout) for other in PORTS if other != port])
    return beside_vantages(verdict, seen.tls, vantages)


def _start(
    host: str, port: int, address: str, talk: Talk, said: Sequence[tuple[str, Answer]], seen: Features
) -> Verdict:
    return Verdict(
        host,
        port,
        None,
        dialogue=tuple((command, answer.lines) for command, answer in said),
        address=address,
        source=talk.source,
        time=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        banner=seen.banner,
        keywords=tuple(sorted(seen.keywords or ())),
        tls=seen.tls,
    )


def examine_all(
    host: str, port: int = 25, timeout: float = 30.0, *, ports: bool = False, vantages: Sequence[Vantage] = ()
) -> Verdict:
    """The same for each of the host's addresses; the first that answers is the verdict, ``others`` are the rest."""
    verdicts: list[Verdict] = []
    faults: list[ProbeError] = []
    for address in addresses_of(host, port)[:_MOST_ADDRESSES]:
        try:
            verdicts.append(examine(host, port, timeout, address=address, ports=ports, vantages=vantages))
        except ProbeError as error:
            faults.append(ProbeError(str(error).replace(f"{address} port", f"{host} port", 1)))
            why = (f"cannot be asked: {str(error).rpartition(': ')[2]}",)
            verdicts.append(Verdict(host, port, None, address=address, evidence=why, sure=""))
    answered = [one for one in verdicts if one.sure]
    if not answered:
        raise faults[0]
    return replace(answered[0], others=tuple(one for one in verdicts if one is not answered[0]))


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The whole verdict, with the message. Keys are kept in later versions, and new ones may be added."""
    return {**msgspec.to_builtins(verdict), "exit_code": verdict.exit_code, "message": letter(verdict)}
