"""Dialogues from an event log (EVE): what was found in each connection, line by line, and its mails.

Promises: nothing is invented that an event does not contain: of a line only the beginning that the event has. Lines
that are no events are counted. Memory is bounded by ``MOST_EVENTS``. Does not know running gateways.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from nfmailguard.plain import printable
from nfmailguard.policy.load import profile_names
from nfmailguard.transcripts.model import Dialogue, Line
from nfmailguard.transcripts.reasons import note
from nfmailguard.transcripts.translated import about

__all__ = ["MOST_EVENTS", "Log"]

MOST_EVENTS = 500_000
_LATEST = 2**32 * 10**9  # Latest time in nanoseconds since 1970 that a capture file can hold.


class Log:
    """Takes lines of ``log.eve`` in their order; ``dialogues`` are by connection, in the order they began."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._shipped = frozenset(profile_names())
        self.left_out = 0
        self._taken = 0
        self._of: dict[object, Dialogue] = {}
        self._last: dict[object, tuple[object, ...]] = {}

    @property
    def dialogues(self) -> list[Dialogue]:
        return list(self._of.values())

    def read(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            try:
                event = msgspec.json.decode(line)
                kind = event["event_type"]
                if kind in ("mailguard", "smtp", "flow"):
                    self.take(kind, event)
            except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
                self.unreadable += bool(line.strip())

    def take(self, kind: str, event: dict[str, Any]) -> None:
        """Takes one event. Raises KeyError, TypeError, ValueError, AttributeError or OverflowError if it is invalid."""
        body = event[kind]
        # Flow numbers start anew each time a gateway starts, so addresses and ports are part of the key.
        flow = tuple(str(event[name]) for name in ("flow_id", "src_ip", "src_port", "dest_ip", "dest_port"))
        when = int(datetime.fromisoformat(event["timestamp"]).timestamp() * 10**6) * 1000
        if not 0 <= when < _LATEST:
            raise ValueError
        if self._taken >= MOST_EVENTS:
            self.left_out += 1
            return
        self._taken += 1
        one = self._of.get(flow)
        if one is None:
            client, server = (printable(f"{event[f'{end}_ip']} port {event[f'{end}_port']}") for end in ("src", "dest"))
            one = self._of[flow] = Dialogue("", client, server, [])
        if kind == "mailguard":
            one.title = one.title or printable(f"{body['mode']} {body['profile']}")
            self._finding(flow, one, body, when, event["direction"] == "to_server")
        elif kind == "smtp":
            one.lines.append(Line(True, b"", b"", when, [], _mail(body)))
        elif body["reason"] == "forced":
            one.ended = "the connection was ended by the gateway"

    def _finding(self, flow: object, one: Dialogue, body: dict[str, Any], when: int, to_server: bool) -> None:
        before = str(body.get("before", "")).encode("ascii", "backslashreplace")
        after = str(body.get("after", "")).encode("ascii", "backslashreplace")
        name, action, applied = str(body["finding"]), str(body["action"]), bool(body["applied"])
        what = about(name, str(body.get("verb", "")), before) or str(body.get("keyword", ""))
        profile = str(body["profile"])
        # Only names of built-in profiles are used: an event log must not make the program read a file.
        shipped = profile if profile in self._shipped else ""
        told = note(name, action, shipped, what=what, applied=applied, doubt=bool(body.get("hypothetical")))
        place = (to_server, body.get("offset"), before)
        if body.get("repeated"):
            one.lines.append(Line(to_server, b"", b"", when, [told], f"{body['count']:,} of these in all"))
        elif self._last.get(flow) == place:
            line = one.lines[-1]
            line.notes.append(told)
            line.seen = after if applied and after else line.seen
        else:
            seen: bytes | None = after or before
            if applied and action in ("drop", "drop-connection", "reset"):
                seen = None
            one.lines.append(Line(to_server, before, seen if applied else before, when, [told]))
        self._last[flow] = () if body.get("repeated") else place


def _mail(body: dict[str, Any]) -> str:
    to = ", ".join(map(str, body.get("rcpt_to", ()))) or "nobody"
    end = body.get("reply") or ("no answer" if not body.get("complete") else "")
    under = " in TLS" if body.get("tls") else ""
    size = f", {body['bytes']:,} bytes" if "bytes" in body else ""
    return printable(f"mail{under} from {body.get('mail_from') or '<>'} to {to}{size}: {end}", 400)
