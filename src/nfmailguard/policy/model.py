"""The policy vocabulary: modes, conditions, limits, and the immutable Policy the core runs on.

Promises: values only, no input or output. Does not know packets or bytes on the wire.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from enum import IntEnum, StrEnum

import msgspec

from nfmailguard.policy.findings import FINDING_INDEX, FINDINGS, Action, FindingSpec

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
    "Conduct",
    "DataPolicy",
    "EhloMask",
    "FindingSpec",
    "FlowRule",
    "Limits",
    "Mode",
    "MultilineBanner",
    "Network",
    "Offer",
    "On",
    "PartialLines",
    "Policy",
    "ReplyPolicy",
    "Restore",
    "RestoreScope",
    "RestoreSide",
    "UnknownCommand",
]


class Mode(StrEnum):
    """What the gateway does with a finding: act on it, report it, or undo the damage of a Mailguard elsewhere."""

    ENFORCE = "enforce"
    MONITOR = "monitor"
    RESTORE = "restore"


class Conduct(IntEnum):
    """What may be done to a flow's bytes; the values are the core's numbers."""

    #: The flow's packets pass unchanged; they are only parsed and reported.
    WATCH = 0
    #: Bytes are changed in place; packets from the client are never held.
    EDIT = 1
    #: No byte is delivered before a decision about it; packets that cannot be decided yet are held.
    GATE = 2


class BannerRule(StrEnum):
    """How a 220 greeting is hidden.

    ``none``: not at all. ``b40``: ``SMTP/cmap ready`` padded with ``_`` (PIX 4.0/4.1).
    ``b44``: all stars (4.4). ``b51``: stars except every ``2`` and ``0``, and a space after a ``0`` (5.1-6.3).
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
    """What a denied command becomes: X over the verb, X over the whole line, NOOP, or X with its refusal turned into
    250.
    """

    XVERB = "xverb"
    XALL = "xall"
    NOOP = "noop"
    OK = "ok"


class PartialLines(StrEnum):
    """A verb split over segments: decided by its prefix, or masked packet by packet as Cisco does."""

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
    #: Longest command line in bytes, without CRLF; a longer one is ``command.too_long``; None: no limit.
    line_length: int | None = None
    #: Longest AUTH line, or base64 line of its exchange, in bytes; a longer one is ``command.line_cut``. RFC 4954 4:
    #: 12288 with the CRLF.
    secret_length: int = 12286
    partial_lines: PartialLines = PartialLines.PREFIX


class ReplyPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ehlo: EhloMask = EhloMask.NONE
    #: EHLO keywords that are not masked, upper case.
    keywords: tuple[str, ...] = ()
    #: Characters, besides CR and LF, that end an EHLO keyword.
    keyword_end: str = " "


class AddressPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    #: Characters replaced with a space anywhere in a MAIL or RCPT argument.
    characters: str = ""
    #: Replace unpaired ``<`` and ``>`` in MAIL and RCPT arguments with a space.
    brackets: bool = False
    #: Longest MAIL address in bytes (between ``<`` and ``>``, else the first word after the colon); None: no limit.
    sender_length: int | None = None
    #: Most RCPT commands in one mail; None: no limit.
    recipients: int | None = None
    #: Most recipients of one mail that the server refused (5xx); None: no limit.
    invalid_recipients: int | None = None


class DataPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    #: Longest line of the header, and of the body, in bytes without CRLF; None: not checked.
    header_line_length: int | None = None
    body_line_length: int | None = None
    #: Largest size of the whole header, and of the whole body, in bytes with line ends, checked as each line ends;
    #: None: no limit.
    header_length: int | None = None
    body_length: int | None = None
    #: Most "To:" fields in a message's header; None: no limit.
    to_fields: int | None = None
    #: Longest file name in a header or MIME part (RFC 2183, RFC 2045), in bytes; None: not checked.
    filename_length: int | None = None
    #: Clear the eighth bit of every byte the client sends: for a server that reads seven bits (sendmail's
    #: SevenBitInput), to which 0x8D 0x8A 0xAE would end a message. BDAT is not let through.
    seven_bits: bool = False


class BugPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Emulation of historic Cisco bugs, for the lab: an enforcing gateway with one of them protects nothing."""

    #: Emulates CSCds90792: an end of data that is split between packets is not passed on.
    dot_crlf: bool = False
    #: Emulates CSCdr91002, CSCds30699, CVE-2000-1022: after DATA everything is message text, even if the server refuses
    #: DATA.
    data_bypass: bool = False
    #: Emulates CSCdk46673: after a NOOP, the lines of a message are taken for commands.
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
    #: Action by finding name, where it differs from the default in ``FINDINGS``.
    actions: dict[str, Action] = {}

    def action(self, finding: str) -> Action:
        """The action of ``finding`` under this policy; KeyError for a name not in FINDINGS."""
        return self.actions.get(finding, FINDINGS[FINDING_INDEX[finding]].default)


class Concerns(StrEnum):
    """What a condition of ``[on]`` concerns, and so which actions are possible: no RST where no flow is known.

    "drop" drops the packet, or everything that is left of the flow, without a RST.
    """

    PACKET = "packet"
    FLOW = "flow"
    GATEWAY = "gateway"


class ConditionSpec(msgspec.Struct, frozen=True):
    """One exceptional condition: its ``[on]`` setting, and what is done and counted when it happens.

    ``enforce`` is the action in enforce mode if the configuration has none; monitor mode passes. ``counter`` counts the
    condition whatever the action, under its name in ``stats`` events.
    """

    name: str
    concerns: Concerns
    enforce: Action
    counter: str
    meaning: str

    @property
    def actions(self) -> tuple[Action, ...]:
        """The legal actions."""
        return (Action.PASS, Action.DROP, Action.RESET)[: 2 if self.concerns is Concerns.GATEWAY else 3]

    @property
    def finding(self) -> str | None:
        """The finding that reports it; None: it has only a counter."""
        return self.counter.removeprefix("finding.") if self.counter.startswith("finding.") else None


_PACKET, _FLOW, _GATEWAY = Concerns
_SPECS = (
    ("flow_limit", _PACKET, Action.DROP, "finding.flow.limit", "the flow table is full"),
    ("memory_limit", _FLOW, Action.RESET, "finding.stream.memory_limit", "limits.memory is used up"),
    ("pending_limit", _PACKET, Action.DROP, "finding.stream.pending_limit", "too many segments out of order"),
    ("gap", _FLOW, Action.RESET, "finding.stream.gap", "the gateway missed bytes of this connection"),
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
    ("internal_error", _GATEWAY, Action.DROP, "internal_errors", "an internal error of this program"),
    ("queue_full", _GATEWAY, Action.DROP, "queue.kernel_queue_dropped", "more packets than queue.length"),
    ("no_listener", _GATEWAY, Action.DROP, "queue.rule_packets", "nfmailguard is not running, as after a crash"),
    ("midstream", _FLOW, Action.RESET, "finding.flow.midstream", "a flow whose beginning was not seen"),
    (
        *("midstream_at_start", _FLOW, Action.PASS, "flows_midstream"),
        "the same, while limits.startup lasts: flows that were open before us",
    ),
)
#: Every exceptional condition by its ``[on]`` setting, in the order of ``On``. The findings of these conditions take
#: their action from ``[on]``, never from a policy.
CONDITIONS: Mapping[str, ConditionSpec] = {spec[0]: ConditionSpec(*spec) for spec in _SPECS}
#: The exceptional condition that decides a finding's action, by the finding's name.
CONDITION_OF: Mapping[str, ConditionSpec] = {spec.finding: spec for spec in CONDITIONS.values() if spec.finding}


#: Conditions in which restore mode does not simply pass the packet: a flow whose bytes are changed must be followed
#: further, or its receiver gets two versions of the same bytes.
_STREAMS = ("memory_limit", "pending_limit", "gap", "conflict", "wrong_interface")


class On(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[on]``: what to do when something exceptional happens: pass, drop or reset.

    None is the default of the flow's mode: ``enforce`` never lets an uninspected byte through, ``monitor`` never stops
    one, ``restore`` stops only what it could not repeat consistently. ``conflict = "pass"`` still restores the bytes
    that came first: the setting decides whether the flow continues.
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
        if mode is Mode.MONITOR or (mode is Mode.RESTORE and condition not in _STREAMS):
            return Action.PASS
        return CONDITIONS[condition].enforce


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[limits]``: sizes in bytes or counts, times in seconds."""

    flows: int = 131_072
    #: Most open flows of one client (an IPv4 address or an IPv6 /64); None: as many as are still free.
    flows_per_source: int | None = None
    #: Most bytes of memory that peers can make a queue use: half for flows, half for streams, held packets and lines.
    memory: int = 256 * 1024 * 1024
    #: Most out-of-order segments remembered for one direction of one flow.
    pending_segments: int = 256
    #: Most packets of all flows held in the kernel's queue; the driver lowers it to a quarter of the queue's length.
    held_packets: int = 1024
    #: Most packets held for one flow, and for one sender (an IPv4 address or an IPv6 /64).
    held_per_flow: int = 64
    held_per_source: int = 256
    #: Seconds a packet may be held before it is dropped.
    held: float = 30.0
    #: If a flow's receivers take less than a quarter of its buffered bytes within this many seconds, it gives way to
    #: other flows when memory is short; a fifth of that time when almost no memory is left.
    stalled: float = 5.0
    outstanding_commands: int = 2000
    #: Most commands, answered since the last accepted message, that led to no recipient, chunk or message; 0: no limit.
    #: The default is ten times Postfix's smtpd_junk_command_limit, more than any honest client needs.
    junk_commands: int = 1000
    #: The first findings of one kind in a flow that are reported; after these one is reported each time the number has
    #: doubled.
    findings_told: int = 16
    #: event_memory: most bytes of flow state kept to put mails together for events. log_rate: most bytes of events
    #: written per second.
    event_memory: int = 64 * 1024 * 1024
    log_rate: int = 8 * 1024 * 1024
    #: Seconds without a packet after which a flow is forgotten, while it is in the handshake (embryonic), open (idle)
    #: or closed (closing). ``greeting``: seconds a server has to show that it knows of a connection (RFC 5321
    #: 4.5.3.2.1: five minutes for its 220).
    embryonic: float = 130.0
    greeting: float = 300.0
    idle: float = 3600.0
    closing: float = 130.0
    #: Seconds for which a server may accept a SYN cookie it sent (Linux: about two minutes); 0: no server uses SYN
    #: cookies.
    cookies: float = 180.0
    #: Seconds after the start in which an unknown flow counts as ``midstream_at_start``.
    startup: float = 60.0


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class RestoreSide(StrEnum):
    """On which side of the firewall the gateway is: it can undo only damage that passes it.

    ``client``: banners and replies have been masked. ``server``: commands have been.
    """

    CLIENT = "client"
    SERVER = "server"
    BOTH = "both"


class RestoreScope(StrEnum):
    """What is restored: only what can do no harm with that firewall, or everything that can be
    recognised (for the lab).
    """

    SAFE = "safe"
    ALL = "all"


class Offer(msgspec.Struct, frozen=True):
    """What some servers send where no firewall masks it, as configured or learned (``probe --learn``)."""

    servers: tuple[Network, ...] = ()
    #: The text of each line of these servers' EHLO reply after the first line, in order.
    keywords: tuple[str, ...] = ()
    #: The text of the greeting after ``220 ``.
    banner: str = ""


class Restore(msgspec.Struct, frozen=True):
    """How a rule in ``restore`` mode undoes what the firewall of its profile did; the first offer that fits counts."""

    side: RestoreSide = RestoreSide.BOTH
    scope: RestoreScope = RestoreScope.SAFE
    #: Restore the STARTTLS command and keyword (RFC 3207) too: the TLS handshake after them fails if the firewall still
    #: inspects the bytes.
    starttls: bool = False
    offers: tuple[Offer, ...] = ()


class FlowRule(msgspec.Struct, frozen=True):
    """Which flows get which mode and policy; the first match wins, the last rule matches all.

    ``source`` and ``destination`` are the client's and the server's networks, empty for any; ``interface`` is the one
    on which the client's packets arrive; ``ports`` the server's.
    """

    mode: Mode
    policy: Policy
    source: tuple[Network, ...] = ()
    destination: tuple[Network, ...] = ()
    interface: str | None = None
    ports: tuple[int, ...] = ()
    #: How damage is undone in ``restore`` mode; ``policy`` then describes what the firewall elsewhere on the path did.
    restore: Restore = Restore()
