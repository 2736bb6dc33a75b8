"""What may reach a terminal or a line of a log: printable characters, and nothing else.

Promises: what these give has no control character (C0, DEL, C1), no line or paragraph
separator, no bidirectional override, nothing invisible and no half of a surrogate pair;
printable text comes back as it is. For whatever others wrote: peers, file names, keys.
"""

from __future__ import annotations

import re

__all__ = ["block", "json_safe", "line", "octets", "printable"]

#: Matches everything but printable ASCII; ``str.isprintable`` then decides about each character.
_DOUBTFUL = re.compile(r"[^ -~]")
_MOST = 2000


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def printable(text: str, most: int | None = None) -> str:
    """``text`` on one line, what is not printable as ``\\xNN`` or ``\\uNNNN``; longer than ``most``, its beginning."""
    if most is not None and len(text) > most:
        text = f"{text[:most]}..."
    return text if text.isascii() and text.isprintable() else _DOUBTFUL.sub(_escaped, text)


def block(text: str, *, tabs: bool = False) -> str:
    """The same for text of several lines, whose LFs stay; ``tabs``: these, too."""
    if tabs:
        return "\t".join(block(part) for part in text.split("\t"))
    return "\n".join(printable(line) for line in text.split("\n"))


def octets(some: bytes) -> str:
    """Octets for people: what is not printable ASCII as ``\\xNN``."""
    return "".join(chr(octet) if 32 <= octet < 127 else f"\\x{octet:02x}" for octet in some)


def json_safe(encoded: bytes) -> bytes:
    """JSON in UTF-8 with what is not printable as ``\\uNNNN``: it can only stand inside of strings."""
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded  # An ASCII text without DEL needs no change: JSON itself escapes characters below the space.
    return re.sub(r"[^\n -~]", _escaped_json, encoded.decode()).encode()


def _escaped_json(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


def line(text: str) -> str:
    """A line of a message: printable, and not longer than one can read."""
    return printable(text, _MOST)
