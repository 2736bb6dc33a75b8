"""``profile import``: what was made of a configuration, and what of it was not.

Does not read configurations; says what ``policy.cisco`` found in one.
"""

from __future__ import annotations

from nfmailguard.errors import ConfigError, NfmailguardError
from nfmailguard.plain import printable
from nfmailguard.policy import cisco, dump
from nfmailguard.policy.cisco import Import, Imported
from nfmailguard.policy.cisco_text import Status
from nfmailguard.policy.load import profile_text

__all__ = ["MOST_OCTETS", "read", "refused", "toml"]

MOST_OCTETS = 64 << 20


def read(octets: bytes, where: str) -> Import:
    """A configuration file; ConfigError for what is none, and with a line for each that is wrong."""
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = octets.decode("latin-1")  # descriptions of older boxes
    try:
        found = cisco.read(text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    wrong = found.of(Status.ERROR)
    if wrong:
        raise ConfigError(*(f"{where}: {line}" for line in wrong))
    return found


def refused(found: Import, where: str) -> list[str]:
    """A line for each that has to do with mail inspection and is not honoured."""
    return [f"{where}: {line}" for line in found.of(Status.NOT_HONOURED)]


def _chosen(found: Import, name: str | None, where: str) -> Imported:
    """The policy called ``name``, else the one that is applied, else the only one."""
    if not found.maps:
        seen = len(found.lines) + found.unrelated
        raise NfmailguardError(f"{where}: no mail inspection is switched on in its {seen} lines")
    names = [one.policy.name for one in found.maps]
    if name is not None:
        if name not in names:
            raise ConfigError(f"{where}: no policy {name!r}; one of {', '.join(names)}")
        return found.maps[names.index(name)]
    several = [one for one in found.maps if one.ports] or list(found.maps)
    if len(several) > 1:
        choice = ", ".join(one.policy.name for one in several)
        raise ConfigError(f"{where}: {len(several)} policies; choose with --map: {choice}")
    return several[0]


def toml(found: Import, name: str | None, where: str) -> str:
    """The profile of one policy of a configuration.

    ConfigError when there are several to choose from, or none of that name;
    NfmailguardError when there is none at all.
    """
    one = _chosen(found, name, where)
    honoured, not_honoured = len(found.of(Status.HONOURED)), len(found.of(Status.NOT_HONOURED))
    head = [
        f"From {where}, line {one.line}.",
        f"Lines of mail inspection: {honoured} honoured, {not_honoured} not; {found.unrelated} others.",
        f"It is applied to port {', '.join(one.ports)} (gateway.ports)." if one.ports else "No line there applies it.",
    ]
    if one.profile is not None:
        return "".join(f"# {printable(line)}\n" for line in head) + profile_text(one.profile)
    return dump.render(one.policy, one.sources, head)
