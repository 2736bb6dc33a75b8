"""EVE ``alert`` records: findings for consumers that list only those.

Promises: a finding's signature id stays the same from version to version; new findings get
new ids. Does not know how an event is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nfmailguard.policy.model import FINDING_INDEX, FINDINGS, Action

__all__ = ["SIGNATURES", "alert"]

#: Of the range for local rules (below 2,000,000), by finding. Never renumbered.
SIGNATURES: Mapping[str, int] = {
    name: 1_825_000 + number
    for number, name in enumerate(
        (
            *("command.denied", "command.too_long", "command.bare_lf", "command.bare_cr"),
            *("command.nul", "command.too_many_outstanding", "command.pipelined_too_far", "banner.masked"),
            *("reply.keyword_masked", "reply.turned_ok", "reply.malformed", "reply.unsolicited"),
            *("reply.ambiguous", "address.illegal_character", "address.too_long", "recipients.too_many"),
            *("header.line_too_long", "data.line_too_long", "data.smuggling_shape", "data.bare_lf"),
            *("data.bare_cr", "data.nul", "bug.dot_crlf", "bug.data_bypass"),
            *("bug.noop_body", "bdat.size_invalid", "bdat.not_offered", "tls.started"),
            *("tls.not_a_handshake", "flow.limit", "flow.asymmetric", "flow.not_smtp"),
            *("flow.midstream", "stream.gap", "stream.conflicting_retransmission", "stream.edit_too_late"),
            *("stream.pending_limit", "stream.memory_limit", "stream.urgent", "packet.truncated"),
            *("packet.fragment", "packet.odd_flags", "packet.syn_data", "packet.multipath"),
            *("packet.wrong_interface", "upstream.banner_masked", "upstream.command_masked", "upstream.keyword_masked"),
            *("restore.banner", "restore.command", "restore.keyword", "restore.not_recoverable"),
            *(
                "mime.filename_too_long",
                "header.too_long",
                "header.to_fields_too_many",
                "data.too_long",
                "recipients.invalid_too_many",
                "stream.end_kept",
                "command.line_cut",
                "packet.other_connection",
                "command.too_many_junk",
            ),
        ),
        start=1,
    )
}
#: Suricata's classification, by a finding's area or name: its text and its priority.
_CATEGORIES: Mapping[str, tuple[str, int]] = {
    "data.smuggling_shape": ("Attempted Administrator Privilege Gain", 1),
    "stream.conflicting_retransmission": ("Potentially Bad Traffic", 2),
    "address": ("Potentially Bad Traffic", 2),
    "restore": ("Misc activity", 3),
    "upstream": ("Misc activity", 3),
    "flow": ("Misc activity", 3),
}
_DECODE = ("Generic Protocol Command Decode", 3)
_BLOCKS = (Action.DROP, Action.DROP_CONNECTION, Action.RESET)


def alert(finding: str, action: Action, *, applied: bool) -> dict[str, Any]:
    """The body of an alert, as Suricata has it."""
    category, severity = _CATEGORIES.get(finding, _CATEGORIES.get(finding.partition(".")[0], _DECODE))
    return {
        "action": "blocked" if applied and action in _BLOCKS else "allowed",
        "gid": 1,
        "signature_id": SIGNATURES[finding],
        "rev": 1,
        "signature": f"NFMAILGUARD {finding}: {FINDINGS[FINDING_INDEX[finding]].meaning}",
        "category": category,
        "severity": severity,
    }
