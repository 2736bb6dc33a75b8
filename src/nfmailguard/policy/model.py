"""The policy vocabulary: modes, findings, actions, and the immutable Policy the core runs on.

Promises: values only, no input or output; every finding the product can report
stands in ``FINDINGS`` with what it means. Does not know packets or bytes on the wire.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import StrEnum

import msgspec

__all__ = [
    "CONDITIONS",
    "CONDITION_OF",
    "FINDINGS",
    "FINDING_INDEX",
    "Action",
    "AddressPolicy",
    "BannerPolicy",
    "BannerRule",
    "BugPolicy",
    "CommandPolicy",
    "Concerns",
    "ConditionSpec",
    "DataPolicy",
    "EhloMask",
    "FindingSpec",
    "FlowRule",
    "Limits",
    "Mode",
    "MultilineBanner",
    "On",
    "PartialLines",
    "Policy",
    "ReplyPolicy",
    "UnknownCommand",
]


class Mode(StrEnum):
    """What the gateway does with a finding: act, report, or undo a Mailguard elsewhere."""

    ENFORCE = "enforce"
    MONITOR = "monitor"
    RESTORE = "restore"


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
    """One kind of finding: its name, its meaning, the action a profile that is silent gets.

    ``actions`` are the actions the engine can carry out for it; none: ``[on]`` decides
    (``CONDITIONS``), and it is told of in any case.
    """

    name: str
    meaning: str
    default: Action
    actions: tuple[Action, ...] = (Action.PASS, Action.LOG, Action.DROP_CONNECTION, Action.RESET)


_EDIT_MASK = (Action.PASS, Action.LOG, Action.MASK, Action.DROP_CONNECTION, Action.RESET)
_EDIT_BLANK = (Action.PASS, Action.LOG, Action.BLANK, Action.DROP_CONNECTION, Action.RESET)
_DROP = (Action.PASS, Action.LOG, Action.DROP, Action.RESET)
_BY_CONDITION: tuple[Action, ...] = ()

#: Every finding, in the order of the core's finding numbers (the index is the number).
FINDINGS: tuple[FindingSpec, ...] = (
    FindingSpec("none", "placeholder for number 0", Action.PASS, (Action.PASS,)),
    FindingSpec("command.denied", "a verb the profile does not let through", Action.MASK, _EDIT_MASK),
    FindingSpec(
        "command.too_long", "a command line longer than commands.line_length", Action.DROP_CONNECTION, _EDIT_MASK
    ),
    FindingSpec("command.bare_lf", "LF without CR in a command line", Action.BLANK, _EDIT_BLANK),
    FindingSpec(
        "command.bare_cr", "CR without LF in a command line; the next byte becomes the LF", Action.BLANK, _EDIT_BLANK
    ),
    FindingSpec(
        "command.nul", "a NUL in a command line; behind the verb it becomes a space", Action.BLANK, _EDIT_BLANK
    ),
    FindingSpec(
        "command.too_many_outstanding", "more unanswered commands than limits.outstanding_commands", Action.RESET
    ),
    FindingSpec(
        "command.pipelined_too_far",
        "the client goes on without waiting for the reply to DATA, AUTH or STARTTLS (RFC 2920 3.1, RFC 3207 4.2)",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec(
        "banner.masked", "the server's 220 greeting is hidden by the profile's banner rule", Action.MASK, _EDIT_MASK
    ),
    FindingSpec("reply.keyword_masked", "an EHLO keyword the profile hides", Action.MASK, _EDIT_MASK),
    FindingSpec(
        "reply.turned_ok",
        "the server's refusal of a masked command becomes 250 OK (commands.unknown = ok)",
        Action.MASK,
        _EDIT_MASK,
    ),
    FindingSpec("reply.malformed", "a reply line that does not start with three digits", Action.LOG),
    FindingSpec("reply.unsolicited", "a reply with no command outstanding", Action.LOG),
    FindingSpec(
        "reply.ambiguous",
        "a 354 or 334 that no outstanding command explains, or a reply to BDAT before its octets have come",
        Action.RESET,
    ),
    FindingSpec(
        "address.illegal_character", "a character not allowed in a MAIL or RCPT address", Action.BLANK, _EDIT_BLANK
    ),
    FindingSpec("address.too_long", "a MAIL address longer than address.sender_length", Action.DROP_CONNECTION),
    FindingSpec(
        "recipients.too_many", "more RCPT commands in one mail than address.recipients", Action.DROP_CONNECTION
    ),
    FindingSpec("header.line_too_long", "a header line longer than data.header_line_length", Action.DROP_CONNECTION),
    FindingSpec("data.line_too_long", "a body line longer than data.body_line_length", Action.LOG),
    FindingSpec(
        "data.smuggling_shape",
        "an end of data other than CRLF.CRLF that some servers accept",
        Action.BLANK,
        _EDIT_BLANK,
    ),
    FindingSpec("data.bare_lf", "LF without CR in a message (RFC 5321 2.3.8); the first one is told", Action.LOG),
    FindingSpec("data.bare_cr", "CR without LF in a message (RFC 5321 2.3.8); the first one is told", Action.LOG),
    FindingSpec(
        "data.nul",
        "a NUL in a message (RFC 5321 4.5.2), a space from here on; the first is told",
        Action.BLANK,
        _EDIT_BLANK,
    ),
    FindingSpec(
        "bug.dot_crlf",
        "the end of data is cut between packets: the second one is lost (CSCds90792)",
        Action.DROP,
        (Action.PASS, Action.LOG, Action.DROP),
    ),
    FindingSpec(
        "bug.data_bypass",
        "a refused DATA began a message: all is let through to the dot (CSCdr91002, CVE-2000-1022)",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec(
        "bug.noop_body",
        "after a NOOP a message is taken for commands and X-ed (CSCdk46673)",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec("bdat.size_invalid", "a BDAT size that is not a number in range", Action.MASK, _EDIT_MASK),
    FindingSpec(
        "bdat.not_offered", "BDAT although the EHLO reply as sent did not offer CHUNKING", Action.MASK, _EDIT_MASK
    ),
    FindingSpec(
        "tls.started", "STARTTLS accepted: the rest of the connection is opaque", Action.LOG, (Action.PASS, Action.LOG)
    ),
    FindingSpec(
        "tls.not_a_handshake",
        "the first byte after STARTTLS is not a TLS handshake record (RFC 8446 5.1)",
        Action.RESET,
    ),
    FindingSpec("flow.limit", "the flow table is full and nothing in it may be evicted", Action.LOG, _BY_CONDITION),
    FindingSpec("flow.asymmetric", "only one direction of the flow is seen", Action.LOG, _BY_CONDITION),
    FindingSpec("flow.not_smtp", "the server did not begin with a reply code", Action.LOG, _BY_CONDITION),
    FindingSpec("flow.midstream", "a flow whose beginning was not seen", Action.LOG, _BY_CONDITION),
    FindingSpec("stream.gap", "bytes went past the gateway unseen", Action.LOG, _BY_CONDITION),
    FindingSpec(
        "stream.conflicting_retransmission",
        "a retransmission with other bytes; the first ones stand",
        Action.LOG,
        _BY_CONDITION,
    ),
    FindingSpec("stream.edit_too_late", "a byte that has already left would have to change", Action.RESET, _DROP),
    FindingSpec("stream.pending_limit", "more out-of-order segments than the limits allow", Action.LOG, _BY_CONDITION),
    FindingSpec("stream.memory_limit", "no memory left under limits.memory", Action.LOG, _BY_CONDITION),
    FindingSpec("stream.urgent", "urgent data (RFC 9293 3.8.5): URG is cleared", Action.LOG, _DROP),
    FindingSpec("packet.truncated", "the queue delivered less than the whole packet", Action.LOG, _BY_CONDITION),
    FindingSpec("packet.fragment", "a part of a packet that nobody has put together before us", Action.DROP, _DROP),
    FindingSpec(
        "packet.odd_flags", "TCP flags no TCP sends: SYN with FIN or RST, none of SYN, ACK, RST", Action.DROP, _DROP
    ),
    FindingSpec(
        "packet.syn_data", "data on a SYN (TCP Fast Open, RFC 7413): cut off", Action.LOG, (Action.PASS, Action.LOG)
    ),
    FindingSpec(
        "packet.multipath",
        "a SYN offers Multipath TCP (RFC 8684): the option is blanked",
        Action.LOG,
        (Action.PASS, Action.LOG),
    ),
    FindingSpec(
        "packet.wrong_interface",
        "a packet of the flow on another interface than the flow began on",
        Action.LOG,
        _BY_CONDITION,
    ),
    FindingSpec("upstream.banner_masked", "the greeting was masked before it reached us", Action.LOG, (Action.LOG,)),
    FindingSpec("upstream.command_masked", "a command was masked before it reached us", Action.LOG, (Action.LOG,)),
    FindingSpec(
        "upstream.keyword_masked", "an EHLO keyword was masked before it reached us", Action.LOG, (Action.LOG,)
    ),
)

FINDING_INDEX: Mapping[str, int] = {spec.name: index for index, spec in enumerate(FINDINGS)}


class BannerRule(StrEnum):
    """How a 220 greeting is hidden.

    ``none``: not at all. ``b40``: ``SMTP/cmap ready`` padded with ``_`` (PIX 4.0/4.1).
    ``b44``: all stars (4.4). ``b51``: stars except every ``2`` and ``0`` (5.1-6.3).
    ``basa``: code and separator kept, the text all stars (7.0 and later).
    """

    NONE = "none"
    B40 = "b40"
    B44 = "b44"
    B51 = "b51"
    BASA = "basa"


class MultilineBanner(StrEnum):
    """Whether the ``-`` of ``220-`` survives."""

    KEEP_DASH = "keep_dash"
    STAR_DASH = "star_dash"


class UnknownCommand(StrEnum):
    """What a denied command becomes: X on the verb, X on the whole line, NOOP, or X with its refusal made 250."""

    XVERB = "xverb"
    XALL = "xall"
    NOOP = "noop"
    OK = "ok"


class PartialLines(StrEnum):
    """A verb cut over segments: decided by prefix, or masked a packet at a time as Cisco does."""

    PREFIX = "prefix"
    MASK = "mask"


class EhloMask(StrEnum):
    """EHLO reply masking: none, or rule E1 (X's and a running letter)."""

    NONE = "none"
    E1 = "e1"


class BannerPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rule: BannerRule = BannerRule.NONE
    #: Keep the space after 220 (most published samples do; Microsoft KB 320027 prints none).
    separator: bool = True
    multiline: MultilineBanner = MultilineBanner.KEEP_DASH


class CommandPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    #: Verbs let through, upper case; ``*`` alone lets every verb through.
    allow: tuple[str, ...] = ("*",)
    unknown: UnknownCommand = UnknownCommand.XVERB
    letter: str = "X"
    #: Octets of a command line without CRLF; longer is ``command.too_long``; None: no limit.
    line_length: int | None = None
    partial_lines: PartialLines = PartialLines.PREFIX


class ReplyPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ehlo: EhloMask = EhloMask.NONE
    #: EHLO keywords not masked, upper case.
    keywords: tuple[str, ...] = ()
    #: Bytes, besides CR and LF, that end a keyword.
    keyword_end: str = " "


class AddressPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    #: Characters replaced with a space anywhere in a MAIL or RCPT argument.
    characters: str = ""
    #: Replace unpaired ``<`` and ``>`` with a space.
    brackets: bool = False
    #: Octets of the MAIL address (between ``<`` and ``>``, else the first word after the colon).
    sender_length: int | None = None
    #: RCPT commands in one mail; None: no limit.
    recipients: int | None = None


class DataPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    #: Octets of a line without CRLF; None: not looked at.
    header_line_length: int | None = None
    body_line_length: int | None = None


class BugPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Historic faults of Cisco's, for the lab: an enforcing gateway with one of them guards nothing."""

    #: An end of data cut between packets is not passed on (CSCds90792).
    dot_crlf: bool = False
    #: A message begins with DATA, even one the server refuses (CSCdr91002, CSCds30699, CVE-2000-1022).
    data_bypass: bool = False
    #: After a NOOP a message's lines are taken for commands (CSCdk46673).
    noop_body: bool = False


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the core needs to decide, for one flow; immutable, shared by many flows."""

    name: str
    title: str = ""
    banner: BannerPolicy = BannerPolicy()
    commands: CommandPolicy = CommandPolicy()
    replies: ReplyPolicy = ReplyPolicy()
    address: AddressPolicy = AddressPolicy()
    data: DataPolicy = DataPolicy()
    bugs: BugPolicy = BugPolicy()
    #: finding name -> action, where it differs from ``FINDINGS``' default.
    actions: dict[str, Action] = {}

    def action(self, finding: str) -> Action:
        """The action of ``finding`` under this policy; KeyError for a name not in FINDINGS."""
        return self.actions.get(finding, FINDINGS[FINDING_INDEX[finding]].default)


class Concerns(StrEnum):
    """Whom a condition of ``[on]`` concerns, and so what can be done: no RST where no flow is known.

    "drop" drops the packet, or all that is left of the flow, without a RST.
    """

    PACKET = "packet"
    FLOW = "flow"
    GATEWAY = "gateway"


class ConditionSpec(msgspec.Struct, frozen=True):
    """One exceptional condition: its ``[on]`` setting, and what is done and counted when it happens.

    ``enforce`` is the action of a configuration that is silent; monitor passes.
    ``counter`` counts it whatever the action, under its name in ``stats`` events.
    """

    name: str
    concerns: Concerns
    enforce: Action
    counter: str
    meaning: str

    @property
    def actions(self) -> tuple[Action, ...]:
        """The legal ones."""
        return (Action.PASS, Action.DROP, Action.RESET)[: 2 if self.concerns is Concerns.GATEWAY else 3]

    @property
    def finding(self) -> str | None:
        """The finding it is told as; None: by its counter only."""
        return self.counter.removeprefix("finding.") if self.counter.startswith("finding.") else None


_PACKET, _FLOW, _GATEWAY = Concerns
_SPECS = (
    ("flow_limit", _PACKET, Action.DROP, "finding.flow.limit", "the flow table is full"),
    ("memory_limit", _FLOW, Action.RESET, "finding.stream.memory_limit", "limits.memory is used up"),
    ("pending_limit", _PACKET, Action.DROP, "finding.stream.pending_limit", "too many segments out of order"),
    ("gap", _FLOW, Action.RESET, "finding.stream.gap", "bytes went past us"),
    (
        *("conflict", _FLOW, Action.PASS, "finding.stream.conflicting_retransmission"),
        "a retransmission with other bytes; the first ones stand in any case",
    ),
    ("truncated", _PACKET, Action.DROP, "finding.packet.truncated", "a packet is longer than queue.copy_range"),
    ("not_smtp", _FLOW, Action.RESET, "finding.flow.not_smtp", "the server does not begin with a reply code"),
    ("asymmetric", _FLOW, Action.RESET, "finding.flow.asymmetric", "only one direction of the flow comes this way"),
    (
        *("wrong_interface", _PACKET, Action.DROP, "finding.packet.wrong_interface"),
        "a packet on another interface than its flow began on",
    ),
    ("internal_error", _GATEWAY, Action.DROP, "internal_errors", "a fault of ours"),
    ("queue_full", _GATEWAY, Action.DROP, "queue.kernel_queue_dropped", "more packets than queue.length"),
    ("no_listener", _GATEWAY, Action.DROP, "queue.rule_packets", "nobody reads the queue, as after a crash"),
    ("midstream", _FLOW, Action.RESET, "finding.flow.midstream", "a flow whose beginning was not seen"),
    (
        *("midstream_at_start", _FLOW, Action.PASS, "flows_midstream"),
        "the same, while limits.startup lasts: flows that were open before us",
    ),
)
#: Every exceptional condition by its ``[on]`` setting, in the order of ``On``. Their findings
#: take their action from here, never from a policy.
CONDITIONS: Mapping[str, ConditionSpec] = {spec[0]: ConditionSpec(*spec) for spec in _SPECS}
#: The condition that decides a finding, by the finding's name.
CONDITION_OF: Mapping[str, ConditionSpec] = {spec.finding: spec for spec in CONDITIONS.values() if spec.finding}


class On(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[on]``: what to do when something exceptional happens: pass, drop or reset.

    None is the default of the flow's mode: ``enforce`` never lets an uninspected
    byte through, ``monitor`` never stops one. ``conflict = "pass"`` still puts the
    first bytes back: the setting decides whether the flow goes on.
    """

    flow_limit: Action | None = None
    memory_limit: Action | None = None
    pending_limit: Action | None = None
    gap: Action | None = None
    conflict: Action | None = None
    truncated: Action | None = None
    not_smtp: Action | None = None
    asymmetric: Action | None = None
    wrong_interface: Action | None = None
    internal_error: Action | None = None
    queue_full: Action | None = None
    no_listener: Action | None = None
    midstream: Action | None = None
    midstream_at_start: Action = Action.PASS

    def action(self, condition: str, mode: Mode) -> Action:
        """The action for ``condition`` (a field's name) in a flow of ``mode``."""
        chosen: Action | None = getattr(self, condition)
        if chosen is not None:
            return chosen
        if mode is Mode.MONITOR:
            return Action.PASS
        return CONDITIONS[condition].enforce


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[limits]``: sizes in octets or counts, times in seconds."""

    flows: int = 131_072
    #: Cap of all that peers can make a queue keep: half for flows, half for streams, held packets and lines.
    memory: int = 256 * 1024 * 1024
    #: Out-of-order segments remembered for one direction of one flow.
    pending_segments: int = 256
    #: Packets held in the kernel's queue by all flows; the driver lowers it to a quarter of the queue.
    held_packets: int = 1024
    #: Of one flow, and of one sender: an IPv4 address or an IPv6 /64.
    held_per_flow: int = 64
    held_per_source: int = 256
    #: Seconds a packet may be held before it is dropped.
    held: float = 30.0
    outstanding_commands: int = 2000
    #: Seconds without a packet after which a flow is forgotten: handshake not done, open, closed.
    embryonic: float = 30.0
    idle: float = 3600.0
    closing: float = 30.0
    #: Seconds after the start in which an unknown flow counts as ``midstream_at_start``.
    startup: float = 60.0


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class FlowRule(msgspec.Struct, frozen=True):
    """Which flows get which mode and policy; the first match wins, the last rule matches all.

    ``source`` and ``destination`` are the client's and the server's networks, empty
    for any; ``interface`` is the one the client's packets come in on; ``ports`` the
    server's.
    """

    mode: Mode
    policy: Policy
    source: tuple[Network, ...] = ()
    destination: tuple[Network, ...] = ()
    interface: str | None = None
    ports: tuple[int, ...] = ()
