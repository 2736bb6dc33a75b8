"""A message's header, as Exim reads it: where it ends.

Promises: lines end as the first one does, at CRLF alone or at LF with or without CR; an empty one ends the header
(RFC 5322 2.1). Does not know what an octet becomes; for the obvious model.
"""

from __future__ import annotations

__all__ = ["Head"]

_CR, _LF = 13, 10


class Head:
    """``on`` until the header has ended; ``size``: octets of the message so far."""

    def __init__(self, *, begun: bool = False) -> None:
        # Begun: the first LF may be that of DATA's own line.
        self.line = b"DATA\r" if begun else b""
        self.crlf: bool | None = None
        self.on = True
        self.size = 0

    def follow(self, value: int) -> None:
        """The next octet, as it has left."""
        self.size += 1
        if not self.on:
            return
        if value != _LF:
            self.line = self.line[-1:] + bytes([value])  # all that counts
            return
        cr = self.line.endswith(b"\r")
        if self.crlf is None:
            self.crlf = cr
        if self.crlf and not cr:
            self.line += b"\n"
        elif self.line in (b"", b"\r"):
            self.on = False
        else:
            self.line = b""
