"""The reference model's handling of BDAT: when it may pass, and what a valid size is (RFC 3030).

Promises: what is taken for a chunk is what any server reads as one. Does not know what the server has said, nor lines.
"""

from __future__ import annotations

import re

from nfmailguard.policy.model import Action
from nfmailguard.smtp.replies import Replies
from nfmailguard.smtp.session import Ended, Octet
from nfmailguard.smtp.states import TAKES_CHUNK
from nfmailguard.smtp.verbs import Input

__all__ = ["Chunks"]

_LARGEST_CHUNK = 2**31 - 1


class Chunks(Replies):
    """The part of a dialogue that handles BDAT chunks."""

    def takes_chunk(self) -> bool:
        """Whether the server reads the bytes after a BDAT line as a chunk."""
        return self.chunking and self.state in TAKES_CHUNK and not self.policy.data.seven_bits

    def chunk_waits(self, octets: list[Octet]) -> bool:
        """Whether a line that may be BDAT must wait: all commands before it have to be answered first."""
        begins = self.input is Input.COMMANDS and not self.line and not self.after_cr
        if not (begins and self.outstanding and self.holds and self.chunking) or self.policy.data.seven_bits:
            return False
        if not {verb.upper() for verb in self.policy.commands.allow} & {"BDAT", "*"}:
            return False
        word = bytes(octet.value for octet in octets[:5]).upper()
        return b"BDAT".startswith(word[:4]) and word[4:] <= b" "

    def chunk_size(self, argument: list[Octet], end: Octet | None) -> int | None:
        """BDAT's size, or None if it is invalid; then the rest of the line is masked (RFC 3030 2)."""
        text = bytes(octet.value for octet in argument).upper()
        number = text[: re.match(rb"0|[1-9][0-9]*|", text).end()]  # type: ignore[union-attr]
        while number and int(number) > _LARGEST_CHUNK:
            number = number[:-1]
        rest = text[len(number) :]
        behind = b" LAST" if number else b""
        fits = len(number)
        while fits < len(text) and rest[: fits + 1 - len(number)] == behind[: fits + 1 - len(number)]:
            fits += 1
        if fits < len(text):
            if self.invalid_size(argument[fits].offset, passed=fits > 0) is Action.MASK:
                for masked in argument[fits:]:
                    masked.become(ord(self.policy.commands.letter))
            return None
        if not number or text[len(number) :] not in (b"", behind):
            if end is not None:
                self.invalid_size(end.offset, passed=fits > 0)
            return None
        self.last_chunk = text.endswith(behind)
        return int(number)

    def invalid_size(self, offset: int, *, passed: bool) -> Action:
        """Reports an invalid BDAT size. If digits have passed already, the flow is reset: some servers use the digits
        whatever follows.
        """
        action = self.report("bdat.size_invalid", True, offset, "BDAT")
        if passed and self.holds and action is Action.MASK:
            self.result.ended = Action.RESET
            raise Ended
        return action
