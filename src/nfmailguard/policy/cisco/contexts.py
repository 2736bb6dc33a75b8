"""Several configurations in one text: the contexts of a device, and files given together.

Promises: every line is in one unit, in the text's order. A unit begins at a second version line, at another context's
prompt and at ``changeto``. Otherwise does not know what a line means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from nfmailguard.policy.cisco.text import Statement

__all__ = ["VERSION", "Unit", "split"]

#: Matches the line in which a configuration gives the device's type and software release.
VERSION = re.compile(
    r"(?:Cisco )?(PIX|ASA|FWSM|Adaptive Security Appliance|NGFW|Firepower Threat Defense)\b"
    r"[\w .:()/-]{0,60}?\bVersion (\d{1,3})\.(\d{1,3})(?:\((\d{1,3}))?",
    re.IGNORECASE,
)
_HOSTNAME = ("hostname",)


@dataclass
class Unit:
    """One configuration. ``name``: its context's, else its host's, else where it begins."""

    name: str
    statements: list[Statement] = field(default_factory=list)


def split(found: Sequence[Statement]) -> list[Unit]:
    """The configurations of a text; a text without lines is one empty configuration."""
    units = [Unit("")]
    context: str | None = None
    versions = 0
    for statement in found:
        words = statement.keywords
        now = context if statement.context is None else statement.context
        if words[:1] == ("changeto",) and words[1:2] in (("context",), ("system",)):
            now = statement.words[2] if words[1] == "context" and len(words) > 2 else "system"
        version = bool(VERSION.match(statement.text))
        moved = context is not None and now != context
        if (moved or (version and versions)) and units[-1].statements:
            units.append(Unit("", []))
            versions = 0
        versions += version
        unit = units[-1]
        if not unit.name and now:
            unit.name = now
        elif not unit.name and words[:1] == _HOSTNAME and len(words) == 2:
            unit.name = statement.words[1]
        context = now
        unit.statements.append(statement)
    for unit in units:
        if not unit.name:
            unit.name = unit.statements[0].place.replace(" ", "-") if unit.statements else "none"
    return units
