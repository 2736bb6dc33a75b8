# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Puts mails together from commands and replies, function by function as `events.transactions` does.

Promises: what is kept is bounded (see `session`); where there is no memory a command is only counted. Does not know how
an event is written.
"""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memchr

from nfmailguard.cext.events.address cimport CUT_SIZE, address_of, put_cut
from nfmailguard.cext.events.session cimport (
    ADDRESS_OCTETS, MAIL_OCTETS, MOST_PENDING_CHUNKS, TEXT_OCTETS, chunk_append, chunk_shift, chunks_clear,
    cost_of_mail, cost_of_text, mail_add_changed, mail_append, mail_free, mail_made, mail_merge_changed, mail_shift,
    session_begin, session_charge, session_may_keep, session_settle, text_append, text_shift,
)
from nfmailguard.cext.events.text cimport SHOWN_SIZE, Text, show, text_made, text_release, text_shared
from nfmailguard.cext.record cimport RECORD_COMMAND, RECORD_MESSAGE, RECORD_REPLY, RECORD_TEXT

cdef enum:
    MOST_RECIPIENTS = 100
    # Most MAIL and RCPT commands of a flow whose text is kept until the reply; further ones are only counted.
    MOST_PENDING_MAILS = 20
    MOST_PENDING_RECIPIENTS = 100
    LAST_SIZE = 5                      # bytes of " LAST"
    MOST_CODE = 8                      # bytes of a reply's code and the space after it
    SHOWN_TEXT = RECORD_TEXT * SHOWN_SIZE + CUT_SIZE + MOST_CODE

# The state while one record is processed.
cdef struct Turn:
    Sessions *sessions
    Session *session
    const Record *record
    Mail *displaced                    # the mail that `session.mail` was before this record, if it has been replaced


cdef inline void speak_of(Session *session, Mail *mail) noexcept nogil:
    session.spoken = mail
    session.speaks_of_none = False


cdef void set_mail(Turn *turn, Mail *mail) noexcept nogil:
    cdef Session *session = turn.session
    cdef Mail *before = session.mail
    if before != NULL:
        session_charge(turn.sessions, session, -cost_of_mail(before))
        if session.spoken == before:   # what the client says until its next MAIL belongs to a mail that is given up
            session.spoken, session.speaks_of_none = NULL, True
        if turn.displaced != NULL:
            mail_free(turn.sessions, turn.displaced)
        turn.displaced = before
    session.mail = mail


cdef void hand_over(Session *session, Mail *refused) noexcept nogil:
    """After a MAIL that was refused: what the client sent after it belongs to the mail still open, if there is one."""
    cdef Mail *mail = session.mail
    if session.spoken == refused:
        speak_of(session, mail)
    if mail != NULL:
        mail.bytes += refused.bytes
        mail_merge_changed(mail, refused)


cdef Mail *known_by_hello(Turn *turn) noexcept nogil:
    """A new mail with what the flow's HELO or EHLO, TLS and AUTH say."""
    cdef Session *session = turn.session
    cdef Mail *mail = mail_made(turn.sessions)
    if mail != NULL:
        mail.helo = text_shared(session.helo)
        mail.tls, mail.auth = session.tls, session.auth
    return mail


cdef void say_hello(Turn *turn, bint cut) noexcept nogil:
    cdef uint8_t shown[SHOWN_TEXT]
    cdef const Record *record = turn.record
    cdef Session *session = turn.session
    cdef const uint8_t *found = <const uint8_t *> memchr(record.text, 32, record.before_length)
    cdef uint32_t length = 0
    cdef Text *name = NULL
    if found != NULL:
        found += 1
        length = show(shown, found, <uint32_t> (record.text + record.before_length - found))
    if cut:
        length += put_cut(shown + length)
    if not (session.more_hellos or session.hellos.count >= MOST_PENDING_MAILS
            or not session_may_keep(turn.sessions, session, TEXT_OCTETS + length)):
        name = text_made(shown, length)
    if name == NULL:
        session.more_hellos += 1
        return
    text_append(&session.hellos, name)
    session_charge(turn.sessions, session, cost_of_text(name))


cdef void say_chunk(Turn *turn) noexcept nogil:
    cdef Session *session = turn.session
    cdef const Record *record = turn.record
    cdef const uint8_t *word
    cdef bint last = False
    if session.chunk_count >= MOST_PENDING_CHUNKS:
        return
    if record.before_length >= LAST_SIZE:
        word = record.text + record.before_length - LAST_SIZE
        last = (word[0] == 32 and (word[1] | 32) == 108 and (word[2] | 32) == 97 and (word[3] | 32) == 115
                and (word[4] | 32) == 116)                     # LAST in upper or lower case
    chunk_append(session, last)


cdef void say_mail(Turn *turn, bint cut, uint64_t blanked) noexcept nogil:
    cdef uint8_t shown[SHOWN_TEXT]
    cdef Session *session = turn.session
    cdef uint32_t length = 0
    cdef bint certain = address_of(turn.record.text, turn.record.before_length, cut, shown, &length)
    cdef Mail *mail = NULL
    if not (session.more_mails or session.mails.count >= MOST_PENDING_MAILS
            or not session_may_keep(turn.sessions, session, MAIL_OCTETS + length)):
        mail = known_by_hello(turn)
    if mail != NULL:
        mail.sender = text_made(shown, length)
        if mail.sender == NULL:
            mail_free(turn.sessions, mail)
            mail = NULL
    if mail == NULL:                   # once a MAIL is only counted, all later ones are, so that replies stay in order
        session.more_mails += 1
        speak_of(session, NULL)
        turn.sessions.omitted += 1
        return
    mail.uncertain = not certain or blanked != 0
    mail_add_changed(mail, blanked)
    speak_of(session, mail)
    mail_append(&session.mails, mail)
    session_charge(turn.sessions, session, cost_of_mail(mail))


cdef void say_recipient(Turn *turn, bint cut, uint64_t blanked) noexcept nogil:
    cdef uint8_t shown[SHOWN_TEXT]
    cdef Session *session = turn.session
    cdef uint32_t length = 0
    cdef bint certain = address_of(turn.record.text, turn.record.before_length, cut, shown, &length)
    cdef Text *recipient = NULL
    certain = certain and not blanked
    if not (session.more_recipients or session.recipients.count >= MOST_PENDING_RECIPIENTS
            or not session_may_keep(turn.sessions, session,
                                    TEXT_OCTETS + length + (0 if certain else ADDRESS_OCTETS))):
        recipient = text_made(shown, length)
    if recipient == NULL:
        session.more_recipients += 1
        turn.sessions.omitted += 1
        return
    recipient.certain = certain
    text_append(&session.recipients, recipient)
    session_charge(turn.sessions, session, cost_of_text(recipient))


cdef void take_command(Turn *turn, const Meaning *meaning) noexcept nogil:
    cdef Session *session = turn.session
    cdef const Record *record = turn.record
    cdef uint8_t role = meaning.role[record.verb]
    cdef bint cut = record.b > 1
    cdef uint64_t blanked = record.c & meaning.illegal
    if role != ROLE_MAIL and session.spoken != NULL:
        mail_add_changed(session.spoken, record.c)
    if record.b & 1:                   # the command was masked: the server never saw it
        return
    if role == ROLE_HELLO:
        say_hello(turn, cut)
    elif role == ROLE_CHUNK:
        say_chunk(turn)
    elif role == ROLE_MAIL:
        say_mail(turn, cut, blanked)
    elif role == ROLE_RECIPIENT:
        say_recipient(turn, cut, blanked)


cdef void answered_hello(Turn *turn, bint accepted) noexcept nogil:
    cdef Session *session = turn.session
    cdef Text *name = text_shift(&session.hellos)
    if name != NULL:
        session_charge(turn.sessions, session, -cost_of_text(name))
    elif session.more_hellos:
        session.more_hellos -= 1
    if not accepted:
        text_release(name)
        return
    session_charge(turn.sessions, session,
                   <int64_t> (0 if name == NULL else name.length)
                   - <int64_t> (0 if session.helo == NULL else session.helo.length))
    text_release(session.helo)
    session.helo = name
    set_mail(turn, NULL)


cdef void answered_mail(Turn *turn, bint accepted) noexcept nogil:
    cdef Session *session = turn.session
    cdef Mail *asked = mail_shift(&session.mails)
    if asked != NULL and accepted:
        set_mail(turn, asked)
    elif asked != NULL:
        session_charge(turn.sessions, session, -cost_of_mail(asked))
        hand_over(session, asked)
        mail_free(turn.sessions, asked)
    elif session.more_mails:
        session.more_mails -= 1
        # The accepted MAIL was only counted: the mail exists, its sender is not known.
        asked = known_by_hello(turn) if accepted else NULL
        if asked != NULL:
            asked.uncertain = True
            session_charge(turn.sessions, session, cost_of_mail(asked))
            set_mail(turn, asked)
            if session.spoken == NULL and not session.speaks_of_none and not session.more_mails:
                speak_of(session, asked)


cdef void answered_recipient(Turn *turn, bint accepted) noexcept nogil:
    cdef Session *session = turn.session
    cdef Mail *mail = session.mail
    cdef Text *recipient = text_shift(&session.recipients)
    if recipient == NULL:
        if not session.more_recipients:
            return
        session.more_recipients -= 1
    if mail != NULL and accepted:
        if recipient != NULL and mail.recipients < MOST_RECIPIENTS:
            if not recipient.certain:
                mail.uncertain = True
                recipient.certain = True
                session_charge(turn.sessions, session, -ADDRESS_OCTETS)
            if mail.last_recipient == NULL:
                mail.first_recipient = recipient
            else:
                mail.last_recipient.next = recipient
            mail.last_recipient = recipient
            mail.recipients += 1
            mail.recipient_octets += <uint32_t> cost_of_text(recipient)
            return                     # the bytes counted for it stay counted
        mail.omitted += 1
    if recipient != NULL:
        session_charge(turn.sessions, session, -cost_of_text(recipient))
        text_release(recipient)


cdef void were_text(Turn *turn) noexcept nogil:
    """Commands still unanswered when DATA's reply comes were really the message's first lines (RFC 5321 4.1.1.4)."""
    cdef Session *session = turn.session
    while session.mails.first != NULL:
        answered_mail(turn, False)
    while session.recipients.first != NULL:
        answered_recipient(turn, False)
    while session.hellos.first != NULL:
        answered_hello(turn, False)
    session.more_mails = session.more_recipients = session.more_hellos = 0
    chunks_clear(session)
    speak_of(session, session.mail)


cdef void lose_track(Turn *turn, bint last) noexcept nogil:
    """In a flow with too many commands some have no record: the server's reply is to a mail with unknown envelope."""
    cdef Session *session = turn.session
    cdef Mail *mail
    were_text(turn)
    mail = mail_made(turn.sessions)
    set_mail(turn, NULL)
    if mail != NULL:
        mail.uncertain = True
        mail.tls = session.tls
        session_charge(turn.sessions, session, cost_of_mail(mail))
        session.mail = mail
    speak_of(session, NULL)
    if last:
        chunk_append(session, True)


cdef void answer(Mail *mail, const Record *record) noexcept nogil:
    cdef uint8_t shown[SHOWN_TEXT]
    cdef uint8_t digits[MOST_CODE]
    cdef uint32_t length = 0, code = record.code, at = MOST_CODE
    while True:
        at -= 1
        digits[at] = <uint8_t> (48 + code % 10)
        code //= 10
        if code == 0:
            break
    while at < MOST_CODE:
        shown[length] = digits[at]
        length += 1
        at += 1
    shown[length] = 32
    length += 1 + show(shown + length + 1, record.text, record.before_length)
    while length > 0 and shown[length - 1] == 32:
        length -= 1
    text_release(mail.reply)
    mail.reply = text_made(shown, length)
    mail.omitted += record.c           # accepted recipients for which there was no record
    mail.complete = True


cdef Mail *completed(Turn *turn, Mail *mail) noexcept nogil:
    if turn.session.spoken == mail:
        speak_of(turn.session, NULL)
    set_mail(turn, NULL)
    turn.displaced = NULL              # the mail is the caller's now
    answer(mail, turn.record)
    return mail


cdef Mail *answered_chunk(Turn *turn) noexcept nogil:
    """Takes the reply to a BDAT. A refusal ends the mail only if no other reply follows: some servers go on with it."""
    cdef Session *session = turn.session
    cdef Mail *mail = session.mail
    cdef bint last = chunk_shift(session)
    if mail == NULL or turn.record.code == 0:
        return NULL
    if last and turn.record.code < 300:
        return completed(turn, mail)
    if turn.record.code >= 400:
        session_charge(turn.sessions, session, -cost_of_mail(mail))
        answer(mail, turn.record)
        session_charge(turn.sessions, session, cost_of_mail(mail))
    return NULL


cdef void moved(Turn *turn, uint8_t role) noexcept nogil:
    cdef uint32_t code = turn.record.code
    cdef bint accepted = 200 <= code < 300
    if role == ROLE_HELLO:
        answered_hello(turn, accepted)
    elif role == ROLE_DATA:
        were_text(turn)
    elif role == ROLE_STARTTLS and code == 220:
        turn.session.tls = True
    elif role == ROLE_AUTH and accepted:
        turn.session.auth = True
    elif role == ROLE_RESET and accepted:
        set_mail(turn, NULL)
    elif role == ROLE_MAIL:
        answered_mail(turn, accepted)
    elif role == ROLE_RECIPIENT:
        answered_recipient(turn, accepted)


cdef Mail *take_reply(Turn *turn, const Meaning *meaning) noexcept nogil:
    cdef Session *session = turn.session
    cdef uint8_t role = meaning.role[turn.record.verb]
    cdef bint taken = role == ROLE_END_OF_DATA and 200 <= turn.record.code < 300
    cdef Mail *mail
    if turn.record.b or (taken and session.mail == NULL):
        lose_track(turn, role == ROLE_CHUNK)
    if role == ROLE_CHUNK:
        return answered_chunk(turn)
    mail = session.mail
    if role == ROLE_END_OF_DATA:
        return NULL if mail == NULL else completed(turn, mail)
    moved(turn, role)
    if mail == NULL or mail == session.mail or mail != turn.displaced or mail.reply == NULL:
        return NULL
    turn.displaced = NULL
    return mail


cdef Session *session_of(Sessions *sessions, const Record *record) noexcept nogil:
    return session_begin(sessions, record.identity.flow_id, record.identity.family, record.identity.client)


cdef void take_finding(Sessions *sessions, Session *session, const Record *record) noexcept nogil:
    cdef Mail *meant = session.spoken if record.to_server else session.mail
    session.found = True
    if meant != NULL:
        mail_add_changed(meant, 1ULL << (record.finding & 63))


cdef Mail *take_said(Sessions *sessions, Session *session, const Meaning *meaning, const Record *record) noexcept nogil:
    cdef Turn turn
    cdef Mail *found = NULL
    turn.sessions, turn.session, turn.record, turn.displaced = sessions, session, record, NULL
    if record.kind == RECORD_COMMAND:
        take_command(&turn, meaning)
    elif record.kind == RECORD_REPLY:
        found = take_reply(&turn, meaning)
    elif record.kind == RECORD_MESSAGE:
        if session.spoken != NULL:
            mail_add_changed(session.spoken, record.c)
            session.spoken.bytes += record.a
        speak_of(session, NULL)        # what the client sends next does not belong to this mail
    if turn.displaced != NULL:
        mail_free(sessions, turn.displaced)
    session_settle(sessions, session)
    return found
