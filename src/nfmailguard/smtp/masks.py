"""The masks of Cisco's mail inspection, as bytes: what a banner, a verb, a keyword become.

Promises: plain functions whose result has the length of the input. Does not know dialogues, nor when something is
masked.
"""

from __future__ import annotations

from nfmailguard.policy.model import BannerPolicy, BannerRule, CommandPolicy, MultilineBanner, UnknownCommand

__all__ = ["masked_banner", "masked_command", "masked_keyword", "turned_ok"]


def masked_banner(rules: BannerPolicy, column: int, value: int, before: int) -> int:
    """What the byte at ``column`` of a greeting's line becomes: rules B40, B44, B51 and BASA.

    ``before``: the byte before it, as it arrived.
    """
    if column < 3:
        return value
    if column == 3:
        kept = (value == ord(" ") and rules.separator) or (
            value == ord("-") and rules.multiline is MultilineBanner.KEEP_DASH
        )
        return value if kept else ord("*")
    if rules.rule is BannerRule.B40:
        return b"SMTP/cmap ready".ljust(column, b"_")[column - 4]
    if rules.rule is BannerRule.B51:
        # Cisco's wording is `"2", "0" and "0 SPACE" characters`; it is read literally, which gives the published
        # greeting (S-HVERA).
        zero_space = value == ord(" ") and before == ord("0") and rules.separator
        return value if value in b"20" or zero_space else ord("*")
    return ord("*")


def masked_command(rules: CommandPolicy, verb: bytes, line: int) -> bytes:
    """The bytes that replace the beginning of a denied command line of ``line`` bytes that begins with ``verb``."""
    if rules.unknown is UnknownCommand.XALL:
        return rules.letter.encode() * line
    # A CR inside a verb is never overwritten, and where a CR is among the first four bytes, "NOOP"
    # cannot be written over them in one piece.
    if rules.unknown is UnknownCommand.NOOP and len(verb) >= 4 and b"\r" not in verb[:4]:
        return b"NOOP".ljust(len(verb))
    return rules.letter.encode() * len(verb)


def masked_keyword(length: int, number: int) -> bytes:
    """The mask by rule E1 for the ``number``-th masked line of a reply, from 0 (S-PGT against S-NMAPC)."""
    return b"X" * (length - 1) + bytes([ord("A") + number % 26])


def turned_ok(line: bytes) -> bytes:
    """A refusal's line, without its CRLF, turned into ``250 OK`` (S-4733: "responds with an OK even to denied
    commands").
    """
    return (b"250" + line[3:4] + b"OK")[: len(line)].ljust(len(line))
