"""A console that lets nothing but printable text, and what rich itself makes of it, reach the terminal.

Promises: whatever stands in a table, a text or a message, no control character of it is
printed or recorded. Does not know what is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rich.console
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.segment import Segment
from rich.terminal_theme import TerminalTheme

from nfmailguard.errors import ConfigError
from nfmailguard.plain import block

__all__ = ["RECORDS", "Console", "recordable", "save"]

#: File name suffixes that say in which format a screen is recorded.
RECORDS = (".svg", ".html", ".txt")


class Console(rich.console.Console):
    """rich's console with all text escaped; rich's own control codes (colour, an updated line) are added later from
    segments.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else block(text), style, control)


#: A colour theme in which each colour has a contrast of at least 4.5:1 with the background (WCAG 2.1, 1.4.3).
_LIGHT = TerminalTheme(
    (255, 255, 255),
    (23, 33, 43),
    [
        (23, 33, 43),
        (163, 18, 43),
        (11, 107, 58),
        (122, 74, 0),
        (11, 87, 208),
        (122, 33, 130),
        (0, 98, 110),
        (86, 98, 110),
    ],
)
_DARK = TerminalTheme(
    (18, 23, 29),
    (226, 232, 238),
    [(18, 23, 29), (255, 138, 152), (127, 214, 164), (255, 198, 107), (138, 180, 248), (224, 160, 232), (120, 210, 222),
     (226, 232, 238)],
)  # fmt: skip
_FONTS = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)


def recordable(path: Path | None) -> Path | None:
    """The same path; ConfigError where its suffix names a form that is not written."""
    if path is not None and path.suffix.lower() not in RECORDS:
        kind = path.suffix or "a file without a suffix"
        raise ConfigError(f"--record {path}: cannot write {kind}; name it .svg, .html or .txt")
    return path


def save(console: rich.console.Console, path: Path, title: str) -> None:
    """What a recording console has shown, as SVG, HTML or text. Raises ConfigError when it cannot be written.

    The SVG asks no other machine for a font.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".svg":
            form = _FONTS.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code", "DejaVu Sans Mono")
            console.save_svg(str(path), title=title, theme=_DARK, code_format=form)
        elif suffix == ".html":
            console.save_html(str(path), theme=_LIGHT)
        else:
            console.save_text(str(path))
    except OSError as error:
        raise ConfigError(f"--record {path}: {error.strerror}") from error
