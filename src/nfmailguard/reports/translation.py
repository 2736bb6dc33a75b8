"""``nfmailguard translate``: both ends of a dialogue, what was changed in colour.

Does not decide anything; shows what ``smtp.reference`` said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nfmailguard.plain import printable
from nfmailguard.policy.model import Limits, Policy, Restore
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.transcript import Row, rows, shown
from nfmailguard.smtp.turns import Result, Turn

__all__ = ["render"]


def _marked(row: Row) -> Text:
    """What arrived, its changed octets in colour."""
    seen, sent = shown(row.seen), shown(row.sent)
    style = "bold red" if row.to_server else "bold yellow"
    if row.seen is None or len(seen) != len(sent):
        return Text(seen, style=style if row.changed else "")
    text = Text()
    for changed, pairs in groupby(zip(sent, seen, strict=True), key=lambda pair: pair[0] != pair[1]):
        text.append("".join(left for _, left in pairs), style=style if changed else "")
    return text


def render(
    policy: Policy, turns: Sequence[Turn], console: Console, *, apply: bool, restore: Restore | None = None
) -> None:
    """Client on the left, server on the right; findings below. Plain lines where there is no terminal."""
    result = translate(policy, turns, apply=apply, restore=restore)

    def line(text: str) -> None:
        if console.is_terminal:
            console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
        else:
            console.file.write(printable(text) + "\n")  # a dialogue may have many

    if console.is_terminal:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("client", "", "server"):
            table.add_column(title, overflow="fold")
        for row in rows(turns, result):
            if row.to_server:
                table.add_row(Text(shown(row.sent)), Text("→", style="dim"), _marked(row))
            else:
                table.add_row(_marked(row), Text("←", style="dim"), Text(shown(row.sent), style="dim"))
        console.print(table)
    else:
        for row in rows(turns, result):
            side = "C" if row.to_server else "S"
            line(f"{side}: {shown(row.sent)}")
            if row.changed:
                line(f"{side}> {shown(row.seen)}")
    for text in _found(result):
        line(f"# {text}")


def _found(result: Result) -> Iterator[str]:
    for finding in result.findings:
        note = " (hypothetical)" if finding.hypothetical else ""
        note += f" (the {finding.number}th)" if finding.number > Limits().findings_told else ""
        verb = f" {finding.verb}" if finding.verb else ""
        yield f"{finding.name}{verb}: {finding.action} at offset {finding.offset} in state {finding.state}{note}"
    for name, count in result.counts.items():
        if count > max((finding.number for finding in result.findings if finding.name == name), default=0):
            yield f"{name}: {count} in all"
    if result.ended is not None:
        yield f"the connection ends: {result.ended}"
