"""``nfmailguard translate``: both ends of a dialogue, with changes marked, and the reasons.

Does not decide anything; shows the result of ``smtp.reference``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from nfmailguard.plain import printable
from nfmailguard.policy.model import Policy, Restore
from nfmailguard.reports import ladder
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.transcript import rows, shown
from nfmailguard.smtp.turns import Result, Turn
from nfmailguard.transcripts.model import Dialogue
from nfmailguard.transcripts.translated import translated

__all__ = ["render"]


def render(
    policy: Policy,
    turns: Sequence[Turn],
    console: Console,
    *,
    apply: bool,
    restore: Restore | None = None,
    profile: str = "",
) -> None:
    """Client on the left, server on the right; findings in the margin. Plain lines if there is no terminal.

    ``profile``: the file with the profile's text, if it is not found under the policy's name.
    """
    result = translate(policy, turns, apply=apply, restore=restore)
    made = translated(policy, turns, result, apply=apply, profile=profile)
    if console.is_terminal:
        ladder.render([made], console)
        for text in _counts(result):
            console.print(text, markup=False, highlight=False)
        return

    def line(text: str) -> None:
        # Written directly instead of with rich, because a dialogue may have many lines.
        console.file.write(printable(text) + "\n")

    for row in rows(turns, result):
        side = "C" if row.to_server else "S"
        line(f"{side}: {shown(row.sent)}")
        if row.changed:
            line(f"{side}> {shown(row.seen)}")
    for text in (*_found(made), *_counts(result)):
        line(f"# {text}")


def _found(made: Dialogue) -> Iterator[str]:
    for line in made.lines:
        yield from map(ladder.note_text, line.notes)


def _counts(result: Result) -> Iterator[str]:
    for name, count in result.counts.items():
        if count > max((finding.number for finding in result.findings if finding.name == name), default=0):
            yield f"{name}: {count} in all"
    if result.ended is not None:
        yield f"the connection ends: {result.ended}"
