"""Traces of a Mailguard in mail logs and captures.

Promises: each trace with the line, or the flow, it was found in; files of any size in little memory; what can have
other causes is kept separate; on which side the firewall is, is said if the log shows it. Does not know what is on a
path now.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nfmailguard.errors import CaptureError
from nfmailguard.plain import octets, printable
from nfmailguard.probe import journal
from nfmailguard.probe.signs import CLIENT, FIREWALL, KINDS, MAIL, SERVER, Sign, Speaker, signs, speaker

__all__ = ["CAPTURES", "Trace", "Traces", "as_json", "read", "read_all"]

#: The first bytes of capture files (pcap and pcapng).
CAPTURES = (
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\xc3\xd4",
    b"\x4d\x3c\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x0a\x0d\x0d\x0a",
)
_MOST_PEERS = 10_000  # Most peers that are counted separately.
_SHOWN_PEERS = 20
_MANY = 4
_NEXT_TO_ALL = 0.8
_MOST_DETAILS = 100
_FTP = re.compile(r"^\W{0,3}(?:Command:|ftp>|--->)? ?(?:USER|PASS|PASV|LIST|RETR|STOR) |\b331 |\bFTP\b", re.IGNORECASE)
_SMTP = re.compile(r"\b(?:EHLO|HELO|MAIL FROM|RCPT TO)\b|^\S{0,80} ?250[ -]", re.IGNORECASE)
_GREETING_LINE = re.compile(r"(?<![\w.-])220[ -]")
_EXCHANGE_LOG = re.compile(r"#Log-type: SMTP (Receive|Send) Protocol Log")
_ROLE_OF = {"Receive": SERVER, "Send": CLIENT}


@dataclass(frozen=True)
class Trace:
    """One kind of trace: how often, where first and last, and the text found first.

    ``side``: whose firewall it is, "yours", "theirs" (that of ``peers``), or "unknown". ``peers_with``: how many relays
    or clients show it, of ``peers_seen`` that are in the log. ``details``: what the kind counts separately.
    """

    kind: str
    meaning: str
    count: int
    first: str
    shown: str
    last: str = ""
    sure: bool = True
    side: str = "unknown"
    peers_with: int = 0
    peers_seen: int = 0
    peers: tuple[str, ...] = ()
    details: dict[str, int] = field(default_factory=dict)
    advice: str = ""


@dataclass(frozen=True)
class Traces:
    """The result. ``kind``: "log", "capture" or "mixed"; ``of_mail``: the files have to do with mail."""

    file: str
    kind: str
    of_mail: bool
    traces: tuple[Trace, ...]
    #: True if the lines of the log are events of nfmailguard.
    events: bool = False

    @property
    def exit_code(self) -> int:
        if any(trace.sure for trace in self.traces):
            return 1
        return 0 if self.of_mail and not self.traces else 3


def read(path: Path) -> Traces:
    """The traces in a file. CaptureError for a capture or a log that cannot be read."""
    return read_all([path])


def as_json(found: Traces) -> dict[str, Any]:
    """What ``diagnose --json`` prints: keys are kept in later versions, and new ones may be added."""
    return {**asdict(found), "exit_code": found.exit_code}


def read_all(paths: Sequence[Path]) -> Traces:
    """Reads several files as one, in their order; ``-`` is standard input."""
    log = _Log(several=len(paths) > 1)
    found: list[Trace] = []
    kinds, of_mail = set(), False
    for path in paths:
        capture = _read(path, log)
        kinds.add("capture" if capture else "log")
        if capture:
            of_mail |= capture.of_mail
            found += capture.traces
    of_mail |= log.of_mail
    name = ", ".join(printable(str(path)) for path in paths)
    kind = kinds.pop() if len(kinds) == 1 else "mixed"
    return Traces(name, kind, of_mail, (*log.result(), *found), log.events)


def _read(path: Path, log: _Log) -> Traces | None:
    """The traces of a capture; those of a log go into ``log``."""
    try:
        if str(path) == "-":
            given = journal.opened(io.BufferedReader(sys.stdin.buffer))  # type: ignore[arg-type]
            if journal.plain_head(given).startswith(CAPTURES):
                raise CaptureError("-: a capture in a pipe; write it to a file")
            log.file(path, given)
            return None
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not file.isatty()):
                raise CaptureError(f"{path}: a device, no log")
            # A pipe can be read only once, so its first bytes are examined without consuming them.
            plain = journal.opened(file)
            if not journal.plain_head(plain).startswith(CAPTURES):
                log.file(path, plain)
                return None
            if not stat.S_ISREG(mode):
                raise CaptureError(f"{path}: a capture in a pipe; write it to a file")
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error
    return _capture(path)


class _Kind:
    """What was found of one kind while the files are read."""

    def __init__(self, where: str, shown: str) -> None:
        self.count = 0
        self.first = self.last = where
        self.shown = octets(shown[:200].encode("latin-1", "replace"))
        self.peers: dict[str, dict[str, None]] = {}  # Peers by whose log it is (client, server or firewall).
        self.roles: dict[str, int] = {}
        self.details: dict[str, int] = {}


class _Log:
    """The log files together, line by line."""

    def __init__(self, *, several: bool) -> None:
        self.of_mail = self.events = False
        self._several = several
        self._kinds: dict[str, _Kind] = {}
        self._seen: dict[str, dict[str, None]] = {CLIENT: {}, SERVER: {}}

    def file(self, path: Path, source: io.BufferedReader) -> None:
        reader = _File(self, f"{printable(str(path))} " if self._several else "")
        for number, text in journal.lines(source):
            reader.line(number, text)
        reader.close()

    def peer(self, spoken: Speaker) -> None:
        known = self._seen.get(spoken.role)
        if known is not None and spoken.peer and len(known) < _MOST_PEERS:
            known[spoken.peer] = None

    def add(self, sign: Sign, where: str, spoken: Speaker) -> None:
        one = self._kinds.setdefault(sign.kind, _Kind(where, sign.shown))
        one.count += 1
        one.last = where
        one.roles[spoken.role] = one.roles.get(spoken.role, 0) + 1
        if spoken.peer:
            peers = one.peers.setdefault(spoken.role, {})
            if len(peers) < _MOST_PEERS:
                peers[spoken.peer] = None
        if sign.detail and (sign.detail in one.details or len(one.details) < _MOST_DETAILS):
            one.details[sign.detail] = one.details.get(sign.detail, 0) + 1

    def result(self) -> list[Trace]:
        return [self._trace(name, one) for name, one in self._kinds.items()]

    def _trace(self, name: str, one: _Kind) -> Trace:
        kind = KINDS[name]
        role = max(one.roles, key=lambda role: one.roles[role])
        peers = one.peers.get(role, {})
        seen = len(peers | self._seen.get(role, {})) if role in self._seen else 0
        return Trace(
            name,
            kind.meaning,
            one.count,
            one.first,
            one.shown,
            one.last,
            kind.sure,
            _side(role, len(peers), seen),
            len(peers),
            seen,
            tuple(printable(peer) for peer in list(peers)[:_SHOWN_PEERS]),
            {octets(detail.encode("latin-1", "replace")): count for detail, count in one.details.items()},
            kind.advice,
        )


def _side(role: str, showing: int, seen: int) -> str:
    """Whose side the firewall is on: if all peers show the sign it is on our side, if only some do, on theirs.

    Nearly all of many count as all: a peer between us and the firewall, or a client that left at once, shows nothing.
    """
    if role == FIREWALL:
        return "yours"
    if not showing or seen < 2:
        return "unknown"
    if showing == seen or (showing >= _MANY and showing >= seen * _NEXT_TO_ALL):
        return "yours"
    return "theirs" if showing <= seen / 2 else "unknown"


class _File:
    """One log file. A greeting of stars counts if all its lines are masked, and if the file has no FTP."""

    def __init__(self, log: _Log, prefix: str) -> None:
        self.log = log
        self.prefix = prefix
        self.role = ""
        self.ftp = self.smtp = False
        # A masked greeting of which only the first line has been seen: the sign, its place in the file, and whose log
        # it is; None: none.
        self.begun: tuple[Sign, str, Speaker] | None = None
        self.sessions: dict[str, str] = {}  # The peers of the latest sessions, by the session's name in the log.
        self.starred: list[tuple[Sign, str, Speaker]] = []
        self.more_stars = 0

    def line(self, number: int, text: str) -> None:
        self.log.of_mail = self.log.of_mail or MAIL.search(text) is not None
        self.log.events = self.log.events or text == journal.EVENT
        self.ftp = self.ftp or _FTP.search(text) is not None
        self.smtp = self.smtp or _SMTP.search(text) is not None
        header = _EXCHANGE_LOG.search(text) if text[:1] == "#" else None
        if header:
            self.role = _ROLE_OF[header[1]]
        spoken = speaker(text)
        if not spoken.role and self.role:
            spoken = Speaker(self.role, spoken.peer)
        if spoken.session:
            spoken = self._of_session(spoken)
        self.log.peer(spoken)
        where = f"{self.prefix}line {number}"
        starred = False
        for sign in signs(text):
            if sign.kind == "starred-greeting":
                starred = True
                self._greeting(sign, where, spoken)
            else:
                self.log.add(sign, where, spoken)
        if self.begun is not None and not starred and _GREETING_LINE.search(text):
            self.begun = None  # A later line of the greeting has words, so the stars are the server's own decoration.

    def _of_session(self, spoken: Speaker) -> Speaker:
        """The speaker, with the peer that an earlier line of the same connection named."""
        if not spoken.peer:
            return Speaker(spoken.role, self.sessions.get(spoken.session, ""))
        if len(self.sessions) >= _MOST_PEERS and spoken.session not in self.sessions:
            del self.sessions[next(iter(self.sessions))]
        self.sessions[spoken.session] = spoken.peer
        return spoken

    def _greeting(self, sign: Sign, where: str, spoken: Speaker) -> None:
        if sign.shown.startswith("220-"):
            self.begun = self.begun or (sign, where, spoken)
            return
        self._take(self.begun or (sign, where, spoken))
        self.begun = None

    def _take(self, greeting: tuple[Sign, str, Speaker]) -> None:
        if len(self.starred) < _MOST_PEERS:
            self.starred.append(greeting)
        else:
            self.more_stars += 1

    def close(self) -> None:
        if self.begun is not None:
            self._take(self.begun)
        if self.ftp and not self.smtp:
            return
        for greeting in self.starred:
            self.log.add(*greeting)
        for _ in range(self.more_stars):
            self.log.add(*self.starred[-1])


def _capture(path: Path) -> Traces:
    from nfmailguard import config
    from nfmailguard.engine import Engine
    from nfmailguard.events.records import Record, RecordKind, address_text
    from nfmailguard.policy.model import FINDINGS
    from nfmailguard.queues.capture import CaptureFile

    rules = config.load(None, mode="monitor", profile="rfc821").flow_rules()
    engine = Engine(rules)
    found: dict[str, _Kind] = {}
    dialogues = 0

    def drain() -> None:
        nonlocal dialogues
        while records := engine.drain():
            for record in map(Record.of, records):
                dialogues += record.kind in (RecordKind.COMMAND, RecordKind.REPLY)
                name = FINDINGS[record.finding].name if record.kind == RecordKind.FINDING else ""
                if name in KINDS:
                    ends = (
                        f"{address_text(record.family, record.client)} port {record.client_port} to"
                        f" {address_text(record.family, record.server)}"
                    )
                    one = found.setdefault(name, _Kind(ends, record.before.decode("latin-1")))
                    one.count += 1
                    one.last = ends

    capture = CaptureFile(engine, path, None, drain=drain)
    try:
        capture.open()
        capture.run()
        drain()
    finally:
        capture.close()
    traces = [
        Trace(name, KINDS[name].meaning, one.count, one.first, one.shown, one.last) for name, one in found.items()
    ]
    return Traces(printable(str(path)), "capture", dialogues > 0, tuple(traces))
