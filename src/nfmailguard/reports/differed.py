"""``lab diff`` on a terminal, and as JSON.

Does not compare anything; shows what ``verify.paths`` found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nfmailguard.plain import octets
from nfmailguard.reports.verified import explained as lines_of_settings
from nfmailguard.transcripts.model import shown
from nfmailguard.verify.paths import Difference, Explanation, Found, How

__all__ = ["as_json", "lines"]

_WIDTH, _BEFORE = 100, 20  # Bytes of a long line that are shown, and how many of them come before the first difference.


def _happened(one: Difference, names: Sequence[str]) -> str:
    if one.by is None:
        return "both change it, each in its own way"
    doer = names[one.by]
    if one.how is How.ENDED:
        return f"{doer} ends the connection"
    return f"{doer} does not deliver it" if one.how is How.LOST else f"{doer} changes it"


def _window(some: Sequence[bytes | None]) -> tuple[int, int]:
    """Which bytes of long lines are shown: from a little before the first byte that is not the same in all."""
    texts = [one for one in some if one is not None]
    at = next((at for at, columns in enumerate(zip(*texts, strict=False)) if len(set(columns)) > 1), 0)
    return (at - _BEFORE if at > _WIDTH - _BEFORE else 0), _WIDTH


def _shown(line: bytes, window: tuple[int, int]) -> str:
    start, length = window
    part = line[start : start + length]
    if len(part) == len(line):
        return shown(line) or "(nothing)"
    return f"{'...' * bool(start)}{octets(part)}{'...' * (start + length < len(line))} ({len(line):,} bytes)"


def _seen(one: Difference, seen: bytes | None, window: tuple[int, int]) -> str:
    if one.how is How.ENDED:
        return "the connection goes on" if seen is None else f"the connection is {seen.decode()}"
    return "(not delivered)" if seen is None else _shown(seen, window)


def _of(one: Difference, names: Sequence[str]) -> Iterator[str]:
    width = max(map(len, names))
    window = _window([one.sent, one.left, one.right] if one.how is not How.ENDED else [one.sent])
    yield f"    {'C' if one.to_server else 'S'}: {_shown(one.sent, window)}    {_happened(one, names)}"
    for name, seen in zip(names, (one.left, one.right), strict=True):
        yield f"      {name:{width}}  {_seen(one, seen, window)}"
    if one.settings:
        yield f"      explained by {', '.join(one.settings)}"


def lines(
    found: Found,
    names: Sequence[str],
    about: dict[str, str],
    unsteady: Sequence[str],
    explanation: Explanation | None,
    profile: str,
) -> Iterator[str]:
    """What is the same, what differs, and which settings would explain it. ``names``: of the two paths."""
    left, right = names
    differing = list(dict.fromkeys(one.dialogue for one in found.differences))
    behind = [name for name in found.again if name not in differing]
    yield f"{left} and {right}: {len(differing)} of {found.compared} dialogues show a difference"
    if unsteady:
        yield f"  differing once and not again, which is not counted: {', '.join(unsteady)}"
    for name in differing:
        yield f"{name}: {about.get(name, '')}"
        for one in found.differences:
            if one.dialogue == name:
                yield from _of(one, names)
    if behind:
        yield f"not compared behind a difference that is above already: {', '.join(behind)}"
    if explanation is not None and differing:
        yield from lines_of_settings(explanation.changes, explanation.unexplained, profile, "difference")


def as_json(
    found: Found, names: Sequence[str], unsteady: Sequence[str], explanation: Explanation | None
) -> dict[str, Any]:
    """What ``lab diff --json`` prints; keys are kept in later versions, and new ones may be added."""
    differing = {one.dialogue for one in found.differences}
    changes = explanation.changes if explanation else []
    return {
        "left": names[0],
        "right": names[1],
        "dialogues": found.compared,
        "differences": [_listed(one, names) for one in found.differences],
        "again": {name: of for name, of in found.again.items() if name not in differing},
        "unsteady": list(unsteady),
        "settings": [
            {"set": dict(one.settings), "words": one.words, "alternatives": one.alternatives} for one in changes
        ],
        "unexplained": explanation.unexplained if explanation else None,
    }


def _listed(one: Difference, names: Sequence[str]) -> dict[str, Any]:
    return {
        "dialogue": one.dialogue,
        "step": one.step,
        "how": one.how.name.lower(),
        "by": None if one.by is None else names[one.by],
        "from": "client" if one.to_server else "server",
        "sent": octets(one.sent),
        "left": None if one.left is None else octets(one.left),
        "right": None if one.right is None else octets(one.right),
        "settings": list(one.settings),
    }
