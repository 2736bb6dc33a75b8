"""``profile list``: what each release does, as a table; one line each if there is no terminal.

Does not decide anything; shows what the profiles contain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from nfmailguard.policy.model import BannerRule, EhloMask, Policy, UnknownCommand
from nfmailguard.smtp.masks import masked_banner, masked_command

__all__ = ["Row", "render", "row"]

_GREETING = "220 mail2 ESMTP 2020"
_COMMAND = "STARTTLS"


class Row(msgspec.Struct, frozen=True):
    """What one profile does. ``keywords``: those of the EHLO reply that pass; None: all."""

    title: str
    banner: str
    #: What the profile makes of the greeting text `220 mail2 ESMTP 2020`.
    greeting: str
    verbs: tuple[str, ...]
    unknown: str
    #: What the profile makes of the command `STARTTLS`.
    starttls: str
    ehlo: str
    keywords: tuple[str, ...] | None
    bugs: tuple[str, ...]


def row(policy: Policy) -> Row:
    """What ``policy`` does, as a ``Row``."""
    rules, replies = policy.commands, policy.replies
    greeting, command = _GREETING.encode(), _COMMAND.encode()
    if policy.banner.rule is not BannerRule.NONE:
        pairs = zip(greeting, b"\0" + greeting, strict=False)
        greeting = bytes(masked_banner(policy.banner, column, *pair) for column, pair in enumerate(pairs))
    if _COMMAND not in rules.allow and "*" not in rules.allow:
        command = masked_command(rules, command, len(command))
    return Row(
        policy.title,
        str(policy.banner.rule),
        greeting.decode(),
        rules.allow,
        str(rules.unknown),
        command.decode(),
        str(replies.ehlo),
        replies.keywords if replies.ehlo is EhloMask.E1 else None,
        tuple(name for name, on in msgspec.structs.asdict(policy.bugs).items() if on),
    )


def _starttls(one: Row) -> str:
    answered = ", 250 OK" if one.unknown == UnknownCommand.OK and one.starttls != _COMMAND else ""
    return one.starttls.rstrip() + answered


def _ehlo(one: Row) -> str:
    if "EHLO" not in one.verbs and "*" not in one.verbs:
        return "no EHLO"
    return "as it is" if one.keywords is None else f"{len(one.keywords)} pass"


def render(policies: Mapping[str, Policy], console: Console) -> None:
    """A row for each profile; below them which verbs and keywords those are."""
    rows = {name: row(policy) for name, policy in policies.items()}
    if not console.is_terminal:
        width = max(map(len, rows))
        for name, one in rows.items():
            facts = [one.title, one.banner, f"{len(one.verbs)} verbs", _starttls(one), _ehlo(one), *one.bugs]
            console.print(f"{name:{width}}  {'; '.join(facts)}", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("profile", _GREETING, "verbs", f"{_COMMAND} becomes", "keywords", "faults"):
        table.add_column(heading, overflow="fold", no_wrap=heading == _GREETING)
    for name, one in rows.items():
        faults = " ".join(one.bugs)
        table.add_row(name, one.greeting, str(len(one.verbs)), _starttls(one), _ehlo(one), faults)
    console.print(table)
    _matrix("verb", "passes", rows, lambda one: one.verbs, console)
    _matrix("EHLO keyword", "is shown", rows, lambda one: one.keywords or (), console)
    console.print("`profile show NAME` has them with their sources.", style="dim", highlight=False)


def _matrix(
    what: str, does: str, rows: Mapping[str, Row], of: Callable[[Row], tuple[str, ...]], console: Console
) -> None:
    """Prints words by firewalls: one column for all firewalls that do the same."""
    sets: dict[tuple[str, ...], list[str]] = {}
    for name, one in rows.items():
        if words := tuple(sorted(of(one))):
            sets.setdefault(words, []).append(name)
    columns = sorted(sets.items(), key=lambda item: len(item[0]))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"Which {what} {does} (✓), by box", title_justify="left")
    table.add_column(what, no_wrap=True, vertical="bottom")
    for _, names in columns:
        table.add_column("\n".join(names), justify="center", vertical="bottom")
    for word in sorted({word for words in sets for word in words}):
        table.add_row(word, *("✓" if word in words else "·" for words, _ in columns))
    console.print(table)
