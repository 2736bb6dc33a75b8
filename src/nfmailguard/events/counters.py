"""Every counter a gateway may have, with its unit and its meaning: for ``stats``, the EVE schema and the metrics.

Promises: one table; tests/unit/test_metrics.py compares it with the counters of a core, and tests/live with those of a
running gateway. Does not count anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nfmailguard.events.sinks import KINDS
from nfmailguard.policy.findings import FINDINGS

__all__ = ["COUNTERS", "Counter"]


class Counter(NamedTuple):
    """One counter. ``gauge``: its value may fall; otherwise it only grows while a gateway runs."""

    unit: str
    meaning: str
    gauge: bool = False


_PACKETS: Mapping[str, str] = {
    "packets": "packets read from the queue",
    "accepted": "left as they came",
    "replaced": "left changed: masked, blanked, windows narrowed",
    "dropped": "dropped; drop.* says why",
    "emitted": "resets of our own",
    "held": "had to wait for a decision",
    "held_expired": "dropped after limits.held seconds of waiting",
    "not_tcp": "no TCP",
    "not_inspected": "of ports that are not inspected",
    "fragments": "parts of packets",
    "malformed": "could not be parsed",
    "truncated": "did not reach us whole",
    "bad_checksum": "wrong TCP checksum",
    "odd_flags": "flags that no TCP sends",
    "options_blanked": "TCP options blanked",
    "out_of_order": "came before their turn",
    "beyond_window": "began beyond the receiver's window",
    "retransmissions": "came again",
    "windows_narrowed": "their window was lowered for want of memory",
    "windows_widened": "a client's, in the midst of its text: their window was raised to have room for a reply",
    "syns_asked": "SYNs on open flows, made a question to the server",
    "refusals_omitted": "resets not sent: there were too many a second",
    "cookies_unnoted": "answered SYNs beyond what can be noted: another connection's SYN cookie may not be known",
}
_FLOWS: Mapping[str, str] = {
    "flows_opened": "begun with a SYN",
    "flows_midstream": "first seen when they were open",
    "flows_evicted": "forgotten early for want of room",
    "flows_evicted_ended": "of these: had ended",
    "flows_evicted_embryonic": "of these: the client had not answered",
    "flows_evicted_unconfirmed": "of these: the server was silent",
    "flows_evicted_one_sided": "of these: one direction was seen only",
    "flows_evicted_greeted": "of these: were open",
    "flows_refused": "not admitted: limits.flows",
    "flows_refused_share": "of these: their source had its share",
    "flows_passed": "went on uninspected: TLS, or as [on] says",
    "flows_dropped": "every later packet was dropped",
    "flows_reset": "reset on both sides",
    "flows_stalled": "ended for others: their receivers took nothing",
}
_DROPS: Mapping[str, str] = {
    "checksum": "wrong checksum",
    "flags": "flags that no TCP sends",
    "fragment": "a part of a packet",
    "malformed": "could not be parsed",
    "truncated": "did not reach us whole",
    "flow_limit": "its flow was not admitted",
    "midstream": "of a flow that was not known",
    "interface": "came in on another interface than its flow",
    "syn_ack": "answers no SYN of the client's",
    "window": "beyond the receiver's window",
    "gap": "acknowledges what did not come through us",
    "behind_fin": "data behind the end of a direction",
    "repeated": "held already",
    "held_too_long": "waited for limits.held seconds",
    "super_packet": "a part of it had to wait",
    "condition": "a limit or a condition of [on]",
    "finding": "a finding ended its flow",
    "closes_gap": "what has gone ahead of it must not be read",
    "flow_ended": "its flow was dropped or reset before",
    "end_kept": "the beginning of an end of data, which is sent again with the rest",
    "internal": "a fault of ours",
    "option": "an option its receiver may refuse it for",
    "rst": "a reset at a number its receiver does not expect",
    "closed": "the server has closed",
    "cookie": "an ACK that could open another connection",
    "early": "a command before the greeting",
    "memory": "no memory to keep it in; it is sent again",
    "connection": "conntrack takes it for another connection's",
}
_QUEUE: dict[str, tuple[str, str]] = {
    "packets": ("packets", "read"),
    "batches": ("reads", "of several packets at once"),
    "bytes": ("octets", "of IP packets read"),
    "gso_packets": ("packets", "super-packets of several segments"),
    "truncated": ("packets", "cut by the kernel or by queue.copy_range"),
    "unreadable": ("messages", "of the kernel's without a packet id"),
    "accepted": ("packets", "left as they came"),
    "replaced": ("packets", "left changed"),
    "dropped": ("packets", "dropped"),
    "emitted": ("packets", "of our own"),
    "expired": ("times", "looked after what had waited"),
    "sleeps": ("times", "waited for a packet"),
    "settled": ("packets", "after which their connection left the queue (queue.offload)"),
    "enobufs": ("times", "the socket's buffer ran over"),
    "receive_errors": ("times", "reading failed"),
    "send_retries": ("times", "verdicts had to be sent again"),
    "verdict_errors": ("packets", "whose verdict the kernel refused"),
    "emit_errors": ("packets", "of our own that could not be sent"),
    "kernel_queue_dropped": ("packets", "dropped by the kernel: the queue was full"),
    "kernel_user_dropped": ("packets", "dropped by the kernel: the socket was full"),
    "kernel_id_sequence": ("packets", "numbered by the kernel for the queue"),
    "rule_packets": ("packets", "sent to the queue by our rule, since it is in place"),
    "uninspected": ("packets", "went past the queue uninspected"),
    "fragments_unseen": ("packets", "in parts that went past the queue"),
    "tap_incoming": ("packets", "written to the tap as they came in"),
    "tap_outgoing": ("packets", "written to the tap as they left"),
    "tap_lost": ("packets", "missing in the tap"),
}
#: Counters of a replay, whose packets come from a capture file.
_CAPTURE: dict[str, tuple[str, str]] = {
    "not_ip": ("frames", "without an IP packet; written as they came"),
    "checksum_partial": ("packets", "captured before the network card filled in the checksum"),
    "clock_back": ("packets", "older than one before them"),
    "written": ("frames", "in the output"),
    "internal_errors": ("errors", "faults of ours; please report them"),
}
_RECORDS = ("finding", "command", "reply", "message", "flow", "repeated")
_EVENTS = ("mailguard", "alert", "smtp", "flow")

COUNTERS: Mapping[str, Counter] = {
    "uptime": Counter("seconds", "since packets are inspected", gauge=True),
    **{name: Counter("packets", meaning) for name, meaning in _PACKETS.items()},
    **{name: Counter("flows", meaning) for name, meaning in _FLOWS.items()},
    "held_now": Counter("packets", "wait for a decision", gauge=True),
    "flows_now": Counter("flows", "in the table", gauge=True),
    "flows_opened_now": Counter("flows", "of these: are open", gauge=True),
    "memory_now": Counter("octets", "of limits.memory in use", gauge=True),
    "table_octets": Counter("octets", "of the flow table itself", gauge=True),
    "internal_errors": Counter("errors", "faults of ours; please report them"),
    **{f"drop.{name}": Counter("packets", f"dropped: {meaning}") for name, meaning in _DROPS.items()},
    **{f"finding.{spec.name}": Counter("findings", spec.meaning) for spec in FINDINGS[1:]},
    "findings_repeated": Counter("findings", "counted, and not told one by one"),
    "records_omitted": Counter(
        "records",
        "of commands and replies that led to nothing (command.too_many_junk), and of a mail's many recipients",
    ),
    "records_lost": Counter("records", "found no place between core and log: events written too slowly"),
    **{f"records_lost.{kind}": Counter("records", f"of these: of the kind {kind}") for kind in _RECORDS},
    **{f"queue.{name}": Counter(unit, meaning) for name, (unit, meaning) in (_QUEUE | _CAPTURE).items()},
    "queue.held": Counter("packets", "in the queue without a verdict", gauge=True),
    "queue.receive_buffer": Counter("octets", "of the sockets' buffers", gauge=True),
    "queue.kernel_queue_total": Counter("packets", "wait in the kernel's queue", gauge=True),
    "events_written": Counter("events", "handed to log.eve"),
    "events_lost": Counter("events", "that log.eve did not take"),
    **{f"events_lost.{kind}": Counter("events", f"of these: of the kind {kind}") for kind in KINDS},
    "events_unmade": Counter("events", "for which there was no memory"),
    "events_withheld": Counter("events", "not written: limits.log_rate"),
    **{f"events_withheld.{kind}": Counter("events", f"of these: of the kind {kind}") for kind in _EVENTS},
    "event_memory_now": Counter("octets", "kept to put mails together", gauge=True),
    "event_flows_forgotten": Counter("flows", "whose mails are not put together any more: limits.event_memory"),
    "event_commands_omitted": Counter("commands", "MAIL and RCPT that were counted only: limits.event_memory"),
    "mails.accepted": Counter("mails", "the server has taken"),
    "mails.refused": Counter("mails", "the server has refused at their end"),
    "mails.unanswered": Counter("mails", "begun, and their flow ended before the server answered"),
    "log_lines_lost": Counter("lines", "that syslog.target did not take"),
    "log_lines_withheld": Counter("lines", "not written: limits.log_rate"),
    "degraded_now": Counter("reasons", "for which the gateway is degraded", gauge=True),
}
