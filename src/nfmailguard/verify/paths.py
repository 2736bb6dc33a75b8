"""Compares the same dialogue on two paths: where what arrived differs, step by step, and which settings explain it.

Promises: a difference is caused by a firewall: if a server answers differently because it received something else, that
is no difference of its own. Nothing is compared after a step that makes the dialogues diverge. Does not know sockets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from nfmailguard.policy.load import override
from nfmailguard.policy.model import Policy
from nfmailguard.transcripts.model import Dialogue, Line
from nfmailguard.verify.comparing import Compared, Side, compare
from nfmailguard.verify.explaining import Change, explain, in_words

__all__ = ["OPEN", "Difference", "Explanation", "Found", "How", "Played", "Taken", "differences", "explained"]


#: Value of ``ended`` when neither the client nor the server has seen the connection end.
OPEN = ("", "")


class Taken(msgspec.Struct):
    """A step on one path. ``replies``: the server's replies, each with how many bytes of the step had arrived by then.

    ``ended``: the connection's state at the end of the step, seen from the client and from the server.
    """

    pieces: list[bytes]
    arrived: bytes
    replies: list[tuple[int, bytes]]
    read: bytes
    ended: tuple[str, str] = OPEN

    @property
    def sent(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def said(self) -> bytes:
        return b"".join(reply for _, reply in self.replies)


class Played(msgspec.Struct):
    """A dialogue on one path, with its greeting as the first step; it has fewer steps if it ended early."""

    name: str
    steps: list[Taken]


class How(StrEnum):
    """What differs in a step."""

    ONE = "only one changes it"
    OTHERWISE = "both change it, each in its own way"
    LOST = "only one delivers it"
    ENDED = "only one ends the connection"


class Difference(msgspec.Struct):
    """A step with different results. ``by``: which path changed, lost or ended it; None: both.

    ``to_server``: whose bytes; ``sent`` as they were sent, ``left`` and ``right`` as they arrived, None: not at all.
    """

    dialogue: str
    step: int
    how: How
    by: int | None
    to_server: bool
    sent: bytes
    left: bytes | None
    right: bytes | None
    #: The settings that would explain the difference.
    settings: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """A difference with the same key in two dialogues is reported once."""
        return self.how, self.by, self.to_server, self.sent, self.left, self.right


class Found(msgspec.Struct):
    """The result of a comparison. ``again``: dialogues not compared further because another had already shown the
    difference.
    """

    differences: list[Difference]
    again: dict[str, str]
    compared: int


def _lines(sent: bytes, seen: bytes) -> list[tuple[bytes, bytes | None]]:
    """The lines, sent and received; as one piece if a length was changed, since bytes cannot be matched then."""
    if not seen and sent:
        return [(sent, None)]
    if len(sent) != len(seen):
        return [(sent, seen)]
    lines, at = list[tuple[bytes, bytes | None]](), 0
    for line in sent.splitlines(keepends=True) if b"\r\n" in sent else [sent]:
        lines.append((line, seen[at : at + len(line)]))
        at += len(line)
    return lines


def _cut(sent: bytes, left: bytes, right: bytes) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    a, b = _lines(sent, left), _lines(sent, right)
    if [line for line, _ in a] != [line for line, _ in b]:
        a, b = [(sent, left or None)], [(sent, right or None)]
    for (line, one), (_, other) in zip(a, b, strict=True):
        yield line, one, other


def _judge(name: str, step: int, to_server: bool, cut: tuple[bytes, bytes | None, bytes | None]) -> Difference | None:
    sent, left, right = cut
    if left == right:
        return None
    if left is None or right is None:
        return Difference(name, step, How.LOST, int(left is not None), to_server, sent, left, right)
    if sent in (left, right):
        return Difference(name, step, How.ONE, int(left == sent), to_server, sent, left, right)
    return Difference(name, step, How.OTHERWISE, None, to_server, sent, left, right)


def _of_step(name: str, step: int, left: Taken, right: Taken) -> Iterator[Difference]:
    for cut in _cut(left.sent, left.arrived, right.arrived):
        if found := _judge(name, step, True, cut):
            yield found
    if left.said == right.said:
        for cut in _cut(left.said, left.read, right.read):
            if found := _judge(name, step, False, cut):
                yield found
    if left.ended != right.ended and OPEN in (left.ended, right.ended):
        yield Difference(name, step, How.ENDED, int(left.ended == OPEN), True, left.sent, _end(left), _end(right))


def _end(step: Taken) -> bytes | None:
    return ", ".join(end for end in step.ended if end).encode() or None


def _of_dialogue(left: Played, right: Played) -> Iterator[Difference]:
    for step, (one, other) in enumerate(zip(left.steps, right.steps, strict=False)):
        found = list(_of_step(left.name, step, one, other))
        if any(each.to_server for each in found):
            # A connection's end also accounts for what was not delivered, and a server that received other bytes also
            # answers differently; so only one difference is reported.
            ended = [each for each in found if each.how is How.ENDED]
            yield from (ended or [each for each in found if each.to_server])[:1]
            return
        yield from found
        if one.ended != OPEN or other.ended != OPEN or one.said != other.said:
            return


def differences(left: Sequence[Played], right: Sequence[Played]) -> Found:
    """Compares the same dialogues on two paths."""
    found, first, again = list[Difference](), dict[tuple[object, ...], str](), dict[str, str]()
    for one, other in zip(left, right, strict=True):
        for each in _of_dialogue(one, other):
            if first.setdefault(each.key, one.name) == one.name:
                found.append(each)
            elif each.to_server:
                again[one.name] = first[each.key]
    return Found(found, again, len(left))


class Explanation(msgspec.Struct):
    """Settings that would make one side's profile do what the other did; ``unexplained``: remaining differences."""

    changes: list[Change]
    unexplained: int


def _dialogue(played: Played) -> Dialogue:
    """The dialogue for ``verify``: packets in the order in which the server saw them."""
    lines, time, at = list[Line](), 0, {True: 0, False: 0}

    def add(to_server: bool, sent: bytes, seen: bytes | None) -> None:
        lines.append(Line(to_server, sent, seen, time, [], offset=at[to_server]))
        at[to_server] += len(sent)

    for step in played.steps:
        came, read, end, replies = step.arrived, step.read, 0, list(step.replies)
        whole = len(came) == len(step.sent)
        for piece in step.pieces:
            while replies and replies[0][0] <= end and end:
                time += 1
                read = _reply(add, replies.pop(0)[1], read)
            time += 1
            for line in piece.splitlines(keepends=True) if b"\r\n" in piece else [piece]:
                add(True, line, came[end : end + len(line)] if whole else came or None)
                end += len(line)
        for _, reply in replies:
            time += 1
            read = _reply(add, reply, read)
    return Dialogue(played.name, "client", "server", [line for line in lines if line.sent])


def _reply(add: object, reply: bytes, read: bytes) -> bytes:
    assert callable(add)
    for line in reply.splitlines(keepends=True):
        add(False, line, read[: len(line)] or None)
        read = read[len(line) :]
    return read


def explained(policy: Policy, right: Sequence[Played], found: Found) -> Explanation:
    """Which changes of ``policy``, which the left path enforces, would do what the right one did.

    Dialogue by dialogue, each with the changes found for the earlier ones. Notes in each difference what explains it.
    """
    until = dict[str, int]()
    for one in found.differences:
        until[one.dialogue] = max(one.step, until.get(one.dialogue, 0))
    dialogues = {
        one.name: _dialogue(Played(one.name, one.steps[: until[one.name] + 1])) for one in right if one.name in until
    }
    now, changes = policy, dict[str, Change]()
    for name, dialogue in dialogues.items():
        compared = compare(now, dialogue)
        if compared.differing:
            others = [_dialogue(one) for one in right if one.name != name and _area(one.name) == _area(name)]
            more, now = explain(now, [compared], Side.CLIENT, others)
            for change in more:
                for key, value in change.settings:
                    before = changes.get(key, change)
                    changes[key] = msgspec.structs.replace(before, settings=((key, value),))
    _note(policy, dialogues, found, changes)
    told = [
        msgspec.structs.replace(
            change,
            words=in_words(policy, now, change.settings),
            explains=sum(key in one.settings for one in found.differences),
        )
        for key, change in changes.items()
    ]
    told = [change for change in told if change.explains]
    return Explanation(told, sum(not one.settings for one in found.differences))


def _area(name: str) -> str:
    """What a dialogue is about: names that begin alike test the same rule of a firewall."""
    return name.partition(".")[0]


def _note(policy: Policy, dialogues: Mapping[str, Dialogue], found: Found, changes: Mapping[str, Change]) -> None:
    """Notes the settings that explain a difference, each alone, or else together."""
    together = override(policy, {key: one.settings[0][1] for key, one in changes.items()}) if changes else policy
    alone = {key: override(policy, dict(one.settings)) for key, one in changes.items()}
    for one in found.differences:
        dialogue = dialogues[one.dialogue]
        before = compare(policy, dialogue)
        one.settings = tuple(key for key, other in alone.items() if _helps(before, compare(other, dialogue), one))
        if not one.settings and _helps(before, compare(together, dialogue), one):
            one.settings = tuple(changes)


def _helps(before: Compared, after: Compared, one: Difference) -> bool:
    """Whether lines of the difference differ before and agree after; if a connection ended, any lines."""
    agree = {id(seen.line) for seen in after.seen if seen.agrees}
    better = [seen.line for seen in before.differing if id(seen.line) in agree]
    if one.how is How.ENDED:
        return bool(better)
    return any(line.to_server is one.to_server and line.sent in one.sent for line in better)
