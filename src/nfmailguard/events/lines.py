"""Events at the engine's speed: ``cext.events`` turns an engine's records into EVE lines.

Promises: writes the same bytes as ``events.eve.EveWriter``, which is the reference model, and has the same state of
unfinished mails, so that either can continue the other's work. Python code runs only once per block of lines. Does not
know where the lines go.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from nfmailguard.cext.events.writer import MOST_ACTIONS, ROLES_OF_VERBS, EventLines
from nfmailguard.engine import ACTIONS, Engine
from nfmailguard.events.addresses import Address
from nfmailguard.events.alerts import alert
from nfmailguard.events.eve import ENDED_BY, FLOW_REASON, FLOW_STATE, Standing, timestamp
from nfmailguard.events.records import BY_PACKETS, FlowEnd
from nfmailguard.events.sinks import Sink
from nfmailguard.events.transactions import Mail, Session, Sessions
from nfmailguard.policy.model import FINDING_INDEX, FINDINGS, FlowRule, Limits
from nfmailguard.smtp.states import State
from nfmailguard.smtp.verbs import VERBS

__all__ = ["LineWriter"]

#: Event types of which lines may be withheld; the index is the core's number for the type.
_KINDS = ("mailguard", "alert", "smtp", "flow")
_OUTCOMES = ("mails.accepted", "mails.refused", "mails.unanswered")
#: Most records that one call of `drain` reads.
_MOST_RECORDS = 1 << 16
_ENCODE = msgspec.json.Encoder().encode


def _within(text: str) -> bytes:
    """The text as it is written between the quotes of a JSON string."""
    return _ENCODE(text)[1:-1]


def _alerts() -> list[bytes]:
    """Encoded alerts, indexed by finding, action, and whether it was applied."""
    found = []
    for spec in FINDINGS:
        for number in range(MOST_ACTIONS):
            action = ACTIONS[min(number, len(ACTIONS) - 1)]
            found += [_ENCODE(alert(spec.name, action, applied=applied)) for applied in (False, True)]
    return found


def _names() -> dict[str, list[bytes]]:
    """The names of the numbers in records, as they are written in a line."""
    ends = list(FlowEnd)
    before, after = [], []
    for end in ends:
        states = {"state": FLOW_STATE.get(end, "established"), "reason": FLOW_REASON.get(end, "timeout")}
        before.append(b"," + _ENCODE(states)[1:-1] + b',"alerted":')
        by = {"ended_by": ENDED_BY[end]} | ({"action": "drop"} if end == FlowEnd.DROPPED else {})
        after.append(b'",' + _ENCODE(by)[1:])
    return {
        "finding": [_within(spec.name) for spec in FINDINGS],
        "action": [_within(str(action)) for action in ACTIONS],
        "state": [_within(state.name.lower()) for state in State],
        "verb": [_within(verb.name) for verb in VERBS],
        "flow_state": before,
        "ended": after,
        "alert": _alerts(),
    }


class LineWriter:
    """Writes what an Engine recorded; the arguments are those of ``EveWriter``."""

    def __init__(
        self,
        rules: Sequence[FlowRule],
        sink: Sink,
        *,
        engine: int = 0,
        alerts: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self._sink = sink
        self._lines = EventLines(
            _names(),
            [ROLES_OF_VERBS.get(verb.name, 0) for verb in VERBS],
            (
                1 << FINDING_INDEX["address.illegal_character"],
                sum(1 << number for number in BY_PACKETS),
                FINDING_INDEX["reply.keyword_masked"],
            ),
            os.urandom(16),
            engine,
            (limits or Limits()).event_memory,
            limits.log_rate if limits else -1,
        )
        self._lines.change(alerts, limits.log_rate if limits else -1)
        self.learn(0, rules)
        self.written = 0

    def learn(self, first: int, rules: Sequence[FlowRule]) -> None:
        """Tells the writer the rules that records refer to, numbered from ``first``, before such records come."""
        for number, rule in enumerate(rules, first):
            named = {"mode": str(rule.mode), "profile": rule.policy.name, "finding": ""}
            self._lines.learn(number, _ENCODE(named)[:-2])

    def change(self, sink: Sink, *, alerts: bool, rate: int) -> None:
        """Changes the settings from now on; what is known of unfinished mails is kept."""
        self._sink = sink
        self._lines.change(alerts, rate)

    def standing(self) -> Standing:
        """What is known of unfinished mails, and how many there were, for ``take_over`` in another process."""
        _, _, mails = self._lines.counted()
        return Standing(_sessions(self._lines.standing()), self.written, dict(zip(_OUTCOMES, mails, strict=True)))

    def take_over(self, standing: Standing) -> None:
        """Continues with the state of another writer."""
        mails = [standing.mails.get(name, 0) for name in _OUTCOMES]
        self._lines.take_over(_values(standing.sessions), (mails[0], mails[1], mails[2]))
        self.written += standing.written

    def drain(self, engine: Engine) -> int:
        """Writes what the engine has recorded, at most a block of lines; returns the number of records."""
        read = self._lines.read(engine, _MOST_RECORDS)
        self._hand_on()
        return read

    def write(self, records: list[tuple[Any, ...]]) -> None:
        """Writes drained records, in order."""
        self._lines.take(records)
        self._hand_on()

    def _hand_on(self) -> None:
        lines = self._lines.lines
        if lines:
            self._sink.write_block(self._lines.block(), lines)
            self.written += lines
            self._lines.clear()

    def counters(self) -> dict[str, int]:
        """Counters of what was written, kept and left out."""
        (octets, forgotten, omitted, unmade), withheld, mails = self._lines.counted()
        return {
            "events_written": self.written,
            "events_withheld": sum(withheld),
            **{f"events_withheld.{kind}": count for kind, count in zip(_KINDS, withheld, strict=True)},
            "events_unmade": unmade,
            "event_memory_now": octets,
            "event_flows_forgotten": forgotten,
            "event_commands_omitted": omitted,
            **dict(zip(_OUTCOMES, mails, strict=True)),
        }

    def stats(self, now: int, counters: dict[str, int]) -> None:
        """Writes the counters as a ``stats`` event."""
        told: list[dict[str, Any]] = [{"timestamp": timestamp(now), "event_type": "stats", "stats": counters}]
        withheld, sources = self._lines.untold(now)
        if withheld:
            body = {_KINDS[kind]: count for kind, count in withheld} | {"sources": sources}
            told.insert(0, {"timestamp": timestamp(now), "event_type": "withheld", "withheld": body})
        self._tell(told)

    def health(self, now: int, body: dict[str, Any]) -> None:
        """Writes that the gateway has become degraded, or is no longer degraded."""
        self._tell([{"timestamp": timestamp(now), "event_type": "health", "health": body}])

    def _tell(self, events: Sequence[dict[str, Any]]) -> None:
        self._sink.write([_ENCODE(event) + b"\n" for event in events])
        self.written += len(events)


def _mail(values: Sequence[Any]) -> Mail:
    helo, sender, recipients, uncertain, omitted, octets, reply, tls, auth, changed, complete = values
    names = [FINDINGS[number].name for number in changed]
    return Mail(helo, sender, recipients, uncertain, omitted, octets, reply, tls, auth, names, complete)


def _mail_values(mail: Mail) -> tuple[Any, ...]:
    *known, changed, complete = msgspec.structs.astuple(mail)
    return (*known, [FINDING_INDEX[name] for name in changed if name in FINDING_INDEX], complete)


def _sessions(values: Iterable[Sequence[Any]]) -> Sessions:
    found = []
    for flow_id, source, helo, tls, auth, hellos, more_hellos, mails, more_mails, *rest in values:
        recipients, more_recipients, chunks, current, octets, had_finding, place, speaks_of_none = rest
        mail, waiting = None if current is None else _mail(current), [_mail(one) for one in mails]
        session = Session(
            source=source,
            helo=helo,
            tls=tls,
            auth=auth,
            hellos=tuple(hellos),
            more_hellos=more_hellos,
            mails=waiting,
            more_mails=more_mails,
            recipients=[name if certain else Address(name, False) for name, certain in recipients],
            more_recipients=more_recipients,
            chunks=tuple(chunks),
            spoken=(mail, *waiting)[place] if place >= 0 else Mail() if speaks_of_none else None,
            mail=mail,
            octets=octets,
            found=had_finding,
        )
        found.append((flow_id, session, place))
    return found


def _values(sessions: Sessions) -> list[tuple[Any, ...]]:
    return [
        (
            *(flow_id, one.source, one.helo, one.tls, one.auth, list(one.hellos), one.more_hellos),
            *([_mail_values(mail) for mail in one.mails], one.more_mails),
            [(name.text, name.certain) if isinstance(name, Address) else (name, True) for name in one.recipients],
            *(one.more_recipients, list(one.chunks), None if one.mail is None else _mail_values(one.mail)),
            *(one.octets, one.found, place, place < 0 and one.spoken is not None),
        )
        for flow_id, one, place in sessions
    ]
