"""Whether a firewall does what a profile says: compares each line that passed it with what the model says.

Both sides known: what was sent goes through the model, and the result is compared with what arrived. One side known: a
firewall lets its own output pass unchanged, so a line that the model would still change did not pass such a firewall,
nor did damage that the profile does not do. Promises: decides nothing itself; ``smtp.reference`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec

from nfmailguard.policy.model import Action, BannerRule, EhloMask, Policy
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Result, Turn
from nfmailguard.transcripts.model import Dialogue, Line
from nfmailguard.transcripts.translated import beside

__all__ = ["MOST_BYTES", "Compared", "Seen", "Side", "compare"]

#: Most bytes of a dialogue that are compared, from its beginning: the reference model reads only some 100 KiB per
#: second.
MOST_BYTES = 256 << 10
_LONGEST_PACKET = 65_495  # Largest TCP payload of an IPv4 packet.


class Side(StrEnum):
    """Where a dialogue of which only one side is known was recorded."""

    CLIENT = "client"
    SERVER = "server"


class Seen(msgspec.Struct):
    """A line that shows something about the firewall. ``expected`` None: the model delivers nothing."""

    line: Line
    expected: bytes | None
    agrees: bool
    #: Why the line disagrees with the model, if not because of its bytes.
    why: str = ""


class Compared(msgspec.Struct):
    """One dialogue. ``seen``: the lines of which something is known; ``ended``: how the model ends it."""

    dialogue: Dialogue
    seen: list[Seen]
    ended: Action | None
    findings: tuple[str, ...] = ()
    #: True if only the beginning of the dialogue was compared.
    cut: bool = False

    @property
    def differing(self) -> list[Seen]:
        return [one for one in self.seen if not one.agrees]


def _turns(lines: Iterable[Line]) -> tuple[list[Turn], list[tuple[Line, int, int]]]:
    """The packets, and the place of each line in them: lines of one side at the same time were in one packet."""
    turns, places = list[Turn](), list[tuple[Line, int, int]]()
    last: tuple[bool, int | None] | None = None
    for line in lines:
        if line.what:
            last = None
            continue
        this = (line.to_server, line.time)
        together = last == this and line.time is not None and len(turns[-1].data) + len(line.sent) <= _LONGEST_PACKET
        if together:
            places.append((line, len(turns) - 1, len(turns[-1].data)))
            turns[-1] = Turn(line.to_server, turns[-1].data + line.sent)
        else:
            places.append((line, len(turns), 0))
            turns.append(Turn(line.to_server, line.sent))
        last = this
    return turns, places


def _beginning(lines: Iterable[Line]) -> Iterator[Line]:
    size = 0
    for line in lines:
        size += len(line.sent)
        if size > MOST_BYTES:
            return
        yield line


def compare(policy: Policy, dialogue: Dialogue, side: Side = Side.CLIENT) -> Compared:
    """Compares a dialogue with the model. ``side``: which side is known, if only one is."""
    one_sided = any(line.one_sided for line in dialogue.lines)
    lines = list(_beginning(dialogue.lines))
    turns, places = _turns(lines)
    result = translate(policy, turns)
    seen = []
    for line, turn, at in places:
        out = result.turns[turn].data
        expected = out[at : at + len(line.sent)] if out else None
        if not one_sided:
            seen.append(Seen(line, expected, expected == line.seen))
        # The line was seen after the firewall, so it is compared with what the model delivers.
        elif line.to_server is (side is Side.SERVER):
            seen.append(Seen(line, expected, expected == line.sent))
    if one_sided:
        _damage(policy, result, seen)
    return Compared(
        dialogue,
        seen,
        result.ended,
        tuple(dict.fromkeys(found.name for found in result.findings)),
        len(lines) < len(dialogue.lines),
    )


def _damage(policy: Policy, result: Result, seen: Sequence[Seen]) -> None:
    """Adds lines that a firewall has masked in a way this profile does not."""
    does = {
        "upstream.banner_masked": policy.banner.rule is not BannerRule.NONE,
        "upstream.keyword_masked": policy.replies.ehlo is not EhloMask.NONE,
        "upstream.command_masked": "*" not in policy.commands.allow,
    }
    for finding in result.findings:
        if does.get(finding.name, True):
            continue
        line = beside([one.line for one in seen], finding)
        for one in seen:
            if one.line is line:
                one.agrees, one.why = False, "it was masked on the way, and this profile masks nothing of the kind"
