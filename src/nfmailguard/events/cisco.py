"""Findings as the log lines of a PIX or ASA, word for word.

Promises: one line per event, in the documented wording (docs/sources.md, S-SYSLOG); a peer's bytes are escaped, so that
no peer can forge a log line. What a firewall of that release does not log is not logged. Does not know where the lines
go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from nfmailguard.engine import ACTIONS
from nfmailguard.events.allowance import Rate, source_of
from nfmailguard.events.records import Record, RecordKind, address_text
from nfmailguard.events.targets import Interfaces
from nfmailguard.plain import octets
from nfmailguard.policy.model import FINDINGS, Action, BannerRule, FlowRule, Policy
from nfmailguard.smtp.verbs import VERB_INDEX

__all__ = ["CLASSES", "CiscoWriter", "Message", "Messages"]

#: Syslog severity of each Cisco message (S-SYSLOG): 507003 and 108004 are warnings, 108006 is a debugging message.
SEVERITIES: Mapping[int, int] = {108002: 2, 108003: 2, 108004: 4, 108005: 6, 108006: 7, 108007: 6, 507003: 4}
#: The match classes of Cisco's default inspection map, in its order: finding name and how the class is written. The
#: position, from 1, is the number after "Class" in the message.
CLASSES: tuple[tuple[str, Callable[[Policy], str]], ...] = (
    ("command.too_long", lambda policy: f"cmd line length gt {policy.commands.line_length}"),
    ("recipients.too_many", lambda policy: f"cmd RCPT count gt {policy.address.recipients}"),
    ("data.line_too_long", lambda policy: f"body line length gt {policy.data.body_line_length}"),
    ("header.line_too_long", lambda policy: f"header line length gt {policy.data.header_line_length}"),
    ("address.too_long", lambda policy: f"sender-address length gt {policy.address.sender_length}"),
    ("mime.filename_too_long", lambda policy: f"MIME filename length gt {policy.data.filename_length}"),
    ("reply.keyword_masked", lambda policy: "ehlo-reply-parameter others"),
)
_NUMBERS = {name: (number, written) for number, (name, written) in enumerate(CLASSES, start=1)}
_DEEDS = {Action.DROP_CONNECTION: "Dropped connection for", Action.RESET: "Reset connection for"}
_PIX = (BannerRule.B40, BannerRule.B44, BannerRule.B51)
_MAIL, _DATA = VERB_INDEX["MAIL"], VERB_INDEX["DATA"]
_ANEW = tuple(VERB_INDEX[name] for name in ("HELO", "EHLO", "RSET"))
_MOST_ASKED = 20
_MOST_FLOWS = 8_192


class Message(NamedTuple):
    """One log message: its number, its text after ``%ASA-n-number: ``, and its style (PIX or ASA)."""

    number: int
    text: str
    style: str

    @property
    def severity(self) -> int:
        return SEVERITIES[self.number]

    def __str__(self) -> str:
        return f"%{self.style}-{self.severity}-{self.number}: {self.text}"


class Messages(Protocol):
    """Takes messages; ``now`` is in nanoseconds since 1970."""

    def send(self, messages: Sequence[tuple[int, Message]]) -> None: ...


class CiscoWriter:
    """Writes what an Engine recorded. ``rules`` are the engine's; ``style``: "pix", "asa" or by the profile.

    ``rate``: bytes of messages per second; None: all.
    """

    def __init__(
        self,
        rules: Sequence[FlowRule],
        sink: Messages,
        *,
        interfaces: Interfaces | None = None,
        style: str = "auto",
        rate: int | None = None,
    ) -> None:
        # One rate without a part for forged sources: no Cisco message is written for what a forged source address can
        # cause.
        self._rate = Rate(rate)
        self._style_wanted = style
        # Policy and message style (PIX or ASA), by the rule number in Record.rule.
        self._policies: dict[int, tuple[Policy, str]] = {}
        self.learn(0, rules)
        self._sink = sink
        self._interfaces = interfaces or Interfaces()
        self._declared: dict[int, _Declared] = {}  # Declared message sizes (SIZE=) by flow number.
        self.written = 0
        #: Number of messages withheld because the rate limit was exceeded.
        self.withheld = 0

    def learn(self, first: int, rules: Sequence[FlowRule]) -> None:
        """Tells the writer the rules that records refer to, numbered from ``first``, before such records come."""
        style = self._style_wanted
        for number, rule in enumerate(rules, first):
            self._policies[number] = rule.policy, self._style(rule.policy, style)

    def _takes(self, record: Record, message: Message) -> bool:
        taken = self._rate.takes(source_of(record.client), len(str(message)), record.now)
        self.withheld += not taken
        return taken

    @staticmethod
    def _style(policy: Policy, style: str) -> str:
        return style.upper() if style != "auto" else "PIX" if policy.banner.rule in _PIX else "ASA"

    def write(self, records: list[tuple[Any, ...]]) -> None:
        """Writes drained records, in order."""
        found = []
        for drained in records:
            record = Record.of(drained)
            found += [(record.now, message) for message in self._messages(record) if self._takes(record, message)]
        if found:
            self._sink.send(found)
            self.written += len(found)

    def _messages(self, record: Record) -> list[Message]:
        policy, style = self._policies[record.rule]
        if record.kind == RecordKind.FINDING:
            texts = self._finding(record, policy)
        elif record.kind == RecordKind.REPEATED:
            return []  # A Cisco firewall has no message for repeated findings.
        elif record.kind == RecordKind.FLOW:
            self._declared.pop(record.flow_id, None)
            return []
        else:
            texts = self._size(record)
        # 108002 is the only one of these messages that a PIX up to 6.3 knows.
        return [Message(number, text, style) for number, text in texts if style != "PIX" or number == 108002]

    def _ends(self, record: Record) -> tuple[str, str]:
        """Client and server as ``interface:address/port``."""
        client, server = address_text(record.family, record.client), address_text(record.family, record.server)
        names = self._interfaces
        return (
            f"{names.name(client, names.client)}:{client}/{record.client_port}",
            f"{names.name(server, names.server)}:{server}/{record.server_port}",
        )

    def _finding(self, record: Record, policy: Policy) -> list[tuple[int, str]]:
        name, action = FINDINGS[record.finding].name, ACTIONS[record.action]
        client, server = self._ends(record)
        source, target = (client, server) if record.to_server else (server, client)
        if name == "tls.started":
            return [(108007, f"TLS started on ESMTP session between client {client} and server {server}")]
        if action is not Action.LOG and not record.applied:
            # The action was not carried out (monitor mode or dry run), so the firewall's message is not written.
            return []
        if name == "address.illegal_character":
            return self._address(record, action, source, target)
        if name not in _NUMBERS or (name == "reply.keyword_masked" and action is Action.MASK):
            return []  # Where an action masks and does not also log, a Cisco firewall writes no message.
        number, written = _NUMBERS[name]
        what = "Request" if record.to_server else "Response"
        matched = f"matched Class {number}: {written(policy)}"
        if action is Action.LOG:
            return [(108005, f"ESMTP Classification: Received ESMTP {what} from {source} to {target}; {matched}")]
        deed = _DEEDS.get(action, "Masked header flags for")
        texts = [(108004, f"ESMTP Classification: {deed} ESMTP {what} from {source} to {target}; {matched}")]
        return texts + ([_terminated(source, target)] if action in _DEEDS else [])

    def _address(self, record: Record, action: Action, source: str, target: str) -> list[tuple[int, str]]:
        if action is Action.BLANK:
            out, inside = (address_text(record.family, end) for end in (record.client, record.server))
            return [(108002, f"SMTP replaced string: out {out} in {inside} data: {octets(record.before)}")]
        if action not in _DEEDS:
            return []
        text = (
            "Terminating ESMTP connection; malicious pattern detected in the mail address from"
            f" {source} to {target}. Mail Address:{octets(record.before)}"
        )
        return [(108003, text), _terminated(source, target)]

    def _size(self, record: Record) -> list[tuple[int, str]]:
        sizes_of = self._declared.get(record.flow_id)
        if record.kind == RecordKind.COMMAND and record.verb == _MAIL and not record.numbers[1] & 1:
            if sizes_of is None:
                if len(self._declared) >= _MOST_FLOWS:
                    # The table is full: the flow that was entered first is removed.
                    del self._declared[next(iter(self._declared))]
                sizes_of = self._declared[record.flow_id] = _Declared()
            sizes_of.asked = (*sizes_of.asked, _declared_size(record.before))[-_MOST_ASKED:]
        elif sizes_of is not None and record.kind == RecordKind.REPLY:
            sizes_of.answered(record.verb, record.code)
        elif sizes_of is not None and record.kind == RecordKind.MESSAGE:
            declared, actual = sizes_of.accepted, record.numbers[0]
            sizes_of.accepted = None
            if declared is not None and actual > declared:
                client, server = self._ends(record)
                sizes = f"declared size is: {declared}, actual size is {actual}"
                return [(108006, f"Detected ESMTP size violation from {client} to {server}; {sizes}")]
        return []


def _terminated(source: str, target: str) -> tuple[int, str]:
    reason = "inspector disconnected, dropped packet."
    return 507003, f"tcp flow from {source} to {target} terminated by inspection engine, reason - {reason}"


class _Declared:
    """Declared sizes (SIZE=) of a flow's mails: those whose MAIL is not answered yet, and the one being sent."""

    __slots__ = ("accepted", "asked")

    def __init__(self) -> None:
        self.asked: tuple[int | None, ...] = ()
        self.accepted: int | None = None

    def answered(self, verb: int, code: int) -> None:
        """Takes the reply to a command."""
        if verb == _DATA:
            self.asked = ()  # The unanswered MAIL commands were lines of a message after DATA, not commands.
        elif verb == _MAIL:
            size, self.asked = (self.asked[0] if self.asked else None), self.asked[1:]
            self.accepted = size if 200 <= code < 300 else self.accepted
        elif verb in _ANEW and 200 <= code < 300:
            self.accepted = None


def _declared_size(line: bytes) -> int | None:
    """The value of SIZE= in a MAIL command (RFC 1870); None: it has none."""
    for word in line.upper().split(b" ")[1:]:
        if word.startswith(b"SIZE=") and word[5:].isdigit() and len(word) <= 20:
            return int(word[5:])
    return None
