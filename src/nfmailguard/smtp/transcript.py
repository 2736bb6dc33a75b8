"""Dialogues as people write them: "C: ..." and "S: ..." lines in, what each side sees out.

Promises: what cannot be read raises ConfigError with file and line. Does not decide
anything: ``smtp.reference`` does.

    # a comment
    S: 220 mail.example.com ESMTP       a packet that ends in CRLF
    C: MAIL FROM:<a@example.net>
    C| RCPT TO:<b@example.com>          goes on in the packet of the line before
    C: EH\\c                             \\c: cut here, no CRLF
    C: LO me\\r\\n                        \\r \\n \\0 \\t \\\\ \\xNN; after \\r\\n no CRLF is added
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from nfmailguard.errors import ConfigError
from nfmailguard.plain import octets
from nfmailguard.policy.model import Policy, Restore
from nfmailguard.smtp.reference import translate
from nfmailguard.smtp.turns import Result, Turn

__all__ = ["MOST_TEXT", "Row", "as_json", "parse", "rows"]

#: Most characters a transcript file may have.
MOST_TEXT = 1 << 18
_LONGEST_PACKET = 65_495  # Largest TCP payload of an IPv4 packet with headers of minimal length.
_LINE = re.compile(r"(?P<side>[CScs])(?P<how>[:|]) ?(?P<text>.*)")
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)|\\$")
_PLAIN = {"r": "\r", "n": "\n", "0": "\0", "t": "\t", "\\": "\\"}


def parse(text: str, where: str = "transcript") -> list[Turn]:
    """The turns of a transcript. ``where`` is its name in error messages."""
    if len(text) > MOST_TEXT:
        raise ConfigError(f"{where}: longer than {MOST_TEXT} characters; a dialogue of people's is short")
    turns: list[Turn] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip("\r\n"))
        if match is None:
            raise ConfigError(f'{where}:{number}: {line.strip()[:40]!r}; a line begins with "C: " or "S: "')
        to_server = match["side"] in "Cc"
        said = _octets(match["text"], f"{where}:{number}")
        going_on = match["how"] == "|" and turns
        if len(said) + (len(turns[-1].data) if going_on else 0) > _LONGEST_PACKET:
            raise ConfigError(f"{where}:{number}: no packet has more than {_LONGEST_PACKET} octets; cut it with \\c")
        if match["how"] == ":":
            turns.append(Turn(to_server, said))
        elif turns and turns[-1].to_server is to_server:
            turns[-1] = Turn(to_server, turns[-1].data + said)
        else:
            raise ConfigError(f"{where}:{number}: {match['side']}| goes on where no packet of that side is")
    return turns


def _octets(text: str, where: str) -> bytes:
    cut = text.endswith("\\c") and not text.endswith("\\\\c")
    whole = text.removesuffix("\\c") if cut else text

    def plain(match: re.Match[str]) -> str:
        escape = match[1] or ""
        if escape.startswith("x") and len(escape) == 3:
            return chr(int(escape[1:], 16))
        if escape not in _PLAIN:
            raise ConfigError(f"{where}: \\{escape} is no escape; \\r \\n \\0 \\t \\\\ \\xNN, and \\c at the end")
        return _PLAIN[escape]

    said = _ESCAPE.sub(plain, whole).encode("utf-8" if not whole.isascii() else "latin-1")
    return said if cut or said.endswith(b"\n") else said + b"\r\n"


class Row:
    """One line of the dialogue: what was sent, and what arrived."""

    def __init__(self, to_server: bool, sent: bytes, seen: bytes | None) -> None:
        self.to_server = to_server
        self.sent = sent
        #: Bytes of the line as the other side received them; None: the line never arrived.
        self.seen = seen

    @property
    def changed(self) -> bool:
        return self.sent != self.seen


def rows(turns: Sequence[Turn], result: Result) -> Iterator[Row]:
    """The dialogue line by line, each as sent and as received."""
    for turn, out in zip(turns, result.turns, strict=True):
        at = 0
        for line in turn.data.splitlines(keepends=True) if b"\n" in turn.data else [turn.data]:
            seen = out.data[at : at + len(line)] if out.data else None
            yield Row(turn.to_server, line, seen)
            at += len(line)


def shown(line: bytes | None) -> str:
    """Bytes as text; a CRLF at the end is not shown, anything else unprintable is escaped."""
    return "(not delivered)" if line is None else octets(line.removesuffix(b"\r\n"))


def as_json(policy: Policy, turns: Sequence[Turn], *, apply: bool, restore: Restore | None = None) -> dict[str, Any]:
    """What ``nfmailguard translate --json`` prints."""
    result = translate(policy, turns, apply=apply, restore=restore)
    return {
        "profile": policy.name,
        "applied": apply,
        "ended": None if result.ended is None else str(result.ended),
        "lines": [
            {
                "from": "client" if row.to_server else "server",
                "sent": shown(row.sent),
                "seen": None if row.seen is None else shown(row.seen),
                "changed": row.changed,
            }
            for row in rows(turns, result)
        ],
        "findings": [
            {
                "finding": finding.name,
                "action": str(finding.action),
                "direction": "to_server" if finding.to_server else "to_client",
                "verb": finding.verb,
                "state": finding.state,
                "offset": finding.offset,
                "hypothetical": finding.hypothetical,
                "count": finding.number,
            }
            for finding in result.findings
        ],
        "counts": dict(result.counts),
    }
