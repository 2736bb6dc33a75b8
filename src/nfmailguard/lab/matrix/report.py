"""Shows the matrix: a table for each group of profiles with equal outcomes, the surprises, and the reasons.

Promises: every cell is in it; one that is not as expected is marked, and listed with the client's last words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from nfmailguard.lab.matrix.cells import Cell, Outcome
from nfmailguard.lab.matrix.expected import Expected
from nfmailguard.lab.matrix.expected import table as rules
from nfmailguard.reports import pages
from nfmailguard.reports.console import Console

__all__ = ["LEGEND", "Seen", "as_json", "page", "show"]

TITLE = "nfmailguard lab compare"
LEGEND = (
    "TLS, TLS+AUTH, AUTH (in clear text): so the mail came; clear: with neither; HELO: without EHLO, so with none of "
    "it; *: re-encoded by the client; NO: not delivered, with the reply that ended it; !: not as expected. "
    "Seconds: the median, and the longest."
)
_MOST_SAID = 160
_CODE = re.compile(r"\b[45]\d\d\b")
#: The reasons in the table of expectations; a reason's position is its number in the report.
REASONS = tuple(dict.fromkeys(rule.why for rule in rules().rule))


class Seen(NamedTuple):
    """A cell, the expected outcome, the outcome, and the surprises in it."""

    cell: Cell
    expected: Expected
    outcome: Outcome
    surprises: tuple[str, ...]

    @property
    def word(self) -> str:
        """The outcome in one word."""
        one = self.outcome
        sign = "! " if self.surprises else ""
        if not one.delivered:
            code = _CODE.search(one.said)
            return f"{sign}NO {code[0]}" if code else f"{sign}NO"
        words = ["TLS" if one.tls else "", "AUTH" if one.auth else ""]
        return sign + ("+".join(filter(None, words)) or ("clear" if one.ehlo else "HELO")) + "*" * one.encoded


class Group(NamedTuple):
    """Profiles of one mode under which all cells have the same outcome."""

    mode: str
    profiles: tuple[str, ...]
    seen: tuple[Seen, ...]

    @property
    def title(self) -> str:
        return f"{self.mode}: {', '.join(self.profiles)}"

    def heads(self) -> list[str]:
        """Column heads: client, the servers, and how long a client's mails took."""
        return ["client", *dict.fromkeys(one.cell.server for one in self.seen), "seconds"]

    def rows(self) -> Iterator[list[str]]:
        """One row per client; as the profiles are alike, any of them stands for all."""
        first = [one for one in self.seen if one.cell.profile == self.profiles[0]]
        for client in dict.fromkeys(one.cell.client for one in first):
            took = [one.outcome.seconds for one in self.seen if one.cell.client == client]
            words = [one.word for one in first if one.cell.client == client]
            yield [client, *words, f"{median(took):.1f} ({max(took):.1f})"]

    def reasons(self) -> list[str]:
        """Why the outcome differs from a path without firewall, each reason once, in the order of the table."""
        found = {why for one in self.seen for why in one.expected.why[1:]}
        return [why for why in REASONS if why in found]

    def numbers(self) -> str:
        """The reasons by their numbers."""
        return " ".join(str(REASONS.index(why) + 1) for why in self.reasons()) or "-"

    def log(self) -> str:
        """The findings of the gateways, and for how many of the mails."""
        told = Counter(finding for one in self.seen for finding in one.outcome.log)
        return ", ".join(f"{finding} {count}" for finding, count in sorted(told.items())) or "nothing"


def groups(seen: Sequence[Seen]) -> list[Group]:
    """The matrix, grouped by mode and by equal outcomes."""
    made = []
    for mode in dict.fromkeys(one.cell.mode for one in seen):
        by_profile: dict[str, list[Seen]] = {}
        for one in seen:
            if one.cell.mode == mode:
                by_profile.setdefault(one.cell.profile, []).append(one)
        alike: dict[tuple[str, ...], list[str]] = {}
        for profile, cells in by_profile.items():
            alike.setdefault(tuple(one.word for one in cells), []).append(profile)
        for profiles in alike.values():
            cells = [one for profile in profiles for one in by_profile[profile]]
            made.append(Group(mode, tuple(profiles), tuple(cells)))
    return made


def used(seen: Sequence[Seen]) -> list[str]:
    """The reasons that apply to any cell."""
    found = {why for one in seen for why in one.expected.why}
    return [why for why in REASONS if why in found]


def surprising(seen: Sequence[Seen]) -> list[list[str]]:
    """One row for each cell that is not as expected."""
    return [[*one.cell, "; ".join(one.surprises), one.outcome.said[:_MOST_SAID]] for one in seen if one.surprises]


def summary(seen: Sequence[Seen], seconds: float) -> str:
    """How many expectations were met, in one line."""
    met = sum(not one.surprises for one in seen)
    delivered = sum(one.outcome.delivered for one in seen)
    encoded = sum(one.outcome.encoded for one in seen)
    longest = max((one.outcome.seconds for one in seen), default=0.0)
    return (
        f"{met} of {len(seen)} as expected; {delivered} delivered, {delivered - encoded} of them byte for byte; "
        f"{seconds:.0f} s in all, {longest:.1f} s the longest mail."
    )


def show(console: Console, seen: Sequence[Seen], seconds: float) -> None:
    """Prints every table, then the surprises and the summary."""
    console.print("[bold]Real clients, real servers, one gateway's rules between them.[/]", highlight=False)
    console.print(LEGEND + "\n", style="dim", highlight=False)
    for group in groups(seen):
        console.print(Text(group.title, style="bold"), soft_wrap=True)
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for head in group.heads():
            made.add_column(head, no_wrap=True)
        for name, *words, took in group.rows():
            made.add_row(Text(name), *(Text(word, style=_style(word)) for word in words), Text(took))
        console.print(made)
        console.print(Text(f"told: {group.log()}"))
        console.print(Text(f"why: {group.numbers()}\n"))
    for why in used(seen):
        console.print(Text(f"{REASONS.index(why) + 1:2} {why}", style="dim"))
    console.print()
    for *cell, what, said in surprising(seen):
        client, server, profile, mode = cell
        console.print(Text(f"! {client} -> {server}, {mode} {profile}: {what}" + (f" ({said})" if said else "")))
    console.print(Text(summary(seen, seconds), style="bold"))


def _style(word: str) -> str:
    return "bold red" if word.startswith("!") else "yellow" if word.startswith("NO") else ""


def page(seen: Sequence[Seen], seconds: float) -> str:
    """The whole report as one page."""
    facts = []
    if rows := surprising(seen):
        facts.append(pages.Facts("Not as expected", ("client", "server", "profile", "mode", "what", "said"), rows))
    for group in groups(seen):
        facts.append(pages.Facts(group.title, group.heads(), list(group.rows())))
        told = [[group.numbers(), group.log()]]
        facts.append(pages.Facts(f"Of {group.title}", ("why, below", "told, in so many of the dialogues"), told))
    why = [[str(REASONS.index(one) + 1), one] for one in used(seen)]
    facts.append(pages.Facts("Why it is not as on a free path", ("number", "reason"), why))
    return pages.tables(TITLE, f"{summary(seen, seconds)} {LEGEND}", facts)


def as_json(seen: Sequence[Seen], seconds: float) -> dict[str, Any]:
    """The whole report as values for programs."""
    return {
        "met": sum(not one.surprises for one in seen),
        "cells": len(seen),
        "seconds": round(seconds, 1),
        "matrix": [
            one.cell._asdict()
            | msgspec.structs.asdict(one.outcome)
            | {"expected": msgspec.structs.asdict(one.expected), "surprises": one.surprises}
            for one in seen
        ],
    }
