"""The reference model's search for file names in a message: reads header fields, unfolded, byte by byte.

Promises: counts the bytes of the file name that is being read (RFC 2183 2.3, RFC 2231 3), in time linear in the
message. Does not know where a message begins or what is done about a long name.
"""

from __future__ import annotations

import re
from enum import Enum, auto

__all__ = ["FileNames"]

_FIELD = re.compile(rb"content-(?:type|disposition)[ \t]*:", re.IGNORECASE)
_BLANKS = b" \t"
#: Most bytes of a header field's name that are kept: a longer name cannot be Content-Type or Content-Disposition.
_LONGEST_NAME = 64


class FileNames:
    """Reads a message byte by byte; any line that begins with two dashes may begin a MIME part (RFC 2046 5.1.1)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._header = True
        self._line = b""  # The first bytes (at most 3) of the message line that is being read.
        self._field = b""  # The header field's name, with a run of blanks kept as one.
        # Parser of the field's parameters; None unless the field is Content-Type or Content-Disposition.
        self._parameters: _Parameters | None = None
        self._told = False

    def too_long(self, octet: int) -> bool:
        """Whether this byte is the first one beyond the limit for a field's file names."""
        if octet == 10:
            self._header = self._header and bool(self._line)
            self._line = b""
            return False
        if octet == 13:
            return False
        if len(self._line) < 3:
            self._line += bytes([octet])
            self._begin()
        if not self._header:
            return False
        if self._parameters is None:
            self._name(octet)
            return False
        if self._parameters.next(octet) > self._limit and not self._told:
            self._told = True
            return True
        return False

    def _begin(self) -> None:
        """Decides from a line's first bytes whether it begins or continues a header field, or begins a MIME part."""
        if self._header and len(self._line) == 1 and self._line not in (b" ", b"\t"):
            self._field, self._told, self._parameters = b"", False, None
        if self._line == b"--":
            self._header, self._field, self._parameters = True, b"-", None
        if self._header and self._line in (b" ", b"\t") and b":" not in self._field:
            # A field's name must not continue on a folded line: this LF makes the name match nothing.
            self._field += b"\n"

    def _name(self, octet: int) -> None:
        blank = octet in _BLANKS and self._field[-1:] in (b" ", b"\t")
        if not blank and len(self._field) < _LONGEST_NAME:
            self._field += bytes([octet])
        if _FIELD.fullmatch(self._field):
            self._parameters = _Parameters()


class _At(Enum):
    """The parser's position in a field's parameters."""

    ELSEWHERE = auto()  # Outside a parameter: skip to the next semicolon.
    ASIDE = auto()  # Outside a parameter, inside a quoted string.
    START = auto()
    NAME = auto()
    BEHIND_NAME = auto()
    VALUE = auto()
    TOKEN = auto()
    QUOTED = auto()


class _Parameters:
    """Parser for the text after a field's colon."""

    def __init__(self) -> None:
        self._at = _At.ELSEWHERE
        self._name = b""
        self._ours = False
        self._escaped = False
        self._count = 0

    def next(self, octet: int) -> int:
        """Takes the next byte; the number of bytes of the last file name read so far."""
        before, self._at = self._at, self._step(chr(octet))
        if before is not self._at:
            self._escaped = False
            if self._at is _At.START:
                self._name = b""
            elif self._at is _At.VALUE:
                name, star, _ = self._name.lower().partition(b"*")
                self._ours = name in (b"filename", b"name")
                self._count = 0 if self._ours and not star else self._count
        if self._at is _At.NAME and len(self._name) <= _LONGEST_NAME:
            self._name += bytes([octet])
        counts = self._at is _At.TOKEN or (self._at is _At.QUOTED and before is _At.QUOTED)
        self._count += counts and self._ours
        return self._count

    def _step(self, octet: str) -> _At:
        at = self._at
        if at in (_At.ASIDE, _At.QUOTED):
            escaped, self._escaped = self._escaped, octet == "\\" and not self._escaped
            return _At.ELSEWHERE if octet == '"' and not escaped else at
        if octet == ";":
            return _At.START
        blank = octet in " \t"
        if at is _At.ELSEWHERE:
            return _At.ASIDE if octet == '"' else at
        if at is _At.START:
            return at if blank else _At.ELSEWHERE if octet == "=" else _At.NAME
        if at is _At.NAME:
            return _At.VALUE if octet == "=" else _At.BEHIND_NAME if blank else at
        if at is _At.BEHIND_NAME:
            return at if blank else _At.VALUE if octet == "=" else _At.ASIDE if octet == '"' else _At.ELSEWHERE
        if at is _At.VALUE:
            return at if blank else _At.QUOTED if octet == '"' else _At.TOKEN
        # The parser is in an unquoted parameter value (a token); a blank ends it.
        return _At.ELSEWHERE if blank else at
