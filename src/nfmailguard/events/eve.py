"""Events as JSON lines in Suricata's EVE envelope.

Promises: one line per event, fields as docs/events.md lists them; no data of a peer can raise an error. Does not know
where the lines go.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from nfmailguard.engine import ACTIONS
from nfmailguard.events.addresses import text
from nfmailguard.events.alerts import alert
from nfmailguard.events.allowance import Allowance, source_of
from nfmailguard.events.records import FlowEnd, Record, RecordKind, address_text
from nfmailguard.events.sinks import Sink
from nfmailguard.events.transactions import Mail, Sessions, Transactions
from nfmailguard.policy.model import FINDINGS, FlowRule, Limits
from nfmailguard.smtp.states import State
from nfmailguard.smtp.verbs import VERBS

__all__ = ["ENDED_BY", "FLOW_REASON", "FLOW_STATE", "EveWriter", "Standing", "community_id", "timestamp"]

_MOST_COMMUNITIES = 8_192
FLOW_STATE = {FlowEnd.FIN: "closed", FlowEnd.RST: "closed", FlowEnd.DROPPED: "closed"}
#: What ended a flow, as written in the `ended_by` field of its event.
ENDED_BY = {
    FlowEnd.TIMEOUT: "silence",
    FlowEnd.FIN: "fin",
    FlowEnd.RST: "rst",
    FlowEnd.DROPPED: "gateway",
    FlowEnd.EVICTED: "limit",
    FlowEnd.FINISHED: "shutdown",
}
FLOW_REASON = {FlowEnd.TIMEOUT: "timeout", FlowEnd.FINISHED: "shutdown", FlowEnd.EVICTED: "forced"}


@lru_cache(4)
def _second(seconds: int) -> tuple[str, str]:
    local = time.localtime(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local), time.strftime("%z", local)


def timestamp(now: int) -> str:
    """Nanoseconds since 1970 as EVE writes them: local time, microseconds, offset."""
    seconds, rest = divmod(now, 1_000_000_000)
    clock, offset = _second(seconds)
    return f"{clock}.{rest // 1000:06d}{offset}"


def community_id(source: bytes, source_port: int, destination: bytes, destination_port: int) -> str:
    """Community ID version 1, seed 0, of a TCP flow: the same from either side."""
    ends = sorted([(source, source_port), (destination, destination_port)])
    (low, low_port), (high, high_port) = ends
    ports = low_port.to_bytes(2, "big") + high_port.to_bytes(2, "big")
    digest = hashlib.sha1(b"\0\0" + low + high + b"\x06\0" + ports, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode()


def _outcome(mail: Mail) -> str:
    """The counter to which a mail belongs, by its outcome."""
    if not mail.complete:
        return "mails.unanswered"
    return "mails.accepted" if mail.reply.startswith("2") else "mails.refused"


class Standing(NamedTuple):
    """State of a writer to which no more records come, for another process."""

    sessions: Sessions
    written: int
    mails: dict[str, int]


class EveWriter:
    """Writes what an Engine recorded. ``rules`` are the engine's: they name mode and profile.

    ``engine`` distinguishes the flows of several queues, whose ids are counted separately. ``alerts``: each finding is
    written a second time, as an alert. ``limits``: how much is kept, and written per second; None: everything is
    written.
    """

    def __init__(
        self,
        rules: Sequence[FlowRule],
        sink: Sink,
        *,
        engine: int = 0,
        alerts: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self._names: dict[int, tuple[str, str]] = {}  # Mode and profile by the rule number in Record.rule.
        self.learn(0, rules)
        self._sink = sink
        self._engine = engine
        self._alerts = alerts
        self._transactions = Transactions((limits or Limits()).event_memory)
        self._allowance = Allowance(limits.log_rate if limits else None)
        self._encode = msgspec.json.Encoder().encode
        self._communities: dict[int, str] = {}
        self.written = 0
        self._mails = dict.fromkeys(("mails.accepted", "mails.refused", "mails.unanswered"), 0)

    def learn(self, first: int, rules: Sequence[FlowRule]) -> None:
        """Tells the writer the rules that records refer to, numbered from ``first``, before such records come."""
        self._names |= {number: (str(rule.mode), rule.policy.name) for number, rule in enumerate(rules, first)}

    def change(self, sink: Sink, *, alerts: bool, rate: int) -> None:
        """Changes the settings from now on; what is known of unfinished mails is kept."""
        self._sink, self._alerts = sink, alerts
        self._allowance.change(rate)

    def standing(self) -> Standing:
        """What is known of unfinished mails, and how many there were, for ``take_over`` in another process."""
        return Standing(self._transactions.sessions(), self.written, dict(self._mails))

    def take_over(self, standing: Standing) -> None:
        """Continues with the state of another writer."""
        self._transactions.take_over(standing.sessions)
        self.written += standing.written
        self._mails |= {name: count for name, count in standing.mails.items() if name in self._mails}

    def write(self, records: list[tuple[Any, ...]]) -> None:
        """Writes drained records, in order."""
        lines: list[bytes] = []
        for drained in records:
            record = Record.of(drained)
            self._told(record, lines)
            if withheld := self._allowance.report(record.now):
                lines.append(self._withheld(record.now, withheld))
        if lines:
            self._sink.write(lines)
            self.written += len(lines)

    def counters(self) -> dict[str, int]:
        """Counters of what was written, kept and left out."""
        mails, withheld = self._transactions, self._allowance.withheld
        return {
            "events_written": self.written,
            "events_withheld": withheld.total(),
            **{f"events_withheld.{kind}": withheld[kind] for kind in ("mailguard", "alert", "smtp", "flow")},
            "event_memory_now": mails.octets,
            "event_flows_forgotten": mails.forgotten,
            "event_commands_omitted": mails.omitted,
            **self._mails,
        }

    def _told(self, record: Record, lines: list[bytes]) -> None:
        """Appends the event lines of a record."""

        source, forgeable = source_of(record.client), record.forgeable

        def tell(kind: str, body: dict[str, Any] | Mail) -> None:
            line = self._line(record, kind, body)
            if self._allowance.takes(source, len(line), kind, record.now, forgeable=forgeable and kind != "smtp"):
                lines.append(line)

        if record.kind in (RecordKind.FINDING, RecordKind.REPEATED):
            tell("mailguard", self._finding(record))
            if self._alerts:
                name, action = FINDINGS[record.finding].name, ACTIONS[record.action]
                tell("alert", alert(name, action, applied=record.applied))
        found = self._transactions.had_finding(record.flow_id) if record.kind == RecordKind.FLOW else False
        for mail in self._transactions.feed(record):
            self._mails[_outcome(mail)] += 1
            tell("smtp", mail)
        if record.kind == RecordKind.FLOW:
            tell("flow", self._flow(record, found))
            self._communities.pop(record.flow_id, None)

    def _withheld(self, now: int, withheld: dict[str, int]) -> bytes:
        event = {"timestamp": timestamp(now), "event_type": "withheld", "withheld": withheld}
        return self._encode(event) + b"\n"

    def stats(self, now: int, counters: dict[str, int]) -> None:
        """Writes the counters as a ``stats`` event."""
        event = {"timestamp": timestamp(now), "event_type": "stats", "stats": counters}
        lines = [self._encode(event) + b"\n"]
        if withheld := self._allowance.last_report(now):
            lines.insert(0, self._withheld(now, withheld))
        self._sink.write(lines)
        self.written += len(lines)

    def health(self, now: int, body: dict[str, Any]) -> None:
        """Writes that the gateway has become degraded, or is no longer degraded."""
        self._sink.write([self._encode({"timestamp": timestamp(now), "event_type": "health", "health": body}) + b"\n"])
        self.written += 1

    def _line(self, record: Record, kind: str, body: dict[str, Any] | Mail) -> bytes:
        # Packets that belong to no flow all have flow number 0, whoever sent them, so their community id is not cached.
        community = self._communities.get(record.flow_id) if record.flow_id else None
        if community is None:
            if len(self._communities) >= _MOST_COMMUNITIES:
                self._communities.clear()  # The table only caches computed community ids: clearing it loses nothing.
            community = community_id(record.client, record.client_port, record.server, record.server_port)
            if record.flow_id:
                self._communities[record.flow_id] = community
        event = {
            "timestamp": timestamp(record.now),
            # JSON readers take numbers for doubles: the flow id stays within 53 bits.
            "flow_id": (self._engine << 44) | record.flow_id,
            "event_type": kind,
            "src_ip": address_text(record.family, record.client),
            "src_port": record.client_port,
            "dest_ip": address_text(record.family, record.server),
            "dest_port": record.server_port,
            "proto": "TCP",
            "app_proto": "smtp",
            "direction": "to_server" if record.to_server else "to_client",
            "community_id": community,
            kind: body,
        }
        return self._encode(event) + b"\n"

    def _finding(self, record: Record) -> dict[str, Any]:
        mode, profile = self._names[record.rule]
        verb = VERBS[record.verb].name if record.verb < len(VERBS) else ""
        body: dict[str, Any] = {
            "mode": mode,
            "profile": profile,
            "finding": FINDINGS[record.finding].name,
            "action": str(ACTIONS[record.action]),
            "applied": record.applied,
            "state": State(record.state).name.lower(),
        }
        if record.numbers[1] > 1:
            body["count"] = record.numbers[1]
        if record.kind == RecordKind.REPEATED:
            return body | {"repeated": True}
        body["offset"] = record.numbers[0]
        if body["finding"] == "reply.keyword_masked":
            body["keyword"] = text(record.before[4:].partition(b" ")[0])
        elif verb:
            body["verb"] = verb
        if record.hypothetical:
            body["hypothetical"] = True
        if record.before:
            body["before"] = text(record.before)
        if record.after:
            body["after"] = text(record.after)
        return body

    def _flow(self, record: Record, found: bool) -> dict[str, Any]:
        start, packets_to_server, octets_to_server, packets_to_client, octets_to_client = record.numbers
        end = FlowEnd(record.code)
        body = {
            "pkts_toserver": packets_to_server,
            "pkts_toclient": packets_to_client,
            "bytes_toserver": octets_to_server,
            "bytes_toclient": octets_to_client,
            "start": timestamp(start),
            "end": timestamp(record.now),
            "age": max(0, (record.now - start) // 1_000_000_000),
            "state": FLOW_STATE.get(end, "established"),
            "reason": FLOW_REASON.get(end, "timeout"),
            "alerted": found,
            "smtp_state": State(record.state).name.lower(),
            "ended_by": ENDED_BY[end],
        }
        if end == FlowEnd.DROPPED:
            body["action"] = "drop"
        return body
