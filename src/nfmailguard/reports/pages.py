"""Dialogues as one self-contained HTML page: both sides, findings in the margin, search.

Promises: the page loads no other file; a peer's text is in the page as text only: the data is JSON without any ``<`` or
``&``, and the page's script only ever writes text. Does not count.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nfmailguard.errors import ConfigError
from nfmailguard.plain import json_safe, printable
from nfmailguard.reports.ladder import mark
from nfmailguard.transcripts.model import Dialogue, Line, Note, Part, parts

__all__ = ["Facts", "named", "page", "tables", "write"]


class Facts(NamedTuple):
    """A table above the dialogues."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def _asset(name: str) -> str:
    text: str = resources.files("nfmailguard.reports").joinpath("page", name).read_text("utf-8")
    return text


def _pieces(pieces: Sequence[Part]) -> str | list[str]:
    """Alternating texts: unchanged, changed, unchanged ..."""
    if not any(piece.changed for piece in pieces):
        return "".join(printable(piece.text) for piece in pieces)
    out, changed = [""], False
    for piece in pieces:
        if piece.changed is not changed:
            out.append("")
            changed = piece.changed
        out[-1] += printable(piece.text)
    return out


class _Data:
    """The data for the page's script; equal notes are stored once."""

    def __init__(self) -> None:
        self._notes: dict[Note, int] = {}

    def _line(self, line: Line, began: int | None) -> list[Any]:
        sent, seen = parts(line)
        time_of = None if line.time is None or began is None else round((line.time - began) / 1e6)
        notes = [self._notes.setdefault(note, len(self._notes)) for note in line.notes]
        got: Any = 0  # Code 0 for the page: the line arrived as it was sent.
        if line.what:
            sent, got = [Part(line.what, False)], 2  # Code 2: an event, not a line of the dialogue.
        elif line.one_sided:
            got = 3  # Code 3: whether the line arrived is not known.
        elif line.seen is None:
            sent, got = [Part(piece.text, False) for piece in sent], 1  # Code 1: the line was not delivered.
        elif seen is not None:
            got = _pieces(seen)
        return [int(line.to_server), time_of, _pieces(sent), got, notes]

    def of(self, dialogues: Sequence[Dialogue]) -> dict[str, Any]:
        made = []
        for one in dialogues:
            began = next((line.time for line in one.lines if line.time is not None), None)
            when = "" if began is None else time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(began / 1e9))
            ends = "" if one.client == "client" else f"{one.client} → {one.server}"
            made.append(
                {
                    "title": printable(one.title),
                    "ends": printable(ends),
                    "when": when,
                    "ended": printable(one.ended),
                    "changes": one.changes,
                    "marked": sum(mark(line) != " " for line in one.lines),
                    "lines": [self._line(line, began) for line in one.lines],
                }
            )
        notes = [
            [printable(text) for text in (note.finding, note.action, note.reason, note.source)]
            + [int(note.applied), int(note.hypothetical)]
            for note in self._notes
        ]
        return {"dialogues": made, "notes": notes}


def _facts(facts: Facts) -> str:
    heads = "".join(f"<th scope=col>{escape(printable(head))}</th>" for head in facts.heads)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(printable(cell))}</td>" for cell in row) + "</tr>" for row in facts.rows
    )
    return (
        f"<section class=facts tabindex=0 aria-label='{escape(printable(facts.title))}'><table><caption>"
        f"{escape(printable(facts.title))}</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def page(title: str, dialogues: Sequence[Dialogue], *, lead: str = "", facts: Sequence[Facts] = ()) -> str:
    """The page as HTML. ``lead``: a sentence about what happened, above everything."""
    data = json_safe(msgspec.json.encode(_Data().of(dialogues))).decode()
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    style, script = _asset("ladder.css"), _asset("ladder.js")
    # A content security policy: even if a peer's text were taken for markup, the browser would run and load nothing of
    # it.
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    body = _asset("ladder.html")
    for name, text in (
        ("policy", escape(policy, quote=True)), ("title", escape(printable(title))), ("lead", escape(printable(lead))),
        ("facts", "".join(map(_facts, facts))), ("style", style), ("script", script), ("data", data),
    ):  # fmt: skip
        body = body.replace(f"<!--{name}-->", text)
    return body


def tables(title: str, lead: str, facts: Sequence[Facts]) -> str:
    """A page that has only tables, in the same style; it has no script."""
    style = _asset("ladder.css")
    policy = f"default-src 'none'; style-src '{_digest(style)}'"
    body = _asset("tables.html")
    for name, text in (
        ("policy", escape(policy, quote=True)), ("title", escape(printable(title))), ("lead", escape(printable(lead))),
        ("facts", "".join(map(_facts, facts))), ("style", style),
    ):  # fmt: skip
        body = body.replace(f"<!--{name}-->", text)
    return body


def named(path: Path | None) -> Path | None:
    """The same path; ConfigError if its suffix is not that of a page."""
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--report {path}: a page is HTML; name it FILE.html")
    return path


def write(path: Path, text: str) -> None:
    """Writes a page, readable by its owner alone: it holds mail. Raises ConfigError when that fails."""
    named(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--report {path}: {getattr(error, 'strerror', None) or error}") from error
