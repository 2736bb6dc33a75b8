"""The obvious model's eye for file names: a header's fields, unfolded, parsed again at each octet.

Promises: the number of octets of the file name that is being read (RFC 2183 2.3, RFC 2231 3).
Does not know where a message begins or what becomes of it.
"""

from __future__ import annotations

import re

__all__ = ["FileNames"]

_FIELD = re.compile(rb"content-(?:type|disposition)[ \t]*:", re.IGNORECASE)


class FileNames:
    """Reads a message octet by octet; any line that begins with two dashes may begin a part (RFC 2046 5.1.1)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._header = True
        self._line = b""
        self._field = b""
        self._told = False

    def too_long(self, octet: int) -> bool:
        """Whether this octet is the first one too many of a field's file names."""
        if octet == 10:
            self._header = self._header and bool(self._line)
            self._line = b""
            return False
        if octet == 13:
            return False
        self._line += bytes([octet])
        if self._header and len(self._line) == 1 and self._line not in (b" ", b"\t"):
            self._field, self._told = b"", False
        if self._line == b"--":
            self._header, self._field = True, b"-"
        if not self._header:
            return False
        if len(self._line) == 1 and self._line in (b" ", b"\t") and b":" not in self._field:
            self._field += b"\n"  # a name does not go on in another line
        self._field += bytes([octet])
        begun = _FIELD.match(self._field)
        if begun and not self._told and _count(self._field[begun.end() :]) > self._limit:
            self._told = True
            return True
        return False


def _quoted(text: bytes, at: int) -> int:
    """The place of the quote that ends what begins at ``at``, or the text's end."""
    while at < len(text) and text[at] != ord('"'):
        at += 2 if text[at] == ord("\\") else 1
    return min(at, len(text))


def _count(text: bytes) -> int:
    """Octets of the last file name among a field's parameters, as far as it has been read."""
    count = at = 0
    while True:
        while at < len(text) and text[at] != ord(";"):
            at = _quoted(text, at + 1) + 1 if text[at] == ord('"') else at + 1
        at += 1
        found = re.compile(rb"[; \t]*([^=;\t ]*)[ \t]*(=?)[ \t]*").match(text, at)
        if at >= len(text) or found is None:
            return count
        at = found.end()
        if not found[1] or not found[2]:
            at -= text[at - 1 : at] == b";"
            continue
        name, star, _ = found[1].lower().partition(b"*")
        ours = name in (b"filename", b"name")
        count = 0 if ours and not star else count
        if text[at : at + 1] == b'"':
            end = _quoted(text, at + 1)
            value, at = text[at + 1 : end], end + 1
        else:
            token = re.compile(rb"[^; \t]*").match(text, at)
            assert token is not None
            value, at = token[0], token.end()
        count += len(value) * ours
