"""Every field of every event, and docs/eve.schema.json made from them: ``python -m nfmailguard.events.schema``.

Promises: one table of an event's fields, with type, unit and meaning; names of findings, actions, states, verbs and
counters come from their own tables. A test compares it with every event that vectors and captures give. Does not write
events: ``eve`` does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nfmailguard.events.alerts import CATEGORIES
from nfmailguard.events.counters import COUNTERS
from nfmailguard.plain import json_safe
from nfmailguard.policy.findings import FINDINGS, Action
from nfmailguard.policy.model import Mode
from nfmailguard.smtp.states import State
from nfmailguard.smtp.verbs import VERBS

__all__ = ["ENVELOPE", "FIELDS", "Field", "schema"]


class Field(NamedTuple):
    """One field. ``kind``: JSON's type, or ``[type]`` for a list. ``values``: the permitted values; ``bounds``: JSON
    Schema keywords.
    """

    kind: str
    meaning: str
    unit: str = ""
    required: bool = True
    values: Sequence[object] = ()
    bounds: Mapping[str, object] = {}


#: Text from clients and servers is escaped, so it is printable ASCII whatever they sent.
_PRINTABLE = {"pattern": "^[ -~]*$"}
_TIME = {"pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}[+-]\d{4}$"}
_COUNT = {"minimum": 0}
_PORT = {"minimum": 0, "maximum": 65535}
_ADDRESS = {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}


def _peers(meaning: str, *, required: bool = False) -> Field:
    return Field("string", meaning, required=required, bounds=_PRINTABLE)


def _true(meaning: str) -> Field:
    """A field that is present only if it is true."""
    return Field("boolean", meaning, required=False, values=(True,))


def _count(meaning: str, unit: str, *, required: bool = True) -> Field:
    return Field("integer", meaning, unit, required, bounds=_COUNT)


#: COMMON: fields of all events. ENVELOPE: the fields of events about a connection.
COMMON: Mapping[str, Field] = {
    "timestamp": Field("string", "local time with its offset from UTC", bounds=_TIME),
    "event_type": Field("string", "which event it is; the field of that name has the rest"),
}
ENVELOPE: Mapping[str, Field] = {
    **COMMON,
    "flow_id": Field("integer", "number of the connection, unique while the gateway runs",
                     bounds={"minimum": 0, "maximum": 2**53 - 1}),
    "src_ip": Field("string", "the client's address", bounds=_ADDRESS),
    "src_port": Field("integer", "the client's port", bounds=_PORT),
    "dest_ip": Field("string", "the server's address", bounds=_ADDRESS),
    "dest_port": Field("integer", "the server's port", bounds=_PORT),
    "proto": Field("string", "always TCP", values=("TCP",)),
    "app_proto": Field("string", "always smtp", values=("smtp",)),
    "direction": Field("string", "who sent what the event is about", values=("to_server", "to_client")),
    "community_id": Field("string", "Community ID version 1, seed 0", bounds={"pattern": "^1:[A-Za-z0-9+/]{27}=$"}),
}  # fmt: skip

_STATES = tuple(state.name.lower() for state in State)
_NAMES = tuple(spec.name for spec in FINDINGS[1:])
_WITHHELD = ("mailguard", "alert", "smtp", "flow")

#: For each event type, the fields of the JSON object that is named after the type.
FIELDS: Mapping[str, Mapping[str, Field]] = {
    "mailguard": {
        "mode": Field("string", "of the rule the connection came under", values=tuple(map(str, Mode))),
        "profile": Field("string", "of that rule"),
        "finding": Field("string", "its name", values=_NAMES),
        "action": Field("string", "what the policy says", values=tuple(map(str, Action))),
        "applied": Field("boolean", "false: reported only (monitor, --dry-run)"),
        "hypothetical": _true("after the first change enforce would have made"),
        "state": Field("string", "of the session", values=_STATES),
        "offset": _count("of this direction before the one it is about", "octets", required=False),
        "count": Field("integer", "its number among those of its kind in this connection, from 2 on", "findings", False,
                       bounds={"minimum": 2}),
        "repeated": _true("there were `count` until the connection ended, more than were told"),
        "verb": Field("string", "the SMTP verb, if a known one", required=False,
                      values=tuple(verb.name for verb in VERBS if verb.name)),
        "keyword": _peers("the EHLO keyword"),
        "before": _peers("the beginning of what came; what is not printable as \\xNN"),
        "after": _peers("the beginning of what left, in the same way"),
    },
    "alert": {
        "action": Field("string", "blocked: packets were dropped", values=("allowed", "blocked")),
        "gid": Field("integer", "always 1", values=(1,)),
        "signature_id": Field("integer", "of the finding, from version to version the same",
                              values=tuple(spec.signature for spec in FINDINGS[1:])),
        "rev": Field("integer", "always 1", values=(1,)),
        "signature": Field("string", "the finding's name and meaning"),
        "category": Field("string", "Suricata's classification",
                          values=tuple(dict.fromkeys(category for category, _ in CATEGORIES))),
        "severity": Field("integer", "that of the category, 1 is the highest", bounds={"minimum": 1, "maximum": 3}),
    },
    "smtp": {
        "helo": _peers("the name of the HELO or EHLO the server accepted"),
        "mail_from": _peers("the sender's address"),
        "rcpt_to": Field("[string]", "the recipients' addresses the server accepted, at most 100", required=False,
                         bounds=_PRINTABLE),
        "uncertain": _true("an address may be another one to the server, and stands as the client wrote it"),
        "rcpt_omitted": _count("accepted besides these", "recipients", required=False),
        "bytes": _count("of the message as on the wire, without the end of data", "octets", required=False),
        "reply": _peers("the server's answer to the message, its code first"),
        "tls": _true("STARTTLS was accepted before"),
        "auth": _true("AUTH succeeded before"),
        "changed": Field("[string]", "names of the findings in this mail", required=False, values=_NAMES),
        "complete": _true("the server has answered"),
    },
    "flow": {
        "pkts_toserver": _count("IP packets from the client, as they came", "packets"),
        "pkts_toclient": _count("IP packets from the server, as they came", "packets"),
        "bytes_toserver": _count("of these packets", "octets"),
        "bytes_toclient": _count("of these packets", "octets"),
        "start": Field("string", "the first packet", bounds=_TIME),
        "end": Field("string", "when it ended, or was forgotten", bounds=_TIME),
        "age": _count("between the two", "seconds"),
        "state": Field("string", "of the connection", values=("closed", "established")),
        "reason": Field("string", "why the event was written", values=("timeout", "forced", "shutdown")),
        "alerted": Field("boolean", "whether it had a finding"),
        "ended_by": Field("string", "what ended it", values=("fin", "rst", "gateway", "silence", "limit", "shutdown")),
        "action": Field("string", "there where the gateway ended it", required=False, values=("drop",)),
        "smtp_state": Field("string", "the last state of the session", values=_STATES),
    },
    "withheld": {
        **{kind: _count(f"of {kind} that were not written", "events", required=False) for kind in _WITHHELD},
        "sources": _count("of so many addresses", "sources"),
    },
    "health": {
        "state": Field("string", "of the gateway", values=("healthy", "degraded")),
        "reason": Field("string", "what has begun (docs/daemon.md)", required=False),
        "ended": Field("string", "what has ended", required=False),
        "text": Field("string", "the same in words"),
        "count": _count("lost so far, where it is a loss", "losses", required=False),
        "seconds": _count("it has lasted", "seconds", required=False),
        "hand_over": Field(
            "string",
            "to a gateway's successor, or from the one before (docs/daemon.md)",
            required=False,
            values=("taken_over", "without_state", "handed_over", "not_taken"),
        ),
        "reload": Field("string", "what came of reading the configuration anew", required=False,
                        values=("done", "refused")),
        "generation": Field("integer", "of the configuration in force: 1, and one more with each reload", "generations",
                            False, bounds={"minimum": 1}),
        "changed": Field("[string]", "keys, each with its value before and after", required=False),
        "errors": Field("[string]", "why it was refused, a line each", required=False),
    },
    "stats": {
        name: Field("integer", f"{counter.meaning}{'' if counter.gauge else ' (grows only)'}", counter.unit, False,
                    bounds=_COUNT)
        for name, counter in COUNTERS.items()
    },
}  # fmt: skip
#: Event types that are not about a connection.
_ALONE = ("withheld", "health", "stats")


def _property(field: Field) -> dict[str, Any]:
    listed = field.kind.startswith("[")
    inner: dict[str, Any] = {"type": field.kind.strip("[]"), **field.bounds}
    if len(field.values) == 1:
        inner = {"const": field.values[0]}
    elif field.values:
        inner = {"enum": list(field.values)}
    told = {"type": "array", "minItems": 1, "items": inner} if listed else inner
    return {"description": field.meaning, **({"x-unit": field.unit} if field.unit else {}), **told}


def _object(fields: Mapping[str, Field]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _property(field) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.required],
        "additionalProperties": False,
    }


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a line of ``log.eve``."""
    events = {}
    for kind, fields in FIELDS.items():
        event = _object(COMMON if kind in _ALONE else ENVELOPE)
        event["properties"]["event_type"] = {"const": kind}
        event["properties"][kind] = _object(fields)
        event["required"].append(kind)
        events[kind] = event
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of nfmailguard: a line of log.eve",
        "description": "docs/events.md says more. x-unit: what a number counts.",
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in events],
        "$defs": events,
    }


def main() -> None:
    """Prints the schema."""
    sys.stdout.write(json_safe(json.dumps(schema(), indent=1).encode()).decode() + "\n")


if __name__ == "__main__":
    main()
