"""The answers of a gateway to ``status`` and ``stats`` as metrics, in Prometheus' conventions.

Promises: a function of the two answers, whatever they contain; every name is in ``FAMILIES``, and every label's value
is a fixed name, the number of a queue or rule, or a profile: no address, and no more of them than the configuration
has. Does not ask the gateway, and does not write the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nfmailguard.events.counters import COUNTERS
from nfmailguard.plain import printable
from nfmailguard.service.health import COUNTED, QUEUE_REASONS, TROUBLES

__all__ = ["FAMILIES", "Answers", "Family", "Sample", "samples"]

#: Most characters of a label's value.
_LONGEST = 128
#: Most rules of a configuration, and most queues, that metrics are made for.
_MOST_RULES, _MOST_QUEUES = 1024, 256


class Answers(NamedTuple):
    """The gateway's answers to ``status`` and ``stats``."""

    status: Mapping[str, Any]
    stats: Mapping[str, Any]


class Family(NamedTuple):
    """A metric. ``members``: label values by the counters of ``stats``; empty: the metric comes from ``status``."""

    help: str
    labels: tuple[str, ...] = ()
    members: Mapping[str, str] = {}


class Sample(NamedTuple):
    """One value. ``labels``: the values of the family's labels, in order."""

    name: str
    labels: tuple[str, ...]
    value: float


def _one(counter: str, help: str) -> Family:
    return Family(help, (), {counter: ""})


def _each(label: str, prefix: str, help: str) -> Family:
    """A metric of all counters whose name begins with ``prefix``; the rest of the name is the label's value."""
    return Family(help, (label,), {name: name[len(prefix) :] for name in COUNTERS if name.startswith(prefix)})


def _some(label: str, members: Mapping[str, str], help: str) -> Family:
    return Family(help, (label,), members)


_CONDITIONS = (
    *("not_tcp", "not_inspected", "fragments", "malformed", "truncated", "bad_checksum", "odd_flags"),
    *("options_blanked", "out_of_order", "beyond_window", "retransmissions", "windows_narrowed", "windows_widened"),
    "syns_asked",
)
_ERRORS = {
    "queue.enobufs": "socket_overrun",
    "queue.receive_errors": "receive",
    "queue.send_retries": "send_retry",
    "queue.verdict_errors": "verdict",
    "queue.emit_errors": "emit",
    "queue.unreadable": "unreadable",
}

#: Every metric by name; those that end in ``_total`` are counters, the others gauges.
FAMILIES: Mapping[str, Family] = {
    "nfmailguard_up": Family("1: the gateway has answered."),
    "nfmailguard_degraded": Family("1: the gateway is degraded; nfmailguard_degraded_reason says why."),
    "nfmailguard_degraded_reason": Family("1: for this reason, as `nfmailguard status` names it.", ("reason",)),
    "nfmailguard_build_info": Family("1; the gateway's version.", ("version",)),
    "nfmailguard_rule_info": Family("1; of every [[rule]], and of [gateway], which is for every other flow.",
                                    ("rule", "mode", "profile")),
    "nfmailguard_rules_in_place": Family("1: our table sends packets to the queues. Not there with --no-rules."),
    "nfmailguard_bypass": Family("1: bypass is on, nothing is inspected."),
    "nfmailguard_start_time_seconds": Family("When packets began to be inspected, seconds since 1970."),
    "nfmailguard_unknown_counters": Family("Counters of the gateway that this exporter does not know."),
    "nfmailguard_queue_packets_total": Family("Packets read from the queue.", ("queue",)),
    "nfmailguard_queue_length": Family("Packets that wait in the kernel's queue.", ("queue",)),
    "nfmailguard_queue_length_limit": Family("Packets that the kernel's queue has room for.", ("queue",)),
    "nfmailguard_queue_packets_dropped_total": Family(
        "Packets the kernel dropped: queue_full, or user, where the socket's buffer was full.", ("queue", "reason")),
    "nfmailguard_queue_held_packets": Family("Packets that wait for a decision.", ("queue",)),
    "nfmailguard_queue_held_packets_limit": Family("Packets that may wait for a decision.", ("queue",)),
    "nfmailguard_queue_flows": Family("Flows in the queue's table.", ("queue",)),
    "nfmailguard_queue_flows_limit": Family("Flows that the queue's table has room for.", ("queue",)),
    "nfmailguard_queue_memory_bytes": Family("Of limits.memory in use.", ("queue",)),
    "nfmailguard_queue_memory_limit_bytes": Family("limits.memory.", ("queue",)),
    "nfmailguard_packets_total": _one("packets", "Packets read, of all queues."),
    "nfmailguard_packet_verdicts_total": _some(
        "verdict", {name: name for name in ("accepted", "replaced", "dropped")}, "Packets by what became of them."),
    "nfmailguard_packets_dropped_total": _each("reason", "drop.", "Packets that were dropped, by reason."),
    "nfmailguard_packet_conditions_total": _some(
        "condition", {name: name for name in _CONDITIONS}, "Packets that were not as most are; one may be several."),
    "nfmailguard_packets_held_total": _one("held", "Packets that had to wait for a decision."),
    "nfmailguard_held_packets_expired_total": _one("held_expired", "Packets dropped after limits.held of waiting."),
    "nfmailguard_packets_emitted_total": _one("emitted", "Resets of our own."),
    "nfmailguard_resets_omitted_total": _one("refusals_omitted", "Resets not sent: too many a second."),
    "nfmailguard_cookies_unnoted_total": _one("cookies_unnoted", "Answered SYNs that could not be noted."),
    "nfmailguard_rule_packets_total": _one("queue.rule_packets", "Packets our rule has sent to the queues."),
    "nfmailguard_uninspected_packets_total": _one("queue.uninspected", "Packets that went past the queue."),
    "nfmailguard_unseen_fragments_total": _one("queue.fragments_unseen", "Packets in parts that went past the queue."),
    "nfmailguard_received_bytes_total": _one("queue.bytes", "Octets of IP packets read."),
    "nfmailguard_queue_reads_total": _one("queue.batches", "Reads of several packets at once."),
    "nfmailguard_super_packets_total": _one("queue.gso_packets", "Packets of several segments (GSO)."),
    "nfmailguard_cut_packets_total": _one("queue.truncated", "Packets that did not reach us whole."),
    "nfmailguard_offloaded_packets_total": _one("queue.settled", "Packets whose connection left the queue then."),
    "nfmailguard_queue_errors_total": _some("error", _ERRORS, "Faults between the kernel and us, by kind."),
    "nfmailguard_queue_receive_buffer_bytes": _one("queue.receive_buffer", "Of the queues' sockets."),
    "nfmailguard_flows": _one("flows_now", "Flows in the tables."),
    "nfmailguard_open_flows": _one("flows_opened_now", "Flows that are open."),
    "nfmailguard_flows_begun_total": _some(
        "start", {"flows_opened": "syn", "flows_midstream": "midstream"}, "Flows by how they were first seen."),
    "nfmailguard_flows_evicted_total": _each(
        "state", "flows_evicted_", "Flows forgotten early for want of room, by what they had come to."),
    "nfmailguard_flows_refused_total": _one("flows_refused", "Flows that were not admitted (limits.flows)."),
    "nfmailguard_flows_refused_share_total": _one("flows_refused_share", "Of these: their source had its share."),
    "nfmailguard_flows_passed_total": _one("flows_passed", "Flows that went on uninspected: TLS, or as [on] says."),
    "nfmailguard_flows_dropped_total": _one("flows_dropped", "Flows of which every later packet was dropped."),
    "nfmailguard_flows_reset_total": _one("flows_reset", "Flows that were reset on both sides."),
    "nfmailguard_flows_stalled_total": _one("flows_stalled", "Flows ended for others: their receivers took nothing."),
    "nfmailguard_memory_bytes": _one("memory_now", "What peers make us keep."),
    "nfmailguard_flow_table_bytes": _one("table_octets", "Of the flow tables themselves."),
    "nfmailguard_findings_total": _each("finding", "finding.", "Findings by name; `nfmailguard profile findings`."),
    "nfmailguard_findings_untold_total": _one("findings_repeated", "Findings counted, and not told one by one."),
    "nfmailguard_records_lost_total": _each("kind", "records_lost.", "Records lost: events were written too slowly."),
    "nfmailguard_records_omitted_total": _one("records_omitted", "Records not made of commands that led to nothing."),
    "nfmailguard_internal_errors_total": _one("internal_errors", "Faults of ours; please report them."),
    "nfmailguard_mails_total": _each("outcome", "mails.", "Mails by what the server said at their end. Needs log.eve."),
    "nfmailguard_events_written_total": _one("events_written", "Events handed to log.eve."),
    "nfmailguard_events_lost_total": _each("kind", "events_lost.", "Events that log.eve did not take."),
    "nfmailguard_events_unmade_total": _one("events_unmade", "Events for which there was no memory."),
    "nfmailguard_events_withheld_total": _each("kind", "events_withheld.", "Events not written: limits.log_rate."),
    "nfmailguard_event_memory_bytes": _one("event_memory_now", "What is kept to put mails together."),
    "nfmailguard_event_flows_forgotten_total": _one(
        "event_flows_forgotten", "Flows whose mails are not put together any more (limits.event_memory)."),
    "nfmailguard_event_commands_omitted_total": _one(
        "event_commands_omitted", "MAIL and RCPT that were counted only (limits.event_memory)."),
    "nfmailguard_log_lines_lost_total": _one("log_lines_lost", "Lines that syslog.target did not take."),
    "nfmailguard_log_lines_withheld_total": _one("log_lines_withheld", "Lines not written: limits.log_rate."),
    "nfmailguard_tap_packets_total": _some(
        "direction", {"queue.tap_incoming": "in", "queue.tap_outgoing": "out"}, "Packets written to the tap."),
    "nfmailguard_tap_lost_packets_total": _one("queue.tap_lost", "Packets missing in the tap."),
}  # fmt: skip

#: Counters that have no metric: sums of other counters, values that `status` gives by queue, the queue driver's own,
#: and those of a replay.
LEFT_OUT = frozenset(
    {
        *("uptime", "degraded_now", "held_now", "flows_evicted", "records_lost", "events_lost", "events_withheld"),
        *(f"queue.{name}" for name in ("packets", "accepted", "replaced", "dropped", "emitted", "expired", "sleeps")),
        *("queue.held", "queue.kernel_queue_total", "queue.kernel_queue_dropped", "queue.kernel_user_dropped"),
        *("queue.kernel_id_sequence", "queue.not_ip", "queue.checksum_partial", "queue.clock_back", "queue.written"),
        "queue.internal_errors",
    }
)

#: Metric and further label for each value that `status` gives of a queue.
_QUEUE = {
    "packets": ("nfmailguard_queue_packets_total", ()),
    "waiting": ("nfmailguard_queue_length", ()),
    "length": ("nfmailguard_queue_length_limit", ()),
    "kernel_queue_dropped": ("nfmailguard_queue_packets_dropped_total", ("queue_full",)),
    "kernel_user_dropped": ("nfmailguard_queue_packets_dropped_total", ("user",)),
    "held": ("nfmailguard_queue_held_packets", ()),
    "most_held": ("nfmailguard_queue_held_packets_limit", ()),
    "flows": ("nfmailguard_queue_flows", ()),
    "most_flows": ("nfmailguard_queue_flows_limit", ()),
    "memory": ("nfmailguard_queue_memory_bytes", ()),
    "most_memory": ("nfmailguard_queue_memory_limit_bytes", ()),
}


def samples(answers: Answers | None) -> Iterator[Sample]:
    """The samples of the given answers; None: the gateway did not answer."""
    yield Sample("nfmailguard_up", (), float(answers is not None))
    if answers is None:
        return
    yield from _standing(answers.status)
    yield from _by_queue(_entries(answers.status, "queues", _MOST_QUEUES))
    for name, family in FAMILIES.items():
        for counter, value in family.members.items():
            if (number := _number(answers.stats.get(counter))) is not None:
                yield Sample(name, (value,) if family.labels else (), number)
    unknown = sum(name not in COUNTERS for name in answers.stats)
    yield Sample("nfmailguard_unknown_counters", (), unknown)


def _standing(status: Mapping[str, Any]) -> Iterator[Sample]:
    yield Sample("nfmailguard_degraded", (), float(status.get("state") != "healthy"))
    yield from _reasons(status)
    yield Sample("nfmailguard_build_info", (_label(status.get("version")),), 1)
    policies = _entries(status, "policies", _MOST_RULES)
    for place, policy in enumerate(policies, 1):
        rule = str(place) if place < len(policies) else "gateway"
        yield Sample("nfmailguard_rule_info", (rule, _label(policy.get("mode")), _label(policy.get("profile"))), 1)
    standing = str(status.get("rules"))
    yield Sample("nfmailguard_bypass", (), float(standing.startswith("away")))
    if standing.startswith(("in place", "gone", "away")):
        yield Sample("nfmailguard_rules_in_place", (), float(standing == "in place"))
    if (started := _number(status.get("started"))) is not None:
        yield Sample("nfmailguard_start_time_seconds", (), started)


def _reasons(status: Mapping[str, Any]) -> Iterator[Sample]:
    now = {str(entry.get("reason")) for entry in _entries(status, "reasons", 1 << 16)}
    numbers = [_number(queue.get("number")) for queue in _entries(status, "queues", _MOST_QUEUES)]
    known = [
        *COUNTED,
        *TROUBLES,
        *(f"queue {number:.0f} {what}" for number in numbers if number is not None for what in QUEUE_REASONS),
    ]
    for reason in known:
        yield Sample("nfmailguard_degraded_reason", (reason,), float(reason in now))
    yield Sample("nfmailguard_degraded_reason", ("other",), float(bool(now.difference(known))))


def _by_queue(queues: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    for field, (name, further) in _QUEUE.items():
        for queue in queues:
            number, value = _number(queue.get("number")), _number(queue.get(field))
            if number is not None and value is not None:
                yield Sample(name, (f"{number:.0f}", *further), value)


def _entries(status: Mapping[str, Any], name: str, most: int) -> list[Mapping[str, Any]]:
    """The objects of a list in ``status``; entries that are no objects are left out."""
    found = status.get(name)
    return [entry for entry in found[:most] if isinstance(entry, dict)] if isinstance(found, list) else []


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with_limits = float(value) if abs(value) < 2**1000 else math.inf
        return with_limits if math.isfinite(with_limits) else None
    return None


def _label(value: object) -> str:
    return printable(str(value), _LONGEST)
