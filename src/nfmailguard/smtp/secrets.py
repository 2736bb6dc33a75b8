"""Lines with a secret (RFC 4954 4): what of a long one a server may take for another line.

Promises: plain functions of a line's bytes; for the obvious model. Does not know dialogues.
"""

from __future__ import annotations

from nfmailguard.policy.model import Policy
from nfmailguard.smtp.verbs import CUTS, LONGEST_LINE, VERBS

__all__ = ["TAIL", "ends_at", "is_command", "verb_in"]

#: How many bytes at the end of a line with a secret (AUTH or its base64 answer) are searched for a verb.
TAIL = 8
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


def _names(policy: Policy) -> tuple[set[str], set[str]]:
    """The verbs that are known, and those that are allowed."""
    return {verb.name for verb in VERBS if verb.name and verb.name[0] not in ".<"}, {
        verb.upper() for verb in policy.commands.allow
    }


def ends_at(policy: Policy, value: int, place: int) -> bool:
    """Whether what such a line may hold ends before this byte: base64 where it is long, its length."""
    return place >= policy.commands.secret_length or (place >= LONGEST_LINE and value not in _BASE64)


def verb_in(policy: Policy, line: bytes, place: int, ends: bool) -> bool:
    """Whether at this place of the line a server has read a verb that begins another.

    ``line``: its last bytes, up to the one at this place; ``ends``: as ``ends_at`` says. Then a whole verb
    before it, wherever it began; else the four letters that some know a verb by, where a server may begin.
    """
    names, allowed = _names(policy)
    said = line.upper().decode("latin-1")
    if ends:
        verbs = [name for name in names | allowed if len(name) <= TAIL and place - len(name) >= LONGEST_LINE - 2]
        return place > LONGEST_LINE and said[:-1].endswith(tuple(verbs))
    begin = place - 3
    denied = {name[:4] for name in names - allowed if "*" not in allowed}
    return begin >= LONGEST_LINE - 2 and begin in CUTS and said[-4:] in denied


def is_command(policy: Policy, word: bytes, value: int) -> bool:
    """Whether a line behind AUTH is a denied verb, which this byte ends (Haraka 3.1 looks for its own verbs first)."""
    names, allowed = _names(policy)
    denied = names - allowed if "*" not in allowed else set()
    return value not in _BASE64 and len(word) <= TAIL and word.upper().decode("latin-1") in denied
