"""Dialogues of a real firewall as they are given: captures of both sides or one, or written transcripts.

Promises: a file that is neither raises ConfigError or CaptureError, with file and line. A transcript has both sides if
it has lines with ``C>`` or ``S>`` (what arrived, as ``translate`` prints them), else one. Does not judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nfmailguard.errors import ConfigError
from nfmailguard.plain import printable
from nfmailguard.reading import text_of
from nfmailguard.transcripts.files import is_capture
from nfmailguard.transcripts.model import Dialogue, Line
from nfmailguard.transcripts.recorded import dialogues

__all__ = ["read", "written"]

_LINE = re.compile(r"\s*(?P<side>[CScs])(?P<how>[:>|]) ?(?P<text>.*?)\r?")
_ESCAPED = re.compile(r"\\x([0-9A-Fa-f]{2})")
_LOST = "(not delivered)"


def _bytes(text: str) -> bytes:
    raw = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if text.isascii() else text
    said = raw.encode("latin-1" if text.isascii() else "utf-8")
    return said if said.endswith(b"\n") else said + b"\r\n"


def written(text: str, where: str) -> Dialogue:
    """A transcript: ``C: `` and ``S: `` lines as they were sent, followed by ``C> `` and ``S> ``
    lines as they arrived.
    """
    lines, both = list[Line](), False
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            how = 'a line begins with "C: " or "S: ", with "C> " or "S> " for what arrived'
            raise ConfigError(f"{where}:{number}: {line.strip()[:40]!r}; {how}")
        to_server, said = found["side"] in "Cc", _bytes(found["text"])
        if found["how"] != ">":
            lines.append(Line(to_server, said, said, len(lines), []))
            continue
        both = True
        if not lines or lines[-1].to_server is not to_server:
            raise ConfigError(f"{where}:{number}: what arrived stands behind the line that was sent")
        lines[-1].seen = None if found["text"].strip() == _LOST else said
    if not lines:
        raise ConfigError(f"{where}: no line of a dialogue in it")
    at = {True: 0, False: 0}
    for one in lines:
        one.one_sided, one.offset = not both, at[one.to_server]
        at[one.to_server] += len(one.sent)
    return Dialogue(printable(where), "client", "server", lines)


def read(paths: Sequence[Path], ports: Sequence[int], *, sides: bool) -> list[Dialogue]:
    """The dialogues of files: one or two captures, or transcripts."""
    captures = [is_capture(path) for path in paths]
    if not any(captures):
        return [written(text_of(path), str(path)) for path in paths]
    if not all(captures) or len(paths) > 2:
        raise ConfigError("name transcripts, or one capture, or two of the same connections")
    found, _ = dialogues(paths[0], paths[1] if len(paths) == 2 else None, ports=ports, sides=sides)
    return found
