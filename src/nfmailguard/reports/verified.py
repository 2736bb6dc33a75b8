"""``profile diff`` and ``verify`` on a terminal, and as JSON.

Does not compare anything; shows what ``verify`` found.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from nfmailguard.plain import octets
from nfmailguard.policy.model import Policy
from nfmailguard.transcripts.model import Dialogue, shown
from nfmailguard.transcripts.reasons import SETTING_OF, source
from nfmailguard.verify.comparing import MOST_BYTES, Compared, Seen
from nfmailguard.verify.difference import Difference
from nfmailguard.verify.explaining import Change

__all__ = ["as_json", "difference_lines", "explained", "lines", "listed"]

_MOST_SHOWN = 20
_LONGEST = 80  # Most characters of an example that are shown.


def difference_lines(found: Sequence[Difference], left: Policy, right: Policy) -> Iterator[str]:
    """Two profiles, setting by setting."""
    if not found:
        yield f"{left.name} and {right.name} decide alike: no setting differs"
        return
    width = max(len(one.setting) for one in found)
    yield f"{'':{width}}  {left.name} | {right.name}"
    for one in found:
        yield f"{one.setting:{width}}  {one.left} | {one.right}"
        yield f"{'':{width}}    {one.meaning}"


def _what(line: bytes | None) -> str:
    return "(not delivered)" if line is None else shown(line)


def _sides(one: Seen) -> Iterator[str]:
    side = "C" if one.line.to_server else "S"
    if one.line.one_sided:
        yield f"    {side}: {shown(one.line.sent)}    came through the box"
        yield f"       {one.why or f'this profile would have made it: {_what(one.expected)}'}"
        return
    yield f"    {side}: {shown(one.line.sent)}"
    yield f"    {side}> {_what(one.line.seen)}    the box"
    yield f"    {side}> {_what(one.expected)}    the profile"


def lines(
    found: Sequence[Compared],
    policy: Policy,
    changes: Sequence[Change],
    remaining: int,
    profile: str,
    closest: tuple[str, int] | None = None,
) -> Iterator[str]:
    """What agrees, what differs, and which settings would explain it.

    ``closest``: another profile, and how many lines differ from that.
    """
    seen = [one for each in found for one in each.seen]
    differing = [one for one in seen if not one.agrees]
    masked = sum(one.agrees and one.expected != one.line.sent for one in seen if not one.line.one_sided)
    one_sided = any(one.line.one_sided for one in seen)
    how = " (one side only: what a box has let out it would let out again)" if one_sided else ""
    agree = f"{len(seen) - len(differing):,} of {_many(len(seen), 'line')} agree"
    yield f"{policy.name}: {agree} in {_many(len(found), 'dialogue')}{how}"
    if not one_sided:
        yield f"  changed by the box as the profile says: {_many(masked, 'line')}"
    if cut := sum(each.cut for each in found):
        yield f"  of {_many(cut, 'dialogue')} only the first {MOST_BYTES >> 10} KiB were compared"
    shown_now = 0
    for each in found:
        some = each.differing[: _MOST_SHOWN - shown_now]
        if some:
            yield f"differing: {_name(each.dialogue)}"
        shown_now += len(some)
        for one in some:
            yield from _sides(one)
    if len(differing) > shown_now:
        yield f"  and {len(differing) - shown_now:,} more lines"
    if not differing:
        return
    if closest and closest[0] != policy.name and closest[1] < len(differing):
        yield f"closest of the profiles: {closest[0]}, with {_many(closest[1], 'line')} that differ"
    yield from explained(changes, remaining, profile)


def explained(changes: Sequence[Change], remaining: int, profile: str, what: str = "line") -> Iterator[str]:
    """Which settings of a profile explain how many lines; ``remaining``: how many of ``what`` no setting explains."""
    if changes:
        yield "these settings would explain it:"
    for change in changes:
        yield f"  {change.words}    explains {_many(change.explains, what)}: {_short(change.example)}"
        yield from (f"    or {other}" for other in change.alternatives)
        for setting, _ in change.settings:
            if was := source(_finding_of(setting), profile):
                yield f"      the profile has {setting} from: {was}"
    if remaining:
        yield f"{_many(remaining, what)} explained by no setting that is known here"
    elif changes:
        yield "with these the profile agrees with the box:"
        options = (f"--set {shlex.quote(f'{key}={value}')}" for change in changes for key, value in change.settings)
        yield f"  {' '.join(options)}"


def _short(line: bytes) -> str:
    text = shown(line)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(line):,} bytes)"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _finding_of(setting: str) -> str:
    if setting.startswith("actions."):
        return setting.removeprefix("actions.")
    return next((finding for finding, key in SETTING_OF.items() if key == setting), "")


def _name(one: Dialogue) -> str:
    return one.title if one.client == "client" else f"{one.client} to {one.server}"


def listed(one: Seen) -> dict[str, Any]:
    return {
        "from": "client" if one.line.to_server else "server",
        "sent": octets(one.line.sent),
        "seen": None if one.line.seen is None or one.line.one_sided else octets(one.line.seen),
        "expected": None if one.expected is None else octets(one.expected),
        "agrees": one.agrees,
        "why": one.why,
    }


def as_json(found: Sequence[Compared], policy: Policy, changes: Sequence[Change], remaining: int) -> dict[str, Any]:
    """What ``verify --json`` prints; keys are kept in later versions, and new ones may be added."""
    return {
        "profile": policy.name,
        "lines": sum(len(each.seen) for each in found),
        "differing": sum(len(each.differing) for each in found),
        "dialogues": [
            {"name": _name(each.dialogue), "lines": len(each.seen), "differing": list(map(listed, each.differing))}
            for each in found
        ],
        "settings": [
            {
                "set": dict(one.settings),
                "words": one.words,
                "explains": one.explains,
                "example": octets(one.example),
                "alternatives": one.alternatives,
            }
            for one in changes
        ],
        "unexplained": remaining,
    }
