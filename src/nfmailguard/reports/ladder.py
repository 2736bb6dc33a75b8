"""Dialogues on a terminal: client on the left, server on the right, findings in the margin.

Promises: what was changed is underlined and its line marked in the gutter, so that it shows without colour; a peer's
text is always escaped. Does not decide anything.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nfmailguard.plain import printable
from nfmailguard.transcripts.model import Dialogue, Line, Note, Part, parts

__all__ = ["LEGEND", "headline", "mark", "note_text", "render", "table"]

#: Terminal width from which on findings are shown in a column of their own; in a narrower one they are shown below
#: their line.
MARGIN_FROM = 110
CHANGED = {True: "bold underline red", False: "bold underline yellow"}
LEGEND = "≠ changed on the way (underlined), ✕ not delivered, ! reported only"


def mark(line: Line) -> str:
    """One character that says what became of a line."""
    if line.what or line.one_sided or not line.changed:
        return "!" if line.notes else " "
    return "✕" if line.seen is None else "≠"


def note_text(note: Note) -> str:
    """A finding in words: name, action, why, source."""
    action = note.action if note.applied or note.action == "log" else f"would {note.action}"
    doubt = "; follows an earlier change, so it might not have happened" if note.hypothetical else ""
    source = f" [{note.source}]" if note.source else ""
    return printable(f"{note.finding}: {action}; {note.reason}{source}{doubt}")


def headline(one: Dialogue) -> str:
    changes = f"{one.changes} lines changed" if one.changes != 1 else "1 line changed"
    ends = f"{one.client} to {one.server}" if one.client != "client" else ""
    return printable(", ".join(filter(None, (one.title, ends, changes, one.ended))))


def _text(pieces: Sequence[Part], style: str, plain: str = "") -> Text:
    text = Text(overflow="fold", style=plain)
    for piece in pieces:
        # A changed part that consists of spaces is shown in reverse video, because spaces show no text colour.
        blanked = " reverse" if piece.changed and not piece.text.strip() else ""
        text.append(printable(piece.text), style=style + blanked if piece.changed else "")
    return text


def _sides(line: Line) -> tuple[Text, Text]:
    """The client's and the server's cell of a line."""
    if line.what:
        said = Text(printable(line.what), style="italic")
        return (said, Text()) if line.to_server else (Text(), said)
    sent, seen = parts(line)
    style = CHANGED[line.to_server]
    left = Text("".join(printable(piece.text) for piece in sent), overflow="fold")
    if line.one_sided:
        right = Text("?", style="dim")
    elif line.seen is None:
        right = Text("(not delivered)", style=style)
    else:
        right = _text(sent if seen is None else seen, style, "" if line.changed else "dim")
    return (left, right) if line.to_server else (right, left)


def table(one: Dialogue, width: int) -> Table:
    """The table of one dialogue."""
    margin = width >= MARGIN_FROM and any(line.notes for line in one.lines)
    timed = one.lines[0].time if one.lines else None
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=margin)
    if timed is not None:
        made.add_column("seconds", justify="right", style="dim", no_wrap=True)
    made.add_column("", width=1, no_wrap=True)
    made.add_column("client", overflow="fold", ratio=2 if margin else None)
    made.add_column("", width=1, no_wrap=True)
    made.add_column("server", overflow="fold", ratio=2 if margin else None)
    if margin:
        made.add_column("findings", overflow="fold", ratio=2)
    for line in one.lines:
        client, server = _sides(line)
        cells = [Text(mark(line), style="bold"), client, Text("→" if line.to_server else "←", style="dim"), server]
        if timed is not None:
            cells.insert(0, Text("" if line.time is None else f"{(line.time - timed) / 1e9:.3f}"))
        notes = Text("\n".join(map(note_text, line.notes)), style="dim")
        if margin:
            cells.append(notes)
        made.add_row(*cells)
        if line.notes and not margin:
            client_place = 2 if timed is not None else 1
            below = [Text()] * len(cells)
            below[client_place if line.to_server else -1] = notes
            made.add_row(*below)
    return made


def render(dialogues: Sequence[Dialogue], console: Console) -> None:
    """Prints all dialogues, each with a heading."""
    for one in dialogues:
        begun = next((line.time for line in one.lines if line.time is not None), None)
        when = time.strftime(" %Y-%m-%d %H:%M:%S", time.localtime(begun / 1e9)) if begun is not None else ""
        console.print(Text(headline(one) + when, style="bold"), soft_wrap=True)
        console.print(table(one, console.width))
    if any(line.changed or line.notes for one in dialogues for line in one.lines):
        console.print(Text(LEGEND, style="dim"))
