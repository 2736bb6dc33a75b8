"""Commands of documents, and what a page says that they print: ``console`` blocks with ``$`` lines.

A line ``...`` stands for any lines, ``...`` in a line for any text; a command goes on in lines that begin with ``> ``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Step", "blocks", "commands", "differs", "steps"]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Step(NamedTuple):
    """A command, and the lines that the page says it prints."""

    command: str
    lines: tuple[str, ...]


def blocks(text: str, kind: str) -> Iterator[str]:
    for found in _BLOCK.finditer(text):
        if found[1] == kind:
            yield found[2]


def steps(text: str) -> Iterator[Step]:
    """In the order of the page."""
    for block in blocks(text, "console"):
        command, lines = "", list[str]()
        for line in block.splitlines():
            if line.startswith("$ "):
                if command:
                    yield Step(command, tuple(lines))
                command, lines = line[2:], []
            elif line.startswith("> ") and not lines:
                command += "\n" + line[2:]
            else:
                lines.append(line)
        yield Step(command, tuple(lines))


def commands(path: Path) -> Iterator[str]:
    """Every line of a page's other blocks that calls the program, without its comment."""
    for block in (*blocks(path.read_text(), ""), *blocks(path.read_text(), "sh")):
        for line in block.splitlines():
            for part in re.split(r" ?\| |&& ", line.partition("  #")[0]):
                if part.startswith("nfmailguard "):
                    yield part.partition(" > ")[0].strip()


def differs(expected: tuple[str, ...], printed: str) -> str:
    """Why what was printed is not what the page says; empty where it is."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line.rstrip()).replace(r"\.\.\.", ".*") + r"[ ]*\n"
        for line in expected
    )
    text = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    if re.fullmatch(pattern, text):
        return ""
    return f"the page says:\n{chr(10).join(expected)}\nit prints:\n{text}"
