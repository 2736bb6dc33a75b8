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
        # When the message begins after DATA's CR, the first LF still belongs to DATA's own line end.
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
            # Only the line's last two bytes are kept: enough to see whether the line is empty or ends in CR.
            self.line = self.line[-1:] + bytes([value])
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
