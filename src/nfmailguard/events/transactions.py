"""Mails, put together from commands and replies: the answer to "where is mail X?".

Promises: memory is bounded. Each flow has room for a mail's envelope; for it, the flow that has been silent the longest
is forgotten, one of the same source if that source uses more than half of the memory. What exceeds the envelope, above
all recipients, is kept while its source uses no more than is free (Choudhury and Hahne, "Dynamic queue length
thresholds for shared-memory packet switches", 1998), otherwise it is only counted. A mail that was begun and never
finished is reported when its flow ends. Secrets of AUTH never get here: the core withholds them. Knows SMTP's meaning,
not how an event is written.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from nfmailguard.events.addresses import CUT, Address, address, text
from nfmailguard.events.allowance import source_of
from nfmailguard.events.records import Record, RecordKind
from nfmailguard.policy.model import FINDING_INDEX, FINDINGS
from nfmailguard.smtp.verbs import VERB_INDEX

__all__ = ["TOLD", "Mail", "Sessions", "Transactions"]

_HELLO = (VERB_INDEX["HELO"], VERB_INDEX["EHLO"])
_MAIL, _RCPT, _RSET = VERB_INDEX["MAIL"], VERB_INDEX["RCPT"], VERB_INDEX["RSET"]
_AUTH, _STARTTLS, _BDAT = VERB_INDEX["AUTH"], VERB_INDEX["STARTTLS"], VERB_INDEX["BDAT"]
_ILLEGAL = 1 << FINDING_INDEX["address.illegal_character"]
_END_OF_DATA, _DATA = VERB_INDEX["<end of data>"], VERB_INDEX["DATA"]
#: Verbs whose commands and replies are needed to put mails together; other verbs say nothing about a mail.
TOLD = frozenset({"HELO", "EHLO", "MAIL", "RCPT", "RSET", "AUTH", "STARTTLS", "BDAT", "<end of data>"})
_MOST_RECIPIENTS = 100
_MOST_CHANGES = 20
#: Most MAIL, RCPT and BDAT commands of a flow that are kept with their text until the reply comes; further MAIL and
#: RCPT commands are only counted.
_MOST_PENDING_MAILS = 20
_MOST_PENDING_RECIPIENTS = 100
_MOST_PENDING_CHUNKS = 100
#: Memory taken by Python objects, in bytes, measured with sys.getsizeof: a flow's state with its entries in two tables,
#: a mail, a string besides its characters, and an uncertain address besides its text.
_FLOW_OCTETS, _MAIL_OCTETS, _TEXT_OCTETS, _ADDRESS_OCTETS = 1440, 410, 60, 80
#: Bytes of memory that each flow may use however much the other flows use.
_ENVELOPE = 4096


class Mail(msgspec.Struct, omit_defaults=True):
    """One mail as the gateway saw it pass; fields are empty where nothing was seen."""

    helo: str = ""
    mail_from: str = ""
    rcpt_to: list[str] = []
    #: True if the server may understand one of the addresses differently; the event has it as the client wrote it.
    uncertain: bool = False
    #: Number of further recipients that were accepted but whose addresses are not kept.
    rcpt_omitted: int = 0
    #: Size of the message in bytes, without the end-of-data line.
    bytes: int = 0
    #: The server's last reply about the mail, with its code; it usually contains the server's queue id.
    reply: str = ""
    tls: bool = False
    auth: bool = False
    #: Names of the findings that changed, or in monitor mode would have changed, something in the mail.
    changed: list[str] = []
    #: False if the flow ended before the server answered the message.
    complete: bool = False


class Session(msgspec.Struct):
    """What a flow has sent so far; ``octets``: bytes of memory it takes."""

    source: bytes
    helo: str = ""
    tls: bool = False
    auth: bool = False
    #: Arguments of HELO and EHLO commands, MAIL and RCPT commands without a reply so far; each `more_` field counts the
    #: further ones whose text is not kept.
    hellos: tuple[str, ...] = ()
    more_hellos: int = 0
    mails: list[Mail] = []
    more_mails: int = 0
    recipients: list[str | Address] = []  # Unanswered RCPT commands; an Address object where the address is uncertain.
    more_recipients: int = 0
    #: For each unanswered BDAT command: whether it is the message's last chunk (LAST).
    chunks: tuple[bool, ...] = ()
    #: The mail the client is now sending; with pipelining (RFC 2920) it is ahead of the server's replies. None: none.
    spoken: Mail | None = None
    #: The mail the server's replies are about; None: none.
    mail: Mail | None = None
    octets: int = _FLOW_OCTETS
    #: Whether the flow had a finding.
    found: bool = False


#: Session states to hand to another process: flow number, session, and the position of the mail in ``spoken`` within
#: ``mail`` followed by ``mails``; -1: it is none of them.
Sessions = list[tuple[int, Session, int]]


def _cost(one: str | Address) -> int:
    if isinstance(one, Address):
        return _ADDRESS_OCTETS + _cost(one.text)
    return _TEXT_OCTETS + len(one)


def _cost_of_mail(mail: Mail) -> int:
    return _MAIL_OCTETS + len(mail.mail_from) + len(mail.reply) + sum(map(_cost, mail.rcpt_to))


class Transactions:
    """Takes every record in order and returns a Mail when the server has answered one. ``memory``:
    most bytes it uses.
    """

    def __init__(self, memory: int = 64 * 1024 * 1024) -> None:
        self._memory = memory
        # Session states by flow number; the flow without a record for the longest time is first.
        self._sessions: OrderedDict[int, Session] = OrderedDict()
        self._by_source: dict[bytes, OrderedDict[int, Session]] = {}
        self._source_octets: dict[bytes, int] = {}
        #: Bytes of memory taken by the states of all flows.
        self.octets = 0
        #: For lack of memory: `forgotten` counts flows whose state was dropped, `omitted` MAIL and RCPT commands that
        #: were only counted.
        self.forgotten = 0
        self.omitted = 0

    def sessions(self) -> Sessions:
        """The whole state, for ``take_over`` of another object; the flow that has been silent the
        longest comes first.
        """
        found = []
        for flow_id, session in self._sessions.items():
            places = [place for place, mail in enumerate((session.mail, *session.mails)) if mail is session.spoken]
            found.append((flow_id, session, places[0] if places and session.spoken is not None else -1))
        return found

    def take_over(self, sessions: Sessions) -> None:
        """Continues with the state of another object, before any record has come."""
        for flow_id, session, place in sessions:
            if place >= 0:
                session.spoken = (session.mail, *session.mails)[place]
            self._sessions[flow_id] = session
            self._by_source.setdefault(session.source, OrderedDict())[flow_id] = session
            self._add(session, session.octets)

    def feed(self, record: Record) -> Sequence[Mail]:
        """The mails that this record completes: at most one, except at the end of a flow."""
        if record.kind == RecordKind.FLOW:
            return self._ended(record.flow_id)
        session = self._sessions.get(record.flow_id)
        if record.kind in (RecordKind.FINDING, RecordKind.REPEATED):
            return self._finding(record, session)
        if session is None:
            session = self._begun(record)
        found: Sequence[Mail] = ()
        if record.kind == RecordKind.COMMAND:
            self._command(session, record)
        elif record.kind == RecordKind.MESSAGE and session.spoken is not None:
            self._changed(session.spoken, record.numbers[2])
            session.spoken.bytes += record.numbers[0]
            session.spoken = None  # The client's message is complete: its next commands are not about this mail.
        elif record.kind == RecordKind.REPLY:
            found = self._reply(session, record)
        self._settle(record.flow_id, session)
        return found

    def _finding(self, record: Record, session: Session | None) -> Sequence[Mail]:
        # A REPEATED record only sums up a flow's earlier findings at its end; flow number 0 belongs to no flow.
        if record.kind == RecordKind.REPEATED or record.flow_id == 0:
            return ()
        if session is None:
            session = self._begun(record)
            self._settle(record.flow_id, session)
        session.found = True
        meant = session.spoken if record.to_server else session.mail
        if meant is not None:
            self._changed(meant, 1 << record.finding)
        return ()

    def had_finding(self, flow_id: int) -> bool:
        """Whether a flow that has not ended yet had a finding; False if its state was dropped."""
        session = self._sessions.get(flow_id)
        return session is not None and session.found

    def _begun(self, record: Record) -> Session:
        source = source_of(record.client)
        session = self._sessions[record.flow_id] = Session(source)
        self._by_source.setdefault(source, OrderedDict())[record.flow_id] = session
        self._add(session, _FLOW_OCTETS)
        return session

    def _charge(self, session: Session, octets: int) -> None:
        session.octets += octets
        self._add(session, octets)

    def _add(self, session: Session, octets: int) -> None:
        self.octets += octets
        self._source_octets[session.source] = self._source_octets.get(session.source, 0) + octets

    def _forget(self, flow_id: int) -> Session | None:
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

    def _settle(self, flow_id: int, session: Session) -> None:
        """Marks the flow as active, and drops other flows' states while too much memory is used."""
        self._sessions.move_to_end(flow_id)
        self._by_source[session.source].move_to_end(flow_id)
        while self.octets > self._memory and len(self._sessions) > 1:
            # A source that uses more than half of the memory frees its own oldest flow, so that other sources keep
            # theirs.
            own = self._source_octets[session.source] > self._memory - self._source_octets[session.source]
            flows = self._by_source[session.source]
            least = next(iter(flows if own and len(flows) > 1 else self._sessions))
            self._forget(least)
            self.forgotten += 1

    def _may_keep(self, session: Session, octets: int) -> bool:
        if session.octets + octets <= _ENVELOPE:
            return True
        left = self._memory - self.octets
        return session.octets + octets <= left and self._source_octets[session.source] + octets <= left

    def _command(self, session: Session, record: Record) -> None:
        if record.verb != _MAIL and session.spoken is not None:
            self._changed(session.spoken, record.numbers[2])
        if record.numbers[1] & 1:  # The command was masked: the server never saw it.
            return
        cut, blanked = record.numbers[1] > 1, record.numbers[2] & _ILLEGAL
        if record.verb in _HELLO:
            self._hello(session, text(record.before.partition(b" ")[2]) + CUT * cut)
        elif record.verb == _BDAT:
            if len(session.chunks) < _MOST_PENDING_CHUNKS:
                session.chunks += (record.before.upper().endswith(b" LAST"),)
        elif record.verb == _MAIL:
            sender = address(record.before, cut=cut, changed=blanked != 0)
            mail = Mail(session.helo, sender.text, uncertain=not sender.certain, tls=session.tls, auth=session.auth)
            self._changed(mail, blanked)
            cost = _cost_of_mail(mail)
            full = len(session.mails) >= _MOST_PENDING_MAILS or not self._may_keep(session, cost)
            # Once a MAIL command is only counted, those after it are only counted too, so that replies stay in order.
            if session.more_mails or full:
                session.more_mails += 1
                session.spoken = None
                self.omitted += 1
            else:
                session.spoken = mail
                session.mails.append(mail)
                self._charge(session, cost)
        elif record.verb == _RCPT:
            asked = address(record.before, cut=cut, changed=blanked != 0)
            recipient = asked.text if asked.certain else asked
            full = len(session.recipients) >= _MOST_PENDING_RECIPIENTS
            full = full or not self._may_keep(session, _cost(recipient))
            if session.more_recipients or full:
                session.more_recipients += 1
                self.omitted += 1
            else:
                session.recipients.append(recipient)
                self._charge(session, _cost(recipient))

    def _hello(self, session: Session, name: str) -> None:
        if (
            session.more_hellos
            or len(session.hellos) >= _MOST_PENDING_MAILS
            or not self._may_keep(session, _cost(name))
        ):
            session.more_hellos += 1
        else:
            session.hellos += (name,)
            self._charge(session, _cost(name))

    def _answered_hello(self, session: Session, *, accepted: bool) -> None:
        name, known = "", len(session.hellos)
        if known:
            name, session.hellos = session.hellos[0], session.hellos[1:]
            self._charge(session, -_cost(name))
        elif session.more_hellos:
            session.more_hellos -= 1
        if accepted:
            self._charge(session, len(name) - len(session.helo))
            session.helo = name
            self._set_mail(session, None)

    def _answered_mail(self, session: Session, *, accepted: bool) -> None:
        asked = session.mails.pop(0) if session.mails else None
        if asked is None and session.more_mails:
            session.more_mails -= 1
            if accepted:  # The accepted MAIL command was only counted: a mail exists, but its sender is unknown.
                asked = Mail(session.helo, uncertain=True, tls=session.tls, auth=session.auth)
                self._charge(session, _cost_of_mail(asked))
                self._set_mail(session, asked)
                session.spoken = session.spoken or (None if session.more_mails else asked)
        elif asked is None:
            pass
        elif accepted:
            self._set_mail(session, asked)
        else:
            self._charge(session, -_cost_of_mail(asked))
            self._hand_over(session, asked)

    def _hand_over(self, session: Session, refused: Mail) -> None:
        """Moves what followed a MAIL command that was refused to the mail that is still open."""
        if session.spoken is refused:
            session.spoken = session.mail
        if session.mail is not None:
            session.mail.bytes += refused.bytes
            session.mail.changed += [name for name in refused.changed if name not in session.mail.changed]

    def _were_text(self, session: Session) -> None:
        """The unanswered commands were the beginning of a message (RFC 5321 4.1.1.4)."""
        while session.mails:
            self._answered_mail(session, accepted=False)
        while session.recipients:
            self._answered_recipient(session, accepted=False)
        while session.hellos:
            self._answered_hello(session, accepted=False)
        session.more_mails = session.more_recipients = session.more_hellos = 0
        session.chunks = ()
        session.spoken = session.mail

    def _lose_track(self, session: Session, *, last: bool) -> None:
        """The core did not record all commands of this flow: the server answers a mail whose envelope is not known."""
        self._were_text(session)
        mail = Mail(uncertain=True, tls=session.tls)
        self._set_mail(session, None)
        self._charge(session, _cost_of_mail(mail))
        self._set_mail(session, mail)
        session.spoken, session.chunks = None, (True,) * last

    def _changed(self, mail: Mail, found: int) -> None:
        """Notes the findings in a mail. ``found``: a bit for each finding, by its number."""
        while found:
            name = FINDINGS[(found & -found).bit_length() - 1].name
            found &= found - 1
            if name not in mail.changed and len(mail.changed) < _MOST_CHANGES:
                mail.changed.append(name)

    def _answered_recipient(self, session: Session, *, accepted: bool) -> None:
        recipient = session.recipients.pop(0) if session.recipients else None
        if recipient is None:
            if not session.more_recipients:
                return
            session.more_recipients -= 1
        mail = session.mail
        if mail is not None and accepted:
            if recipient is not None and len(mail.rcpt_to) < _MOST_RECIPIENTS:
                if isinstance(recipient, Address):
                    mail.uncertain = True
                    self._charge(session, _cost(recipient.text) - _cost(recipient))
                    recipient = recipient.text
                mail.rcpt_to.append(recipient)
                # The recipient moves from the session's list to the mail's, so the memory accounted for it does not
                # change.
                return
            mail.rcpt_omitted += 1
        if recipient is not None:
            self._charge(session, -_cost(recipient))

    def _set_mail(self, session: Session, mail: Mail | None) -> None:
        if session.mail is not None:
            self._charge(session, -_cost_of_mail(session.mail))
        session.mail = mail

    def _answered_chunk(self, session: Session, record: Record) -> Sequence[Mail]:
        """Handles the reply to a chunk. A refusal is the mail's final reply only if no other reply follows: some
        servers continue with the mail.
        """
        last, session.chunks = session.chunks[:1] == (True,), session.chunks[1:]
        mail = session.mail
        if mail is None or not record.code:
            return ()
        if last and record.code < 300:
            return self._told(session, mail, record)
        if record.code >= 400:
            self._charge(session, -_cost_of_mail(mail))
            self._answer(mail, record)
            self._charge(session, _cost_of_mail(mail))
        return ()

    @staticmethod
    def _answer(mail: Mail, record: Record) -> None:
        mail.reply = f"{record.code} {text(record.before)}".rstrip()
        mail.rcpt_omitted += record.numbers[2]  # Adds the recipients for which the core made no records.
        mail.complete = True

    def _told(self, session: Session, mail: Mail, record: Record) -> Sequence[Mail]:
        session.spoken = None if session.spoken is mail else session.spoken
        self._set_mail(session, None)
        self._answer(mail, record)
        return (mail,)

    def _reply(self, session: Session, record: Record) -> Sequence[Mail]:
        taken = record.verb == _END_OF_DATA and 200 <= record.code < 300
        if record.numbers[1] or (taken and session.mail is None):
            self._lose_track(session, last=record.verb == _BDAT)
        mail = session.mail
        if record.verb == _BDAT:
            return self._answered_chunk(session, record)
        if record.verb == _END_OF_DATA:
            return () if mail is None else self._told(session, mail, record)
        self._moved(session, record)
        return (mail,) if mail is not None and mail is not session.mail and mail.reply else ()

    def _moved(self, session: Session, record: Record) -> None:
        accepted = 200 <= record.code < 300
        if record.verb in _HELLO:
            self._answered_hello(session, accepted=accepted)
        elif record.verb == _DATA:
            self._were_text(session)
        elif record.verb == _STARTTLS and record.code == 220:
            session.tls = True
        elif record.verb == _AUTH and accepted:
            session.auth = True
        elif record.verb == _RSET and accepted:
            self._set_mail(session, None)
        elif record.verb == _MAIL:
            self._answered_mail(session, accepted=accepted)
        elif record.verb == _RCPT:
            self._answered_recipient(session, accepted=accepted)
