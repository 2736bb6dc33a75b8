"""The limits of a policy: one table, from which everything that knows them takes them.

Promises: a limit is a number of one setting, whose finding is made when it is exceeded; None is no limit. Does not
know what a number counts: that is the core's, and the reference model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from nfmailguard.policy.model import Policy

__all__ = ["LIMITS", "MOST", "PolicyLimit"]

#: The largest number a limit can be.
MOST = 2**31 - 1


@dataclass(frozen=True)
class PolicyLimit:
    """One limit."""

    #: Where a Policy has it, as ``part.name``; the core knows it by the name alone.
    setting: str
    #: The finding that is made when it is exceeded.
    finding: str
    #: What is counted, for a sentence.
    counted: str
    #: The words of ASA's ``match`` for it, before ``gt NUMBER`` (S-ASA13); "" where an ASA cannot set it.
    cisco: str = ""

    @property
    def name(self) -> str:
        return self.setting.partition(".")[2]

    @property
    def unit(self) -> str:
        """What the number counts, in one word: bytes, recipients, fields."""
        return self.counted.partition(" of ")[0].split()[-1]

    def of(self, policy: Policy) -> int | None:
        """The number; None: no limit."""
        value: int | None = reduce(getattr, self.setting.split("."), policy)  # type: ignore[assignment]
        return value


#: In the order in which a map for an ASA is written.
LIMITS = (
    PolicyLimit("commands.line_length", "command.too_long", "bytes of a command", "cmd line length"),
    PolicyLimit("address.recipients", "recipients.too_many", "recipients", "cmd RCPT count"),
    PolicyLimit("data.body_line_length", "data.line_too_long", "bytes of a body line", "body line length"),
    PolicyLimit("data.header_line_length", "header.line_too_long", "bytes of a header line", "header line length"),
    PolicyLimit("address.sender_length", "address.too_long", "bytes of a sender", "sender-address length"),
    PolicyLimit("data.header_length", "header.too_long", "bytes of a header", "header length"),
    PolicyLimit("data.body_length", "data.too_long", "bytes of a body", "body length"),
    PolicyLimit("data.to_fields", "header.to_fields_too_many", "To fields", "header to-fields count"),
    PolicyLimit(
        "address.invalid_recipients", "recipients.invalid_too_many", "refused recipients", "invalid-recipients count"
    ),
    PolicyLimit("data.filename_length", "mime.filename_too_long", "bytes of a file name", "MIME filename length"),
)
