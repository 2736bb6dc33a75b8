"""The masks of Cisco's mail inspection, as octets: what a banner, a verb, a keyword become.

Promises: plain functions from values to values, each of the length it was given. Does
not know dialogues, nor when something is masked.
"""

from __future__ import annotations

from nfmailguard.policy.model import BannerPolicy, BannerRule, CommandPolicy, MultilineBanner, UnknownCommand

__all__ = ["masked_banner", "masked_command", "masked_keyword", "turned_ok"]


def masked_banner(rules: BannerPolicy, column: int, value: int) -> int:
    """What the octet at ``column`` of a greeting's line becomes: rules B40, B44, B51 and BASA."""
    if column < 3:
        return value
    if column == 3:
        kept = (value == ord(" ") and rules.separator) or (
            value == ord("-") and rules.multiline is MultilineBanner.KEEP_DASH
        )
        return value if kept else ord("*")
    if rules.rule is BannerRule.B40:
        return b"SMTP/cmap ready".ljust(column, b"_")[column - 4]
    if rules.rule is BannerRule.B51 and value in b"20":
        return value
    return ord("*")


def masked_command(rules: CommandPolicy, verb: int, line: int) -> bytes:
    """The beginning of a denied command line whose verb has ``verb`` octets of its ``line``."""
    if rules.unknown is UnknownCommand.XALL:
        return rules.letter.encode() * line
    if rules.unknown is UnknownCommand.NOOP and verb >= 4:
        return b"NOOP".ljust(verb)
    return rules.letter.encode() * verb


def masked_keyword(length: int, number: int) -> bytes:
    """Rule E1 for the ``number``-th masked line of a reply, from 0 (S-PGT against S-NMAPC)."""
    return b"X" * (length - 1) + bytes([ord("A") + number % 26])


def turned_ok(line: bytes) -> bytes:
    """A refusal's line, without its CRLF, as ``250 OK`` (S-4733: "responds with an OK even to denied commands")."""
    return (b"250" + line[3:4] + b"OK")[: len(line)].ljust(len(line))
