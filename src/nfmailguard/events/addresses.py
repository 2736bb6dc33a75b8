"""Addresses of MAIL and RCPT lines: which address every server reads, if that is certain.

Promises: an address is certain only where the line follows RFC 5321 4.1.2 exactly and has nothing that servers are
known to read differently: comments, source routes, brackets in quotes, several addresses. Anything else is given as the
client wrote it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["CUT", "Address", "address", "text"]

#: Appended to an address text that was cut off; it contains a space, which no address does, so a cut is recognisable.
CUT = " ..."
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]+"
_LOCAL = rb'(?:%s|"[^"\\<>\x00-\x1f\x7f]*")' % _ATOM
_DOMAIN = rb"(?:[A-Za-z0-9._\x80-\xff-]+|\[[A-Za-z0-9.:-]+\])"
_PATH = rb"%s(?:@%s)?" % (_LOCAL, _DOMAIN)
_PARAMETERS = rb"(?: +[A-Za-z0-9][A-Za-z0-9-]*(?:=[!-~]*)?)* *"
_LINE = re.compile(rb"[A-Za-z]{4} +(?:FROM|TO) ?: *(?:<(%s)?>|(%s))%s" % (_PATH, _PATH, _PARAMETERS), re.IGNORECASE)


class Address(NamedTuple):
    """An address as text, or, if it is not ``certain``, what the client wrote after the colon."""

    text: str
    certain: bool


def text(octets: bytes) -> str:
    """Bytes as readable text; what is not printable ASCII is written as \\xNN."""
    if octets.isascii():
        plain = octets.decode("ascii")
        if plain.isprintable() and "\\" not in plain:
            return plain
    return "".join(chr(o) if 32 <= o < 127 and o != 92 else f"\\x{o:02x}" for o in octets)


def _is_text(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def address(line: bytes, *, cut: bool = False, changed: bool = False) -> Address:
    """The address of a line. ``cut``: the line was longer; ``changed``: the server received other characters."""
    found = None if cut else _LINE.fullmatch(line)
    if found is not None and _is_text(line):
        return Address(text(found[1] or found[2] or b""), not changed)
    _, colon, argument = line.partition(b":")
    if not colon:
        argument = line.partition(b" ")[2]
    return Address(text(argument.strip()) + CUT * cut, False)
