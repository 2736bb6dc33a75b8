"""A message's header as Exim reads it: finds where the header ends.

Promises: lines end as the first one does, at CRLF alone or at LF with or without CR; an empty line ends the header (RFC
5322 2.1). Does not know what a byte is changed to; part of the reference model.
"""

from __future__ import annotations

__all__ = ["Head"]

_CR, _LF = 13, 10


class Head:
    """Follows a header; ``on`` until the header has ended; ``size``: bytes of the message so far."""

    def __init__(self, *, begun: bool = False) -> None:
        # If the message begins between the CR and the LF of the DATA command line, its first LF still ends that command
        # line.
        self.line = b"DATA\r" if begun else b""
        self.crlf: bool | None = None
        self.on = True
        self.size = 0

    def follow(self, value: int) -> None:
        """Takes the next byte of the message, as it was sent on."""
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
