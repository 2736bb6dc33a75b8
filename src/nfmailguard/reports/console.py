"""A console that lets nothing but printable text, and what rich itself makes of it, reach the terminal.

Promises: whatever stands in a table, a text or a message, no control character of it is
printed or recorded. Does not know what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.console
from rich.segment import Segment

from nfmailguard.plain import block

__all__ = ["Console"]


class Console(rich.console.Console):
    """As rich's; its own control codes (colour, a line that changes) are made from segments later."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else block(text), style, control)
