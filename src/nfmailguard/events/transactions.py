"""Mails, put together from commands and replies: what answers "where is mail X?".

Promises: memory is bounded by ``most`` flows, the oldest gives way; a mail that was
begun and never finished is told when its flow ends. Secrets of AUTH never get here:
the core keeps them back. Knows SMTP's meaning, not how an event is written.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

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
_MOST_PENDING = 1000


class Mail(msgspec.Struct, omit_defaults=True):
    """One mail as the gateway saw it go by; empty where it was not seen."""

    helo: str = ""
    mail_from: str = ""
    rcpt_to: list[str] = []
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


class _Session(msgspec.Struct):
    helo: str = ""
    tls: bool = False
    auth: bool = False
    pending_hello: str = ""
    #: MAIL and RCPT commands the server has not answered.
    pending_mails: list[Mail] = []
    pending_recipients: list[str] = []
    #: What the client's octets belong to: with pipelining (RFC 2920) that is ahead of the replies.
    spoken: Mail | None = None
    #: What the server's replies belong to.
    mail: Mail | None = None


def text(octets: bytes) -> str:
    """Octets for people: what is not printable ASCII as \\xNN."""
    if octets.isascii():
        plain = octets.decode("ascii")
        if plain.isprintable() and "\\" not in plain:
            return plain
    return "".join(chr(o) if 32 <= o < 127 and o != 92 else f"\\x{o:02x}" for o in octets)


def path(line: str) -> str:
    """The address of a MAIL or RCPT line: between < and >, else the word behind the colon (RFC 5321 4.1.2)."""
    argument = line.partition(":")[2].strip()
    if "<" in argument:
        return argument.partition("<")[2].partition(">")[0]
    return argument.partition(" ")[0]


class Transactions:
    """Feed it every record in order; it gives a Mail when the server has answered one."""

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._sessions: dict[int, _Session] = {}
        #: Flows forgotten because there were too many.
        self.forgotten = 0

    def feed(self, record: Record) -> Sequence[Mail]:
        """The mails this record completes: at most one, but for the end of a flow."""
        if record.kind == RecordKind.FLOW:
            session = self._sessions.pop(record.flow_id, None)
            if session is None:
                return ()
            return [*([session.mail] if session.mail is not None else []), *session.pending_mails]
        session = self._session(record.flow_id)
        meant = session.spoken if record.to_server else session.mail
        if record.kind == RecordKind.COMMAND:
            self._command(session, record)
        elif record.kind == RecordKind.MESSAGE and session.spoken is not None:
            session.spoken.bytes += record.numbers[0]
            session.spoken = None  # what comes next is not about this mail
        elif record.kind == RecordKind.FINDING and meant is not None:
            self._finding(meant, record)
        elif record.kind == RecordKind.REPLY:
            return self._reply(session, record)
        return ()

    def _session(self, flow_id: int) -> _Session:
        session = self._sessions.get(flow_id)
        if session is None:
            if len(self._sessions) >= self._most:
                del self._sessions[next(iter(self._sessions))]
                self.forgotten += 1
            session = self._sessions[flow_id] = _Session()
        return session

    def _command(self, session: _Session, record: Record) -> None:
        if record.numbers[1]:  # it was masked: the server never saw it
            return
        line = text(record.before)
        if record.verb in _HELLO:
            session.pending_hello = line.partition(" ")[2]
        elif record.verb == _MAIL and len(session.pending_mails) < _MOST_PENDING:
            session.spoken = Mail(helo=session.helo, mail_from=path(line), tls=session.tls, auth=session.auth)
            session.pending_mails.append(session.spoken)
        elif record.verb == _RCPT and len(session.pending_recipients) < _MOST_PENDING:
            session.pending_recipients.append(path(line))

    def _finding(self, mail: Mail, record: Record) -> None:
        name = FINDINGS[record.finding].name
        if name not in mail.changed and len(mail.changed) < _MOST_CHANGES:
            mail.changed.append(name)

    def _reply(self, session: _Session, record: Record) -> Sequence[Mail]:
        accepted = 200 <= record.code < 300
        mail = session.mail
        if record.verb in _HELLO and accepted:
            session.helo = session.pending_hello
            session.mail = None
        elif record.verb == _STARTTLS and record.code == 220:
            session.tls = True
        elif record.verb == _AUTH and accepted:
            session.auth = True
        elif record.verb == _RSET and accepted:
            session.mail = None
        elif record.verb == _MAIL and session.pending_mails:
            asked = session.pending_mails.pop(0)
            if accepted:
                session.mail = asked
        elif record.verb == _RCPT and session.pending_recipients:
            recipient = session.pending_recipients.pop(0)
            if mail is not None and accepted and len(mail.rcpt_to) < _MOST_RECIPIENTS:
                mail.rcpt_to.append(recipient)
        elif mail is not None and (record.verb == _END_OF_DATA or (record.verb == _BDAT and mail.bytes)):
            mail.reply = f"{record.code} {text(record.before)}".rstrip()
            mail.complete = True
            session.mail = None
            return (mail,)
        return ()
