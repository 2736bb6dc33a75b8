"""A dialogue as both ends saw it, as values: lines, what changed in them, and the findings beside them.

Promises: data only, and plain functions on it; lines returned by ``hidden`` contain no secrets of AUTH. Does not know
where a dialogue comes from, or how it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from nfmailguard.plain import octets

__all__ = ["Dialogue", "Line", "Note", "Part", "hidden", "parts", "shown", "titles"]

#: Most bytes of a line that are shown; of a longer line the beginning is shown, and how many bytes follow.
MOST_SHOWN = 2000


class Note(msgspec.Struct, frozen=True):
    """A finding about a line: its name, the action, the reason, and the source of the rule.

    ``applied`` False: reported only. ``hypothetical``: an earlier change would already have altered the dialogue.
    """

    finding: str
    action: str
    reason: str
    source: str = ""
    applied: bool = True
    hypothetical: bool = False


class Line(msgspec.Struct):
    """A line of one side: as it was sent, and as it arrived.

    ``seen`` None: it never arrived, or, if ``one_sided``, that is not known. ``time``: nanoseconds since 1970, or None.
    ``what`` replaces bytes that cannot be read (TLS), or describes an event that is no line.
    """

    to_server: bool
    sent: bytes
    seen: bytes | None
    time: int | None = None
    notes: list[Note] = []
    what: str = ""
    one_sided: bool = False
    #: Number of bytes of this direction before the line.
    offset: int = 0

    @property
    def changed(self) -> bool:
        return not self.one_sided and self.sent != self.seen


class Dialogue(msgspec.Struct):
    """One connection. ``title``: mode and profile it was under; ``ended``: how it ended, if that is
    worth mentioning.
    """

    title: str
    client: str
    server: str
    lines: list[Line]
    ended: str = ""

    @property
    def changes(self) -> int:
        return sum(line.changed for line in self.lines)


class Part(msgspec.Struct, frozen=True):
    """A piece of a line's text, and whether it differs from the other side's."""

    text: str
    changed: bool


def parts(line: Line) -> tuple[list[Part], list[Part] | None]:
    """What was sent and what arrived, cut at the same places; None: it did not arrive, or is not known."""
    if line.seen is None or line.seen == line.sent:
        return [Part(shown(line.sent), line.seen is None and not line.one_sided)], None
    if len(line.seen) != len(line.sent):
        return [Part(shown(line.sent), True)], [Part(shown(line.seen), True)]
    sent, seen = list[Part](), list[Part]()
    most = min(len(line.sent), MOST_SHOWN)
    pairs = zip(line.sent[:most], line.seen[:most], strict=True)
    for changed, run in groupby(pairs, key=lambda pair: pair[0] != pair[1]):
        left, right = (bytes(side) for side in zip(*run, strict=True))
        sent.append(Part(_text(left), changed))
        seen.append(Part(_text(right), changed))
    _strip(sent)
    _strip(seen)
    if more := _more(len(line.sent)):
        changed = line.sent[most:] != line.seen[most:]
        sent.append(Part(more, changed))
        seen.append(Part(more, changed))
    return sent, seen


def _text(some: bytes) -> str:
    return octets(some)


def _strip(line: list[Part]) -> None:
    """The line without the CRLF at its end, if that was not changed."""
    if line and not line[-1].changed and line[-1].text.endswith("\\x0d\\x0a"):
        text = line[-1].text.removesuffix("\\x0d\\x0a")
        line[-1:] = [Part(text, False)] if text else []


def _more(length: int) -> str:
    return f" ... ({length - MOST_SHOWN:,} more bytes)" if length > MOST_SHOWN else ""


def shown(line: bytes) -> str:
    """Bytes as text; a CRLF at the end is not shown, anything else unprintable is escaped."""
    return octets(line[:MOST_SHOWN].removesuffix(b"\r\n")) + _more(len(line))


_AUTH = re.compile(rb"(?i)(\s*AUTH\s+[^\s]+\s+)(?!=\r?\n?$)(\S.*?)(\r?\n)?\Z", re.DOTALL)


def hidden(lines: Iterable[Line]) -> Iterator[Line]:
    """The lines with secrets of AUTH (RFC 4954 4) masked: the argument after the mechanism, and answers to 334."""
    asked = False
    for line in lines:
        if not line.to_server:
            if not line.what and line.sent[3:4] != b"-":
                asked = line.sent.startswith(b"334")
            yield line
            continue
        found = _AUTH.match(line.sent)
        if asked and not line.what:
            yield _covered(line, 0, len(line.sent.rstrip(b"\r\n")))
        elif found:
            yield _covered(line, found.start(2), found.end(2))
        else:
            yield line


def _covered(line: Line, begin: int, end: int) -> Line:
    stars = b"[hidden]"[: end - begin].ljust(end - begin, b".")

    def covered(some: bytes | None) -> bytes | None:
        return None if some is None else some[:begin] + stars[: max(0, len(some) - begin)] + some[end:]

    return msgspec.structs.replace(line, sent=covered(line.sent) or b"", seen=covered(line.seen))


def titles(dialogues: Sequence[Dialogue]) -> str:
    """How many there are, in words."""
    changed = sum(one.changes > 0 for one in dialogues)
    return f"{len(dialogues):,} dialogue{'s' * (len(dialogues) != 1)}, {changed:,} with changes"
