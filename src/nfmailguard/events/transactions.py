"""Mails, put together from commands and replies: what answers "where is mail X?".

Promises: memory is bounded. Each flow has room for a mail's envelope, for which the flow that has
been still the longest gives way, of the same source where that has more than is left; what is
beyond, recipients above all, is kept while a source has no more than is left (Choudhury and Hahne,
"Dynamic queue length thresholds for shared-memory packet switches", 1998), else counted. A mail
that was begun and never finished is told when its flow ends. Secrets of AUTH never get here: the
core keeps them back. Knows SMTP's meaning, not how an event is written.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from nfmailguard.events.allowance import source_of
from nfmailguard.events.records import Record, RecordKind
from nfmailguard.policy.model import FINDINGS
from nfmailguard.smtp.verbs import VERB_INDEX

__all__ = ["TOLD", "Mail", "Transactions"]

_HELLO = (VERB_INDEX["HELO"], VERB_INDEX["EHLO"])
_MAIL, _RCPT, _RSET = VERB_INDEX["MAIL"], VERB_INDEX["RCPT"], VERB_INDEX["RSET"]
_AUTH, _STARTTLS, _BDAT = VERB_INDEX["AUTH"], VERB_INDEX["STARTTLS"], VERB_INDEX["BDAT"]
_END_OF_DATA, _DATA = VERB_INDEX["<end of data>"], VERB_INDEX["DATA"]
#: Commands, and replies to them, of other verbs say nothing about mails.
TOLD = frozenset({"HELO", "EHLO", "MAIL", "RCPT", "RSET", "AUTH", "STARTTLS", "BDAT", "<end of data>"})
_MOST_RECIPIENTS = 100
_MOST_CHANGES = 20
#: MAIL and RCPT commands of a flow whose replies are awaited by name; the rest by their number.
_MOST_PENDING_MAILS = 20
_MOST_PENDING_RECIPIENTS = 100
#: Octets of Python objects, measured with sys.getsizeof: of a flow's state with its places in two tables,
#: of a mail, and of a string besides its characters.
_FLOW_OCTETS, _MAIL_OCTETS, _TEXT_OCTETS = 1400, 400, 60
#: Octets that each flow may have whatever the others have.
_ENVELOPE = 4096


class Mail(msgspec.Struct, omit_defaults=True):
    """One mail as the gateway saw it go by; empty where it was not seen."""

    helo: str = ""
    mail_from: str = ""
    rcpt_to: list[str] = []
    #: Further recipients that were accepted, and are not kept.
    rcpt_omitted: int = 0
    #: Octets of the message, without its end.
    bytes: int = 0
    #: The server's last word on it, code first: it usually holds its queue id.
    reply: str = ""
    tls: bool = False
    auth: bool = False
    #: Names of the findings that changed or would have changed something in it.
    changed: list[str] = []
    #: False when the flow ended before the server answered.
    complete: bool = False


class _Session:
    """What a flow has said so far; ``octets``: what that takes."""

    __slots__ = (
        *("helo", "tls", "auth", "pending_hello", "mails", "more_mails", "recipients", "more_recipients"),
        *("spoken", "mail", "octets", "source"),
    )

    def __init__(self, source: bytes) -> None:
        self.helo = self.pending_hello = ""
        self.tls = self.auth = False
        #: MAIL and RCPT commands the server has not answered, and how many more behind them.
        self.mails: list[Mail] = []
        self.more_mails = 0
        self.recipients: list[str] = []
        self.more_recipients = 0
        #: What the client's octets belong to: with pipelining (RFC 2920) that is ahead of the replies.
        self.spoken: Mail | None = None
        #: What the server's replies belong to.
        self.mail: Mail | None = None
        self.octets = _FLOW_OCTETS
        self.source = source


def text(octets: bytes) -> str:
    """Octets for people: what is not printable ASCII as \\xNN."""
    if octets.isascii():
        plain = octets.decode("ascii")
        if plain.isprintable() and "\\" not in plain:
            return plain
    return "".join(chr(o) if 32 <= o < 127 and o != 92 else f"\\x{o:02x}" for o in octets)


def _cost(text: str) -> int:
    return _TEXT_OCTETS + len(text)


def _cost_of_mail(mail: Mail) -> int:
    return _MAIL_OCTETS + len(mail.mail_from) + sum(map(_cost, mail.rcpt_to))


def path(line: str) -> str:
    """The address of a MAIL or RCPT line: between < and >, else the word behind the colon (RFC 5321 4.1.2)."""
    argument = line.partition(":")[2].strip()
    if "<" in argument:
        return argument.partition("<")[2].partition(">")[0]
    return argument.partition(" ")[0]


class Transactions:
    """Feed it every record in order; it gives a Mail when the server has answered one. ``memory`` is its cap."""

    def __init__(self, memory: int = 64 * 1024 * 1024) -> None:
        self._memory = memory
        self._sessions: OrderedDict[int, _Session] = OrderedDict()  # the one that has been still longest first
        self._by_source: dict[bytes, OrderedDict[int, _Session]] = {}
        self._source_octets: dict[bytes, int] = {}
        #: Octets of all flows' states.
        self.octets = 0
        #: Flows whose state was given up, and MAIL and RCPT commands that were only counted, for want of memory.
        self.forgotten = 0
        self.omitted = 0

    def feed(self, record: Record) -> Sequence[Mail]:
        """The mails this record completes: at most one, but for the end of a flow."""
        if record.kind == RecordKind.FLOW:
            return self._ended(record.flow_id)
        session = self._sessions.get(record.flow_id)
        if record.kind in (RecordKind.FINDING, RecordKind.REPEATED):
            meant = None if session is None else session.spoken if record.to_server else session.mail
            if meant is not None and record.kind == RecordKind.FINDING:
                self._changed(meant, 1 << record.finding)
            return ()
        if session is None:
            session = self._begun(record)
        found: Sequence[Mail] = ()
        if record.kind == RecordKind.COMMAND:
            self._command(session, record)
        elif record.kind == RecordKind.MESSAGE and session.spoken is not None:
            self._changed(session.spoken, record.numbers[2])
            session.spoken.bytes += record.numbers[0]
            session.spoken = None  # what comes next is not about this mail
        elif record.kind == RecordKind.REPLY:
            found = self._reply(session, record)
        self._settle(record.flow_id, session)
        return found

    def _begun(self, record: Record) -> _Session:
        source = source_of(record.client)
        session = self._sessions[record.flow_id] = _Session(source)
        self._by_source.setdefault(source, OrderedDict())[record.flow_id] = session
        self._add(session, _FLOW_OCTETS)
        return session

    def _charge(self, session: _Session, octets: int) -> None:
        session.octets += octets
        self._add(session, octets)

    def _add(self, session: _Session, octets: int) -> None:
        self.octets += octets
        self._source_octets[session.source] = self._source_octets.get(session.source, 0) + octets

    def _forget(self, flow_id: int) -> _Session | None:
        session = self._sessions.pop(flow_id, None)
        if session is None:
            return None
        self._add(session, -session.octets)
        flows = self._by_source[session.source]
        del flows[flow_id]
        if not flows:
            del self._by_source[session.source], self._source_octets[session.source]
        return session

    def _ended(self, flow_id: int) -> Sequence[Mail]:
        session = self._forget(flow_id)
        if session is None:
            return ()
        return [*([session.mail] if session.mail is not None else []), *session.mails]

    def _settle(self, flow_id: int, session: _Session) -> None:
        """The flow has been heard; who gives way to what it takes now."""
        self._sessions.move_to_end(flow_id)
        self._by_source[session.source].move_to_end(flow_id)
        while self.octets > self._memory and len(self._sessions) > 1:
            # Who has more than he leaves makes room for himself, and the others' mails go on.
            own = self._source_octets[session.source] > self._memory - self._source_octets[session.source]
            flows = self._by_source[session.source]
            least = next(iter(flows if own and len(flows) > 1 else self._sessions))
            self._forget(least)
            self.forgotten += 1

    def _may_keep(self, session: _Session, octets: int) -> bool:
        if session.octets + octets <= _ENVELOPE:
            return True
        left = self._memory - self.octets
        return session.octets + octets <= left and self._source_octets[session.source] + octets <= left

    def _command(self, session: _Session, record: Record) -> None:
        if record.verb != _MAIL and session.spoken is not None:
            self._changed(session.spoken, record.numbers[2])
        if record.numbers[1]:  # it was masked: the server never saw it
            return
        line = text(record.before)
        if record.verb in _HELLO:
            before, session.pending_hello = session.pending_hello, line.partition(" ")[2]
            self._charge(session, len(session.pending_hello) - len(before))
        elif record.verb == _MAIL:
            mail = Mail(helo=session.helo, mail_from=path(line), tls=session.tls, auth=session.auth)
            cost = _cost_of_mail(mail)
            full = len(session.mails) >= _MOST_PENDING_MAILS or not self._may_keep(session, cost)
            if session.more_mails or full:  # behind one that is only counted the others are, too
                session.more_mails += 1
                session.spoken = None
                self.omitted += 1
            else:
                session.spoken = mail
                session.mails.append(mail)
                self._charge(session, cost)
        elif record.verb == _RCPT:
            recipient = path(line)
            full = len(session.recipients) >= _MOST_PENDING_RECIPIENTS
            full = full or not self._may_keep(session, _cost(recipient))
            if session.more_recipients or full:
                session.more_recipients += 1
                self.omitted += 1
            else:
                session.recipients.append(recipient)
                self._charge(session, _cost(recipient))

    def _changed(self, mail: Mail, found: int) -> None:
        """``found``: bits of findings, by number."""
        while found:
            name = FINDINGS[(found & -found).bit_length() - 1].name
            found &= found - 1
            if name not in mail.changed and len(mail.changed) < _MOST_CHANGES:
                mail.changed.append(name)

    def _answered_recipient(self, session: _Session, *, accepted: bool) -> None:
        recipient = session.recipients.pop(0) if session.recipients else None
        if recipient is None:
            if not session.more_recipients:
                return
            session.more_recipients -= 1
        mail = session.mail
        if mail is not None and accepted:
            if recipient is not None and len(mail.rcpt_to) < _MOST_RECIPIENTS:
                mail.rcpt_to.append(recipient)
                return  # it takes what it took
            mail.rcpt_omitted += 1
        if recipient is not None:
            self._charge(session, -_cost(recipient))

    def _set_mail(self, session: _Session, mail: Mail | None) -> None:
        if session.mail is not None:
            self._charge(session, -_cost_of_mail(session.mail))
        session.mail = mail

    def _reply(self, session: _Session, record: Record) -> Sequence[Mail]:
        accepted = 200 <= record.code < 300
        mail = session.mail
        if record.verb in _HELLO and accepted:
            self._charge(session, len(session.pending_hello) - len(session.helo))
            session.helo = session.pending_hello
            self._set_mail(session, None)
        elif record.verb == _STARTTLS and record.code == 220:
            session.tls = True
        elif record.verb == _AUTH and accepted:
            session.auth = True
        elif record.verb == _RSET and accepted:
            self._set_mail(session, None)
        elif record.verb == _MAIL:
            asked = session.mails.pop(0) if session.mails else None
            session.more_mails -= asked is None and session.more_mails > 0
            if accepted and asked is not None:
                self._set_mail(session, asked)
            elif asked is not None:
                self._charge(session, -_cost_of_mail(asked))
        elif record.verb == _RCPT:
            self._answered_recipient(session, accepted=accepted)
        elif mail is not None and (record.verb == _END_OF_DATA or (record.verb == _BDAT and mail.bytes)):
            self._set_mail(session, None)
            mail.reply = f"{record.code} {text(record.before)}".rstrip()
            mail.complete = True
            return (mail,)
        return ()
