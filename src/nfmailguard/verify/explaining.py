"""Which settings would make a profile do what a firewall did: single changes, tried one after the other.

Promises: a change that is named makes more lines agree than before, in all dialogues together, and can be given to
``--set`` as it is; those named together are tried together. Does not claim that the firewall is configured so: several
settings may explain the same lines.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.policy.findings import FINDING_INDEX, FINDINGS
from nfmailguard.policy.limits import LIMITS
from nfmailguard.policy.load import load_profile, override, profile_names
from nfmailguard.policy.model import BannerRule, EhloMask, MultilineBanner, PartialLines, Policy, UnknownCommand
from nfmailguard.smtp.verbs import VERBS
from nfmailguard.transcripts.model import Dialogue, Line
from nfmailguard.verify.comparing import Compared, Side, compare

__all__ = ["Change", "explain", "in_words", "nearest"]

_MOST_DIALOGUES = 20  # Most differing dialogues that candidate settings are tried on.
# Most bytes of each dialogue that are tried, from its beginning; _MOST_TRIED is the limit for all dialogues together.
_MOST_BYTES = 8 << 10
_MOST_TRIED = 24 << 10
_MOST_CHANGES = 12
_MOST_ALTERNATIVES = 3
# Shortest command line limit in bytes that is tried; no firewall is known to cut shorter commands.
_SHORTEST_LIMIT = 100
_SWITCHES = (
    "banner.separator",
    "address.brackets",
    "data.seven_bits",
    "bugs.dot_crlf",
    "bugs.data_bypass",
    "bugs.noop_body",
)
_CHOICES = {
    "banner.rule": BannerRule,
    "banner.multiline": MultilineBanner,
    "commands.unknown": UnknownCommand,
    "commands.partial_lines": PartialLines,
    "replies.ehlo": EhloMask,
}
_VERBS = frozenset(verb.name for verb in VERBS if verb.name and not verb.name.startswith("<"))


class Change(msgspec.Struct, frozen=True):
    """Settings as ``--set`` takes them, one or several that belong together; how many lines they make agree, and the
    first such line.

    ``words``: the same as readable text, for a list what is added or removed.
    """

    settings: tuple[tuple[str, str], ...]
    words: str
    explains: int
    example: bytes
    #: Other settings that explain the same number of lines.
    alternatives: tuple[str, ...] = ()


def _list(words: Sequence[str]) -> str:
    return msgspec.json.encode(list(words)).decode()


def _words(found: Sequence[Compared]) -> tuple[set[str], set[str], set[str], set[str]]:
    """From lines that differ: verbs, keywords, characters that became a space, letters of masks."""
    verbs, keywords, characters, letters = set[str](), set[str](), set[str](), set[str]()
    for one in found:
        for differing in one.differing:
            line = differing.line
            sent, seen = line.sent.decode("latin-1"), (line.seen or b"").decode("latin-1")
            if line.to_server:
                verb = sent.split(" ")[0].strip().upper()
                verbs |= {verb} if verb.isascii() and verb.isalnum() and len(verb) <= 16 else set()
                letters |= set(seen[:1]) - set(sent[:1])
                characters |= {a for a, b in zip(sent, seen, strict=False) if a != b == " " and " " < a < "\x7f"}
            elif sent[:3] == "250" and len(sent) > 5:
                word = sent[4:].strip().upper().split(" ")[0]
                keywords |= {word, word.split("=")[0]}
    return verbs, {word for word in keywords if word.isascii()}, characters - set("<>"), letters


def _shown(found: Sequence[Compared]) -> Iterator[str]:
    """Keywords that passed the firewall unchanged."""
    for one in found:
        for seen in one.seen:
            said = seen.line.sent if seen.line.one_sided else seen.line.seen
            if not seen.line.to_server and said == seen.line.sent and said[:3] == b"250" and len(said) > 5:
                word = said[4:].decode("latin-1").strip().upper().split(" ")[0].split("=")[0]
                if word.isascii() and word.strip("X-") and not (word.startswith("XX") and len(word) > 3):
                    yield word


def _cut_at(found: Sequence[Compared]) -> set[int]:
    """Lengths of commands after which a firewall masked the rest."""
    lengths = set[int]()
    for one in found:
        for differing in one.differing:
            line = differing.line
            pairs = zip(line.sent, line.seen or b"", strict=False)
            at = next((at for at, (sent, seen) in enumerate(pairs) if sent != seen), 0)
            tail = (line.seen or b"")[at:].rstrip(b"\r\n")
            if line.to_server and at > _SHORTEST_LIMIT and len(set(tail)) == 1:
                lengths.add(at)
    return lengths


def _candidates(policy: Policy, found: Sequence[Compared]) -> Iterator[tuple[tuple[str, str], ...]]:
    yield from ((one,) for one in _singles(policy, found))
    # Masking EHLO keywords needs the list of keywords that are not masked, so these settings are tried together.
    if policy.replies.ehlo is EhloMask.NONE:
        asa = load_profile("asa").replies
        yield (
            ("replies.ehlo", str(EhloMask.E1)),
            ("replies.keywords", _list(list(dict.fromkeys([*asa.keywords, *_shown(found)])))),
            ("replies.keyword_end", asa.keyword_end),
        )


def _singles(policy: Policy, found: Sequence[Compared]) -> Iterator[tuple[str, str]]:
    verbs, keywords, characters, letters = _words(found)
    for setting, values in _CHOICES.items():
        yield from ((setting, str(value)) for value in values)
    for setting, known, words in (
        ("commands.allow", policy.commands.allow, verbs),
        ("replies.keywords", policy.replies.keywords, keywords),
    ):
        yield from ((setting, _list([*known, word])) for word in sorted(words - set(known)))
        yield from (
            (setting, _list([other for other in known if other != word])) for word in sorted(words & set(known))
        )
        if len(words - set(known)) > 1:
            yield setting, _list([*known, *sorted(words - set(known))])
    if "*" in policy.commands.allow and verbs:
        yield "commands.allow", _list(sorted(_VERBS - verbs))
    elif verbs:
        yield "commands.allow", _list(["*"])
    yield from (("replies.keyword_end", text) for text in (" ", " ="))
    yield from (("commands.letter", letter) for letter in sorted(letters) if letter.isalpha())
    for character in sorted(characters):
        if character not in policy.address.characters:
            yield "address.characters", policy.address.characters + character
    for character in policy.address.characters:
        yield "address.characters", policy.address.characters.replace(character, "")
    yield from ((setting, value) for setting in _SWITCHES for value in ("yes", "no"))
    yield from ((limit.setting, "none") for limit in LIMITS)
    yield from (("commands.line_length", str(length)) for length in sorted(_cut_at(found)))
    for name in dict.fromkeys(name for one in found for name in one.findings):
        for action in FINDINGS[FINDING_INDEX[name]].actions:
            yield f"actions.{name}", str(action)


def _short(dialogues: Iterable[Dialogue]) -> list[Dialogue]:
    """The beginnings of the first dialogues: there are many candidates, and each runs through the model."""
    made, room = list[Dialogue](), _MOST_TRIED
    for one in dialogues:
        lines, size = list[Line](), 0
        for line in one.lines:
            size += len(line.sent)
            if size > min(_MOST_BYTES, room):
                break
            lines.append(line)
        if lines and len(made) < _MOST_DIALOGUES:
            room -= sum(len(line.sent) for line in lines)
            made.append(msgspec.structs.replace(one, lines=lines))
    return made


def _differing(policy: Policy, dialogues: Sequence[Dialogue], side: Side) -> list[Compared]:
    return [compare(policy, one, side) for one in dialogues]


def explain(
    policy: Policy, found: Sequence[Compared], side: Side, others: Sequence[Dialogue] = ()
) -> tuple[list[Change], Policy]:
    """The changes, best first, and the policy with all of them; stops when no change helps any more.

    ``others``: more dialogues of the firewall; among changes that help equally, the best is the one under which these
    agree most.
    """
    dialogues = _short(one.dialogue for one in found if one.differing)
    changes: list[Change] = []
    now = _differing(policy, dialogues, side)
    while (left := _count(now)) and len(changes) < _MOST_CHANGES:
        # Among settings that make the same number of lines agree, the best is the one that comes nearest in the
        # remaining lines.
        tried = sorted(_tried(policy, now, dialogues, side), key=lambda one: (one.differ, _distance(one.found)))
        if not tried or tried[0].differ >= left:
            break
        alike = [one for one in tried if one.differ == tried[0].differ]
        if others:
            wrong = [_count(_differing(one.policy, others, side)) for one in alike]
            alike = [one for one, count in zip(alike, wrong, strict=True) if count == min(wrong)]
        best = alike[0]
        words = dict.fromkeys(in_words(policy, one.policy, one.settings) for one in alike)
        first, *alternatives = words
        example = _example(now, best.found)
        changes.append(
            Change(best.settings, first, left - best.differ, example, tuple(alternatives[:_MOST_ALTERNATIVES]))
        )
        policy, now = best.policy, best.found
    return changes, policy


class _Tried(NamedTuple):
    settings: tuple[tuple[str, str], ...]
    policy: Policy
    found: list[Compared]
    differ: int


def _tried(policy: Policy, now: Sequence[Compared], dialogues: Sequence[Dialogue], side: Side) -> Iterator[_Tried]:
    for settings in dict.fromkeys(_candidates(policy, now)):
        try:
            other = override(policy, dict(settings))
        except ConfigError:
            continue
        if other != policy:
            found = _differing(other, dialogues, side)
            yield _Tried(settings, other, found, _count(found))


def in_words(policy: Policy, other: Policy, settings: Sequence[tuple[str, str]]) -> str:
    """What settings change in ``policy``, as readable text; for a list what ``other`` has more or less."""
    said = []
    for setting, value in settings:
        part, _, key = setting.partition(".")
        before, after = (getattr(getattr(one, part), key, None) for one in (policy, other))
        if isinstance(before, tuple) and isinstance(after, tuple):
            more, less = ([word for word in a if word not in b] for a, b in ((after, before), (before, after)))
            told = [f"{how} {' '.join(words)}" for how, words in (("add", more), ("remove", less)) if words]
            said.append(f"{setting}: {', '.join(told)}")
        else:
            said.append(f"{setting}: {value!r}" if not value.strip() else f"{setting}: {value}")
    return "; ".join(said)


def nearest(found: Sequence[Compared], side: Side) -> tuple[str, int]:
    """Of the profiles that come with the program, the one that agrees with most lines, and how many differ."""
    dialogues = _short(one.dialogue for one in found)
    counts = {name: _count(_differing(load_profile(name), dialogues, side)) for name in profile_names()}
    best = min(counts, key=lambda name: counts[name])
    return best, counts[best]


def _count(found: Sequence[Compared]) -> int:
    return sum(len(one.differing) for one in found)


def _distance(found: Sequence[Compared]) -> int:
    """Number of bytes in differing lines that are not as expected."""
    return sum(
        sum(a != b for a, b in itertools.zip_longest(seen.expected or b"", seen.line.seen or b""))
        for one in found
        for seen in one.differing
    )


def _example(before: Sequence[Compared], after: Sequence[Compared]) -> bytes:
    """The first line that differs before, and agrees after."""
    for one, other in zip(before, after, strict=True):
        still = {id(seen.line) for seen in other.differing}
        for seen in one.differing:
            if id(seen.line) not in still:
                return seen.line.sent
    return b""
