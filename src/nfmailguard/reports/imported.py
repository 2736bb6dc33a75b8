"""``profile import``: what a configuration was turned into, and what could not be converted.

Does not read configurations; reports what ``policy.cisco`` found in one.
"""

from __future__ import annotations

from collections.abc import Sequence

from nfmailguard.errors import ConfigError, NfmailguardError
from nfmailguard.plain import printable
from nfmailguard.policy import dump
from nfmailguard.policy.cisco import rules
from nfmailguard.policy.cisco.read import Import, Imported, read_all
from nfmailguard.policy.cisco.text import Line, Status
from nfmailguard.policy.load import profile_text
from nfmailguard.policy.model import Policy

__all__ = ["MOST_OCTETS", "policy", "read", "refused", "toml"]

MOST_OCTETS = 64 << 20


def read(files: Sequence[tuple[str, bytes]], context: str | None = None) -> Import:
    """Reads configuration files, by name; ConfigError for a file that is none, with a line for each faulty line."""
    texts = []
    for where, octets in files:
        try:
            text = octets.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = octets.decode("latin-1")  # Configurations of older firewalls may have descriptions in Latin-1.
        texts.append((where if len(files) > 1 else None, text))
    where = ", ".join(name for name, _ in files)
    try:
        found = read_all(texts, context)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if context is not None and context not in found.contexts[:1]:
        choice = ", ".join(found.contexts) or "none"
        raise ConfigError(f"{where}: no context {context!r} that inspects mail; there is {choice}")
    if context is None and len(found.contexts) > 1:
        choice = ", ".join(sorted(found.contexts))
        raise ConfigError(f"{where}: {len(found.contexts)} contexts inspect mail; choose with --context: {choice}")
    wrong = found.of(Status.ERROR)
    if wrong:
        raise ConfigError(*(told(line, where) for line in wrong))
    return found


def told(line: Line, where: str) -> str:
    """One line of a report, with its file."""
    return f"{line.file or where}: {line}"


def refused(found: Import, where: str) -> list[str]:
    """A line for each configuration line that has to do with mail inspection and is not honoured."""
    return [told(line, where) for line in found.of(Status.NOT_HONOURED)]


def policy(found: Import, name: str | None, where: str) -> Policy:
    """The policy that would be written; raises as ``toml`` does."""
    return _chosen(found, name, where).policy


def _none(found: Import, where: str) -> NfmailguardError:
    """The error that says why there is no policy, with each line that suggests one."""
    if found.shows is not None:
        return ConfigError(
            f"{where}: {found.shows} is what a box shows of its counters; give the output of `show running-config`"
        )
    named = refused(found, where)
    if found.off is not None:
        return NfmailguardError(f"{where}: mail inspection is off: {found.off}", *named)
    seen = len(found.lines) + found.unrelated
    return NfmailguardError(f"{where}: no mail inspection is switched on in its {seen} lines", *named)


def _chosen(found: Import, name: str | None, where: str) -> Imported:
    """The policy called ``name``, else the one that is applied everywhere, else one that is applied at all."""
    if not found.maps or (name is None and not found.inspects):
        raise _none(found, where)
    names = [one.policy.name for one in found.maps]
    if name is not None:
        if name not in names:
            raise ConfigError(f"{where}: no policy {name!r}; one of {', '.join(names)}")
        return found.maps[names.index(name)]
    applied = [one for one in found.maps if one.ports]
    several = [one for one in applied if one.everywhere] or applied or list(found.maps)
    if len(several) > 1:
        choice = ", ".join(one.policy.name for one in several)
        raise ConfigError(f"{where}: {len(several)} policies; choose with --map: {choice}")
    return several[0]


def toml(found: Import, name: str | None, where: str) -> str:
    """The profile of one policy of a configuration, and after it the rules that belong into a configuration.

    ConfigError when there are several to choose from, or none of that name; NfmailguardError when there is none at all.
    """
    one = _chosen(found, name, where)
    honoured, not_honoured = len(found.of(Status.HONOURED)), len(found.of(Status.NOT_HONOURED))
    head = [
        f"From {where}, line {one.line}.",
        f"Lines of mail inspection: {honoured} honoured, {not_honoured} not; {found.unrelated} others.",
        f"It is applied to port {', '.join(one.ports)} (gateway.ports)." if one.ports else "No line there applies it.",
    ]
    head += ["No profile is this box's; this is the nearest."] if one.nearest else []
    head += [f"Not honoured: {told(line, where)}" for line in found.of(Status.NOT_HONOURED)[:20]]
    if one.profile is not None:
        text = "".join(f"# {printable(line)}\n" for line in head) + profile_text(one.profile)
    else:
        text = dump.render(one.policy, one.sources, head)
    return text + _rules(found)


def _rules(found: Import) -> str:
    if not found.rules:
        return ""
    lines = [
        "",
        "What holds for some interfaces, ports or hosts only. It belongs into the configuration (gateway.mode there is",
        "what all others get), without the first # of each line:",
        "",
        *rules.text(found.rules).splitlines(),
    ]
    if found.rules_left_out:
        lines.append(f"{found.rules_left_out} more are left out: a configuration has {rules.MOST_RULES}")
    return "\n" + "".join(f"# {line}".rstrip() + "\n" for line in lines)
