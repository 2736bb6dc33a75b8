"""Findings: what can be found out about a packet, a stream or a dialogue, and what can be done about it.

Promises: one table, whose order is the core's numbering. Does not know profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

__all__ = ["FINDINGS", "FINDING_INDEX", "Action", "FindingSpec"]


class Action(StrEnum):
    """What happens to the bytes of a finding, weakest first.

    ``drop-connection`` drops the packet and every later one of the flow, without a
    RST; ``reset`` drops the packet and sends a RST to both sides (ASA Firewall CLI
    guide, "Configure an ESMTP Inspection Policy Map").
    """

    PASS = "pass"
    LOG = "log"
    MASK = "mask"
    BLANK = "blank"
    DROP = "drop"
    DROP_CONNECTION = "drop-connection"
    RESET = "reset"


class FindingSpec(msgspec.Struct, frozen=True):
    """One kind of finding: its name, its meaning, and the action where a profile does not name one.

    ``signature``: its id in EVE alerts, from the range for local rules (below 2,000,000). Never renumbered; a new
    finding gets the next free one. ``actions`` are the actions the engine can carry out for it; none: ``[on]`` decides
    (``CONDITIONS``), and the finding is reported in any case.
    """

    name: str
    signature: int
    meaning: str
    default: Action
    actions: tuple[Action, ...] = (Action.PASS, Action.LOG, Action.DROP_CONNECTION, Action.RESET)


_EDIT_MASK = (Action.PASS, Action.LOG, Action.MASK, Action.DROP_CONNECTION, Action.RESET)
_EDIT_BLANK = (Action.PASS, Action.LOG, Action.BLANK, Action.DROP_CONNECTION, Action.RESET)
_DROP = (Action.PASS, Action.LOG, Action.DROP, Action.RESET)
_BY_CONDITION: tuple[Action, ...] = ()

#: Every finding, in the order of the core's finding numbers (the index is the number).
FINDINGS: tuple[FindingSpec, ...] = (
    FindingSpec("none", 0, "placeholder for number 0", Action.PASS, (Action.PASS,)),
    FindingSpec("command.denied", 1_825_001, "a verb the profile does not let through", Action.MASK, _EDIT_MASK),
    FindingSpec(
        "command.too_long",
        1_825_002,
        "a command line longer than commands.line_length",
        Action.DROP_CONNECTION,
        _EDIT_MASK,
    ),
    FindingSpec("command.bare_lf", 1_825_003, "LF without CR in a command line", Action.BLANK, _EDIT_BLANK),
    FindingSpec(
        "command.bare_cr",
        1_825_004,
        "CR without LF in a command line; the next byte becomes the LF",
        Action.BLANK,
        _EDIT_BLANK,
    ),
    FindingSpec(
        "command.nul",
        1_825_005,
        "a NUL in a command line; behind the verb it becomes a space",
        Action.BLANK,
        _EDIT_BLANK,
    ),
    FindingSpec(
        "command.too_many_outstanding",
        1_825_006,
        "more unanswered commands than limits.outstanding_commands",
        Action.RESET,
    ),
    FindingSpec(
        "command.pipelined_too_far",
        1_825_007,
        "the client goes on without waiting for the reply to DATA, AUTH or STARTTLS (RFC 2920 3.1, RFC 3207 4.2)",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec(
        "banner.masked",
        1_825_008,
        "the server's 220 greeting is hidden by the profile's banner rule",
        Action.MASK,
        _EDIT_MASK,
    ),
    FindingSpec("reply.keyword_masked", 1_825_009, "an EHLO keyword the profile hides", Action.MASK, _EDIT_MASK),
    FindingSpec(
        "reply.turned_ok",
        1_825_010,
        "the server's refusal of a masked command becomes 250 OK (commands.unknown = ok)",
        Action.MASK,
        _EDIT_MASK,
    ),
    FindingSpec("reply.malformed", 1_825_011, "a reply line that does not start with three digits", Action.LOG),
    FindingSpec("reply.unsolicited", 1_825_012, "a reply with no command outstanding", Action.LOG),
    FindingSpec(
        "reply.ambiguous",
        1_825_013,
        "a 354 or 334 that no outstanding command explains, or a reply to BDAT before its octets have come",
        Action.RESET,
    ),
    FindingSpec(
        "address.illegal_character",
        1_825_014,
        "a character not allowed in a MAIL or RCPT address",
        Action.BLANK,
        _EDIT_BLANK,
    ),
    FindingSpec(
        "address.too_long", 1_825_015, "a MAIL address longer than address.sender_length", Action.DROP_CONNECTION
    ),
    FindingSpec(
        "recipients.too_many",
        1_825_016,
        "more RCPT commands in one mail than address.recipients",
        Action.DROP_CONNECTION,
    ),
    FindingSpec(
        "header.line_too_long", 1_825_017, "a header line longer than data.header_line_length", Action.DROP_CONNECTION
    ),
    FindingSpec("data.line_too_long", 1_825_018, "a body line longer than data.body_line_length", Action.LOG),
    FindingSpec(
        "data.smuggling_shape",
        1_825_019,
        "an end of data other than CRLF.CRLF that some servers accept",
        Action.BLANK,
        _EDIT_BLANK,
    ),
    FindingSpec(
        "data.bare_lf", 1_825_020, "LF without CR in a message (RFC 5321 2.3.8); the first one is told", Action.LOG
    ),
    FindingSpec(
        "data.bare_cr", 1_825_021, "CR without LF in a message (RFC 5321 2.3.8); the first one is told", Action.LOG
    ),
    FindingSpec(
        "data.nul",
        1_825_022,
        "a NUL in a message (RFC 5321 4.5.2), a space from here on; the first is told",
        Action.BLANK,
        _EDIT_BLANK,
    ),
    FindingSpec(
        "bug.dot_crlf",
        1_825_023,
        "the end of data is cut between packets: the second one is lost (CSCds90792)",
        Action.DROP,
        (Action.PASS, Action.LOG, Action.DROP),
    ),
    FindingSpec(
        "bug.data_bypass",
        1_825_024,
        "a refused DATA began a message: all is let through to the dot (CSCdr91002, CVE-2000-1022)",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec(
        "bug.noop_body",
        1_825_025,
        "after a NOOP a message is taken for commands and X-ed (CSCdk46673)",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec("bdat.size_invalid", 1_825_026, "a BDAT size that is not a number in range", Action.MASK, _EDIT_MASK),
    FindingSpec(
        "bdat.not_offered",
        1_825_027,
        "BDAT although the EHLO reply as sent did not offer CHUNKING",
        Action.MASK,
        _EDIT_MASK,
    ),
    FindingSpec(
        "tls.started",
        1_825_028,
        "STARTTLS accepted: the rest of the connection is opaque",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec(
        "tls.not_a_handshake",
        1_825_029,
        "the first byte after STARTTLS is not a TLS handshake record (RFC 8446 5.1)",
        Action.RESET,
    ),
    FindingSpec(
        "flow.limit", 1_825_030, "the flow table is full and nothing in it may be evicted", Action.LOG, _BY_CONDITION
    ),
    FindingSpec("flow.asymmetric", 1_825_031, "only one direction of the flow is seen", Action.LOG, _BY_CONDITION),
    FindingSpec("flow.not_smtp", 1_825_032, "the server did not begin with a reply code", Action.LOG, _BY_CONDITION),
    FindingSpec("flow.midstream", 1_825_033, "a flow whose beginning was not seen", Action.LOG, _BY_CONDITION),
    FindingSpec("stream.gap", 1_825_034, "bytes went past the gateway unseen", Action.LOG, _BY_CONDITION),
    FindingSpec(
        "stream.conflicting_retransmission",
        1_825_035,
        "a retransmission with other bytes; the first ones stand",
        Action.LOG,
        _BY_CONDITION,
    ),
    FindingSpec(
        "stream.edit_too_late", 1_825_036, "a byte that has already left would have to change", Action.RESET, _DROP
    ),
    FindingSpec(
        "stream.pending_limit", 1_825_037, "more out-of-order segments than the limits allow", Action.LOG, _BY_CONDITION
    ),
    FindingSpec("stream.memory_limit", 1_825_038, "no memory left under limits.memory", Action.LOG, _BY_CONDITION),
    FindingSpec("stream.urgent", 1_825_039, "urgent data (RFC 9293 3.8.5): URG is cleared", Action.LOG, _DROP),
    FindingSpec(
        "packet.truncated", 1_825_040, "the queue delivered less than the whole packet", Action.LOG, _BY_CONDITION
    ),
    FindingSpec(
        "packet.fragment", 1_825_041, "a part of a packet that nobody has put together before us", Action.DROP, _DROP
    ),
    FindingSpec(
        "packet.odd_flags",
        1_825_042,
        "TCP flags no TCP sends: SYN with FIN or RST, none of SYN, ACK, RST",
        Action.DROP,
        _DROP,
    ),
    FindingSpec(
        "packet.syn_data",
        1_825_043,
        "data on a SYN (TCP Fast Open, RFC 7413): cut off",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec(
        "packet.multipath",
        1_825_044,
        "a SYN offers Multipath TCP (RFC 8684): the option is blanked",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec(
        "packet.wrong_interface",
        1_825_045,
        "a packet of the flow on another interface than the flow began on",
        Action.LOG,
        _BY_CONDITION,
    ),
    FindingSpec(
        "upstream.banner_masked", 1_825_046, "the greeting was masked before it reached us", Action.LOG, (Action.LOG,)
    ),
    FindingSpec(
        "upstream.command_masked", 1_825_047, "a command was masked before it reached us", Action.LOG, (Action.LOG,)
    ),
    FindingSpec(
        "upstream.keyword_masked",
        1_825_048,
        "an EHLO keyword was masked before it reached us",
        Action.LOG,
        (Action.LOG,),
    ),
    FindingSpec("restore.banner", 1_825_049, "a masked greeting became the configured one", Action.LOG, (Action.LOG,)),
    FindingSpec("restore.command", 1_825_050, "a masked command became what it was", Action.LOG, (Action.LOG,)),
    FindingSpec("restore.keyword", 1_825_051, "a masked EHLO keyword became what it was", Action.LOG, (Action.LOG,)),
    FindingSpec("header.too_long", 1_825_054, "a header longer than data.header_length", Action.DROP_CONNECTION),
    FindingSpec(
        "header.to_fields_too_many", 1_825_055, "more To fields in a header than data.to_fields", Action.DROP_CONNECTION
    ),
    FindingSpec("data.too_long", 1_825_056, "a body longer than data.body_length", Action.DROP_CONNECTION),
    FindingSpec(
        "recipients.invalid_too_many",
        1_825_057,
        "more recipients of one mail refused by the server than address.invalid_recipients",
        Action.DROP_CONNECTION,
    ),
    FindingSpec(
        "mime.filename_too_long", 1_825_053, "a MIME file name longer than data.filename_length", Action.DROP_CONNECTION
    ),
    FindingSpec(
        "restore.not_recoverable", 1_825_052, "what was masked cannot be told, or is left on purpose", Action.LOG
    ),
    FindingSpec(
        "stream.end_kept",
        1_825_058,
        "an end of data was cut between packets: its beginning waits for the rest (mode restore, with a banner)",
        Action.LOG,
        (Action.LOG,),
    ),
    FindingSpec(
        "command.line_cut",
        1_825_059,
        "a command line, or one behind AUTH, that some servers do not read as one: they take its rest for another",
        Action.MASK,
        (Action.MASK, Action.DROP_CONNECTION, Action.RESET),
    ),
    FindingSpec(
        "packet.other_connection",
        1_825_060,
        "addresses are translated, and conntrack takes the packet for another connection's than the flow's",
        Action.DROP,
        _DROP,
    ),
    FindingSpec(
        "command.too_many_junk",
        1_825_061,
        "more commands than limits.junk_commands led to nothing since the last message the server accepted",
        Action.RESET,
    ),
)

FINDING_INDEX: Mapping[str, int] = {spec.name: index for index, spec in enumerate(FINDINGS)}
