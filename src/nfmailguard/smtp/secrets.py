"""Lines with a secret (RFC 4954 4): which part of a long one a server may take for another line.

Promises: plain functions of a line's bytes; part of the reference model. Does not know dialogues.
"""

from __future__ import annotations

from nfmailguard.policy.model import Policy
from nfmailguard.smtp.verbs import CUTS, LONGEST_LINE, VERBS

__all__ = ["TAIL", "ends_at", "is_command", "verb_in"]

#: How many bytes at the end of a line with a secret (AUTH or its base64 answer) are searched for a verb.
TAIL = 8
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


def _names(policy: Policy) -> tuple[set[str], set[str]]:
    """The known verbs, and the allowed ones."""
    return {verb.name for verb in VERBS if verb.name and verb.name[0] not in ".<"}, {
        verb.upper() for verb in policy.commands.allow
    }


def ends_at(policy: Policy, value: int, place: int) -> bool:
    """Whether a line with a secret exceeds its limit at this byte, or has a byte that is not base64
    where it is long.
    """
    return place >= policy.commands.secret_length or (place >= LONGEST_LINE and value not in _BASE64)


def verb_in(policy: Policy, line: bytes, place: int, ends: bool) -> bool:
    """Whether a server may have read a verb at this place of the line, as the beginning of another line.

    ``line``: its last bytes, up to the one at this place; ``ends``: the result of ``ends_at``. If it ends, any whole
    verb before this byte counts; otherwise only the first four letters of a denied verb, where a server may begin a
    line.
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
    """Whether a line after AUTH is a denied verb, ended by this byte (Haraka 3.1 looks for its own verbs first)."""
    names, allowed = _names(policy)
    denied = names - allowed if "*" not in allowed else set()
    return value not in _BASE64 and len(word) <= TAIL and word.upper().decode("latin-1") in denied
