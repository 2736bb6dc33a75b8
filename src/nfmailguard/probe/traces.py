"""Traces of a Mailguard in what has been written down: mail logs and captures.

Promises: each trace with the line, or the flow, it was found in; a file of any size in little
memory. Logs of Postfix, Exim and sendmail have the words below. Does not know what is on a path now.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nfmailguard.errors import CaptureError
from nfmailguard.plain import octets, printable

__all__ = ["Trace", "Traces", "read"]

_CAPTURES = (
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\xc3\xd4",
    b"\x4d\x3c\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x0a\x0d\x0d\x0a",
    b"\x1f\x8b",
)
_LONGEST = 8192  # octets of a line that are looked at
_REFUSAL = re.compile(
    r"unrecogni[sz]ed|unknown|invalid|not (?:recogni[sz]ed|implemented)|syntax error|command", re.IGNORECASE
)
_MASKED = re.compile(r"\b(?:X{4,}|x{4,})\b")
_GIVEN_UP = re.compile(r"timeout|lost connection|timed out", re.IGNORECASE)
_END = re.compile(r"end of data|end-of-message|after DATA\b", re.IGNORECASE)
_WORKAROUND = re.compile(r"enabling PIX (?:<CRLF>\.<CRLF>|workarounds)")
_FOR = re.compile(r" for \S+")
_STARS = re.compile(r"[*20 ]{4,}")
_GREETING = re.compile(r"\b220")
_KEYWORD = re.compile(r"\b250[- ]X{2,}[A-Z]\b")


def _then(first: re.Pattern[str], second: re.Pattern[str], text: str) -> str | None:
    """From the first match of one to the next of the other; a line is read once, however often either begins."""
    begun = first.search(text)
    ended = second.search(text, begun.end()) if begun else None
    return text[begun.start() : ended.end()] if begun and ended else None


def _masked_command(text: str) -> str | None:
    """X's and a refusal, in either order."""
    masked, refused = _MASKED.search(text), _REFUSAL.search(text)
    if masked is None or refused is None:
        return None
    return text[min(masked.start(), refused.start()) : max(masked.end(), refused.end())]


def _starred(text: str) -> str | None:
    """A 220 and stars, with nothing behind it but what masks leave."""
    for run in _STARS.finditer(text):
        stars = text.find("****", run.start(), run.end())
        if stars < 0:
            continue
        if text[max(0, run.start() - 4) : run.start()] == "220-" and not text[: run.start() - 4][-1:].isalnum():
            return text[run.start() - 4 : run.end()]
        greeting = _GREETING.search(text, run.start(), stars)
        if greeting:
            return text[greeting.start() : run.end()]
    return None


def _keyword(text: str) -> str | None:
    found = _KEYWORD.search(text)
    return found[0] if found else None


#: What a log says where a Mailguard has been at work, and what that means. All in time linear in the line.
_SIGNS: tuple[tuple[str, Callable[[str], str | None], str], ...] = (
    (
        "postfix-workaround",
        lambda text: _then(_WORKAROUND, _FOR, text),
        "Postfix took the server's greeting for a PIX's",
    ),
    ("starred-greeting", _starred, "a greeting of stars"),
    ("masked-command", _masked_command, "a server was sent X's for a command"),
    ("masked-keyword", _keyword, "a line of an EHLO reply is masked"),
    (
        "cut-end-of-data",
        lambda text: _then(_GIVEN_UP, _END, text),
        "the end of a message was not answered; a PIX before 5.1 loses one cut between packets",
    ),
)
#: Findings of a capture and what they mean.
_FINDINGS = {
    "upstream.banner_masked": "a greeting was masked before it reached the capture",
    "upstream.command_masked": "a command was masked before it reached the capture",
    "upstream.keyword_masked": "a line of an EHLO reply was masked before it reached the capture",
}
_MAIL = re.compile(r"postfix|exim|sendmail|sm-mta|smtpd?\b|<= |=> |stat=|status=", re.IGNORECASE)


@dataclass(frozen=True)
class Trace:
    """One kind: how often, where first, and what stood there."""

    kind: str
    meaning: str
    count: int
    first: str
    shown: str


@dataclass(frozen=True)
class Traces:
    """``sure`` is false where every trace has other explanations, too; ``of_mail``: the file has to do with mail."""

    file: str
    kind: str
    of_mail: bool
    traces: tuple[Trace, ...]

    @property
    def exit_code(self) -> int:
        if any(trace.kind != "cut-end-of-data" for trace in self.traces):
            return 1
        return 0 if self.of_mail and not self.traces else 3


def read(path: Path) -> Traces:
    """CaptureError for a capture or a log that cannot be read."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not file.isatty()):
                raise CaptureError(f"{path}: a device, no log")
            # A pipe is read once: what it begins with is looked at, and left where it is.
            head = file.peek(4)[:4]
            if not head.startswith(_CAPTURES):
                return _log(path, file)
            if not stat.S_ISREG(mode):
                raise CaptureError(f"{path}: a capture in a pipe; write it to a file")
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error
    return _capture(path)


def _log(path: Path, file: BinaryIO) -> Traces:
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, str, str]] = {}
    of_mail = False
    number, begins = 1, True
    while line := file.readline(_LONGEST):
        if begins:  # no program's line is longer
            text = line.decode("latin-1").rstrip("\n")
            of_mail = of_mail or bool(_MAIL.search(text))
            for kind in _kinds(text, number, first):
                counts[kind] += 1
        begins = line.endswith(b"\n")
        number += begins
    found = [Trace(kind, first[kind][0], counts[kind], *first[kind][1:]) for kind in first]
    return Traces(printable(str(path)), "log", of_mail, tuple(found))


def _kinds(text: str, number: int, first: dict[str, tuple[str, str, str]]) -> set[str]:
    kinds = set()
    for kind, look, meaning in _SIGNS:
        sign = look(text)
        if sign:
            kinds.add(kind)
            shown = octets(sign[:120].encode("latin-1"))
            first.setdefault(kind, (meaning, f"line {number}", shown))
    return kinds


def _capture(path: Path) -> Traces:
    from nfmailguard import config
    from nfmailguard.engine import Engine
    from nfmailguard.events.records import Record, RecordKind, address_text
    from nfmailguard.policy.model import FINDINGS
    from nfmailguard.queues.capture import CaptureFile

    rules = config.load(None, mode="monitor", profile="rfc821").flow_rules()
    engine = Engine(rules)
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, str]] = {}
    dialogues = 0

    def drain() -> None:
        nonlocal dialogues
        while records := engine.drain():
            for record in map(Record.of, records):
                dialogues += record.kind in (RecordKind.COMMAND, RecordKind.REPLY)
                name = FINDINGS[record.finding].name if record.kind == RecordKind.FINDING else ""
                if name in _FINDINGS:
                    counts[name] += 1
                    ends = (
                        f"{address_text(record.family, record.client)} port {record.client_port} to"
                        f" {address_text(record.family, record.server)}"
                    )
                    first.setdefault(name, (ends, octets(record.before[:120])))

    capture = CaptureFile(engine, path, None, drain=drain)
    try:
        capture.open()
        capture.run()
        drain()
    finally:
        capture.close()
    found = [Trace(name, _FINDINGS[name], counts[name], *where) for name, where in first.items()]
    return Traces(printable(str(path)), "capture", dialogues > 0, tuple(found))
