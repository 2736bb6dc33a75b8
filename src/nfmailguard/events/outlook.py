"""What enforcing would break, counted from events: sessions by the service they would lose, and by sender.

Promises: a session is counted once in each row, and forgotten with its ``flow`` event; of what peers wrote only the
names of known services, and addresses, are used: no data, no mail addresses, no secrets. Lines that are no event are
counted. Does not know how it is shown.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec

from nfmailguard.errors import ConfigError

__all__ = ["LOST", "Outlook", "Redaction", "Sender", "Senders", "lines_of", "since"]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
#: Longest line of an event file that is read, in bytes; events are much shorter.
LONGEST_LINE = 1 << 20
IPV4_PREFIX, IPV6_PREFIX = 24, 48


class Redaction(StrEnum):
    """How senders are named: by address, by network, or by a keyed hash of the network."""

    NONE = "none"
    PREFIX = "prefix"
    HASH = "hash"


#: ESMTP services that a session may lose, and for each the verb whose denial shows that a client wanted to use it
#: (None: no verb shows it).
SERVICES = {
    "STARTTLS": "STARTTLS",
    "AUTH": "AUTH",
    "8BITMIME": None,
    "CHUNKING": "BDAT",
    "BINARYMIME": None,
    "PIPELINING": None,
    "SIZE": None,
    "DSN": None,
    "SMTPUTF8": None,
    "ETRN": "ETRN",
    "VRFY": "VRFY",
}
EHLO, CUT, ANY, TLS_USED, AUTH_USED = (1 << number for number in range(5))
HIDDEN = {name: 1 << 8 + number for number, name in enumerate(SERVICES)}
USED = {name: 1 << 24 + number for number, name in enumerate(SERVICES)}
VERBS = {verb: USED[name] | HIDDEN[name] for name, verb in SERVICES.items() if verb} | {"EHLO": EHLO}
#: Rows of the report for sessions, and names for what each sender lost.
LOST = ("TLS", "AUTH", "CHUNKING", "cut off")


class _Finding(msgspec.Struct):
    finding: str = ""
    action: str = ""
    verb: str = ""
    keyword: str = ""
    applied: bool = False


class _Mail(msgspec.Struct):
    tls: bool = False
    auth: bool = False


class _Event(msgspec.Struct):
    timestamp: str
    event_type: str
    flow_id: int = 0
    src_ip: str = ""
    mailguard: _Finding | None = None
    smtp: _Mail | None = None


class Sender(msgspec.Struct):
    """Counts of one sender's sessions."""

    sessions: int = 0
    changed: int = 0
    lost: Counter[str] = msgspec.field(default_factory=Counter)


class Outlook:
    """Counts what would be lost. ``read`` takes lines of events, ``finish`` counts open sessions. ``start``: earlier
    events are ignored.
    """

    def __init__(self, senders: Senders, start: datetime | None = None) -> None:
        self.sessions = self.changed = self.applied = self.mails = self.events = self.unreadable = 0
        self.hidden: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        self.no_ehlo = self.cut = 0
        self.findings: Counter[str] = Counter()
        self.senders: dict[str, Sender] = {}
        self.first = self.last = ""
        self._names = senders
        self._start = start
        self._cuts: dict[str, str] = {}
        self._open: dict[int, tuple[str, int]] = {}

    def read(self, lines: Iterable[bytes]) -> None:
        decode = msgspec.json.Decoder(_Event).decode
        for line in lines:
            try:
                event = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.unreadable += line.strip() != b""
                continue
            if event.event_type in ("mailguard", "smtp", "flow") and not self._too_old(event.timestamp):
                self._take(event)

    def finish(self) -> None:
        """Counts the sessions whose end is in no event."""
        for address, flags in self._open.values():
            self._close(address, flags)
        self._open.clear()

    def _too_old(self, timestamp: str) -> bool:
        if self._start is None:
            return False
        # Timestamps with the same UTC offset can be compared as strings.
        offset = timestamp[-5:]
        cut = self._cuts.get(offset)
        if cut is None:
            found = re.fullmatch(r"([+-])(\d\d)(\d\d)", offset)
            zone = timezone(timedelta(hours=int(found[2]), minutes=int(found[3])) * (-1 if found[1] == "-" else 1)) if (
                found and int(found[2]) < 24 and int(found[3]) < 60
            ) else UTC  # fmt: skip
            cut = self._start.astimezone(zone).replace(tzinfo=None).isoformat(timespec="microseconds")
            if len(self._cuts) < 64:
                self._cuts[offset] = cut
        return timestamp[:-5] < cut

    def _take(self, event: _Event) -> None:
        self.events += 1
        self.first = min(self.first or event.timestamp, event.timestamp)
        self.last = max(self.last, event.timestamp)
        if not event.flow_id:  # Flow id 0: the event is about a packet of no connection.
            if event.mailguard is not None:
                self._found(event.mailguard)
            return
        address, flags = self._open.get(event.flow_id, (event.src_ip, 0))
        # The same flow id with another client address: the gateway was restarted and numbers flows from the beginning.
        if address != event.src_ip:
            self._close(address, flags)
            address, flags = event.src_ip, 0
        if event.event_type == "flow":
            self._open.pop(event.flow_id, None)
            self._close(address, flags)
            return
        if event.mailguard is not None:
            flags |= self._found(event.mailguard)
        elif event.smtp is not None:
            self.mails += 1
            flags |= event.smtp.tls * USED["STARTTLS"] | event.smtp.auth * USED["AUTH"]
        self._open[event.flow_id] = address, flags

    def _found(self, finding: _Finding) -> int:
        if finding.finding.startswith(("upstream.", "restore.")) or finding.action == "pass":
            return 0
        self.findings[finding.finding] += 1
        if finding.action == "log":
            return 0
        self.applied += finding.applied
        flags = ANY
        if finding.action in ("reset", "drop-connection"):
            flags |= CUT
        if finding.finding == "command.denied":
            flags |= VERBS.get(finding.verb, 0)
        elif finding.finding == "reply.keyword_masked":
            flags |= HIDDEN.get(finding.keyword.partition("=")[0].upper(), 0)
        return flags

    def _close(self, address: str, flags: int) -> None:
        name = self._names.name(address)
        sender = self.senders.get(name)
        if sender is None:
            sender = self.senders[name] = Sender()
        self.sessions += 1
        sender.sessions += 1
        if not flags & ANY:
            return
        self.changed += 1
        sender.changed += 1
        self.no_ehlo += bool(flags & EHLO)
        for service in SERVICES:
            # A client whose EHLO is denied is offered no ESMTP service at all.
            if flags & (HIDDEN[service] | EHLO):
                self.hidden[service] += bool(flags & HIDDEN[service])
                if flags & USED[service]:
                    self.used[service] += 1
                    sender.lost["TLS" if service == "STARTTLS" else service] += 1
        if flags & CUT:
            self.cut += 1
            sender.lost["cut off"] += 1


class Senders:
    """Names of senders. ``key``: key of the hash; the same key gives the same names in every report."""

    def __init__(self, redaction: Redaction, key: bytes = b"") -> None:
        self._redaction = redaction
        self._key = key
        self.name = lru_cache(1 << 16)(self._name)

    def _name(self, text: str) -> str:
        try:
            address = ip_address(text)
        except ValueError:
            return "unknown"
        if self._redaction is Redaction.NONE:
            return str(address)
        prefix = IPV4_PREFIX if address.version == 4 else IPV6_PREFIX
        where = str(ip_network((address, prefix), strict=False))
        if self._redaction is Redaction.PREFIX:
            return where
        return "net-" + hmac.digest(self._key, where.encode(), hashlib.sha256)[:8].hex()


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file of events, also of one that logrotate has compressed. Raises ConfigError."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                yield line
    except (OSError, ValueError) as error:  # ValueError: the path contains a NUL character.
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    except (EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: the compressed data is damaged ({error})") from error


def since(text: str, now: datetime) -> datetime:
    """The time meant by ``7d``, ``12h``, or a time as in ISO 8601. Raises ConfigError."""
    try:
        if found := re.fullmatch(r"([0-9]{1,6})([smhdw])", text):
            when = now - timedelta(seconds=int(found[1]) * UNITS[found[2]])
        else:
            when = _time(text)
        for margin in (timedelta(days=-1), timedelta(days=1)):
            # Fails if the date is too close to the calendar's end: events may have any UTC offset, so a day's margin
            # must exist.
            when.astimezone(UTC) + margin
    except (OverflowError, ValueError):  # ValueError: the system's local time conversion refuses the date.
        raise ConfigError(f"--since {text}: there are no such dates; write all for all events") from None
    return when


def _time(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--since {text}: write 7d, 12h, 30m, or a time: 2026-11-22 or 2026-11-22T08:00") from None
    return when if when.tzinfo else when.astimezone()
