# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Turns unfinished mails into plain values and back, so that a gateway's successor can continue with them.

Promises: none of this runs while a packet or a record is handled. Does not know who takes the values.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memset

from nfmailguard.cext.events.session cimport (
    FLOW_OCTETS, MOST_PENDING_CHUNKS, TEXT_OCTETS, Mail, Session, TextList, chunk_append, mail_append, mail_free,
    mail_made, session_begin, session_charge, text_append,
)
from nfmailguard.cext.events.text cimport Text, text_made
from nfmailguard.cext.policy.numbers cimport MOST_FINDINGS

cdef enum:
    LONGEST_TEXT = 65535
    MOST_KEPT = 255                    # most recipients of a mail: `recipients` is one byte


cdef str as_str(const Text *text):
    return "" if text == NULL else (<const char *> text.data)[:text.length].decode("ascii")


cdef list as_list(const Text *text):
    cdef list found = []
    while text != NULL:
        found.append((as_str(text), bool(text.certain)))
        text = text.next
    return found


cdef tuple mail_as_values(const Mail *mail):
    return (as_str(mail.helo), as_str(mail.sender), [name for name, _ in as_list(mail.first_recipient)],
            bool(mail.uncertain), mail.omitted, mail.bytes, as_str(mail.reply), bool(mail.tls), bool(mail.auth),
            [mail.change[i] for i in range(mail.changes)], bool(mail.complete))


cdef tuple session_as_values(const Session *session):
    cdef uint32_t size = 8 if session.source.is_6 else 4
    cdef list mails = []
    cdef const Mail *mail = session.mails.first
    cdef int place = -1
    if session.spoken != NULL and session.spoken == session.mail:
        place = 0
    while mail != NULL:
        mails.append(mail_as_values(mail))
        if mail == session.spoken:
            place = len(mails)
        mail = mail.next
    return (session.flow_id, (<const char *> &session.source.key)[:size], as_str(session.helo), bool(session.tls),
            bool(session.auth), [name for name, _ in as_list(session.hellos.first)], session.more_hellos, mails,
            session.more_mails, as_list(session.recipients.first), session.more_recipients,
            [bool(session.chunks[i >> 6] >> (i & 63) & 1) for i in range(session.chunk_count)],
            None if session.mail == NULL else mail_as_values(session.mail), session.octets, bool(session.found),
            place, bool(session.speaks_of_none))


cdef list sessions_as_values(const Sessions *sessions):
    cdef list found = []
    cdef const Session *session = sessions.stillest
    while session != NULL:
        found.append(session_as_values(session))
        session = session.later
    return found


cdef Text *as_text(str value) except NULL:
    cdef bytes octets = value.encode("ascii", "backslashreplace")[:LONGEST_TEXT]
    cdef Text *text = text_made(octets, <uint32_t> len(octets))
    if text == NULL:
        raise MemoryError
    return text


cdef int fill_mail(Mail *mail, tuple values) except -1:
    cdef TextList recipients
    (helo, sender, names, uncertain, omitted, octets, reply, tls, auth, changes, complete) = values
    memset(&recipients, 0, sizeof(recipients))
    mail.helo = as_text(helo)
    mail.sender = as_text(sender)
    if reply:
        mail.reply = as_text(reply)
    mail.uncertain, mail.tls, mail.auth, mail.complete = uncertain, tls, auth, complete
    mail.omitted, mail.bytes = omitted, octets
    for name in names[:MOST_KEPT]:
        text_append(&recipients, as_text(name))
        mail.first_recipient, mail.last_recipient = recipients.first, recipients.last
        mail.recipients = <uint8_t> recipients.count
        mail.recipient_octets += TEXT_OCTETS + recipients.last.length
    for number in changes:             # not by mail_add_changed: a mail may have more findings than that would add
        if number < MOST_FINDINGS and not mail.changed >> number & 1:
            mail.changed |= 1ULL << <uint8_t> number
            mail.change[mail.changes] = number
            mail.changes += 1
    return 0


cdef Mail *as_mail(Sessions *sessions, tuple values) except NULL:
    cdef Mail *mail = mail_made(sessions)
    if mail == NULL:
        raise MemoryError
    try:
        fill_mail(mail, values)
    except BaseException:
        mail_free(sessions, mail)
        raise
    return mail


cdef void session_from_values(Sessions *sessions, tuple values) except *:
    cdef uint8_t client[16]
    cdef Session *session
    cdef Mail *mail
    (flow_id, source, helo, tls, auth, hellos, more_hellos, mails, more_mails, recipients, more_recipients, chunks,
     current, octets, found, place, speaks_of_none) = values
    memset(client, 0, sizeof(client))
    for i, byte in enumerate(source[:8]):
        client[i] = byte
    session = session_begin(sessions, flow_id, 6 if len(source) > 4 else 4, client)
    if session == NULL:
        raise MemoryError
    session_charge(sessions, session, <int64_t> octets - FLOW_OCTETS)
    if helo:
        session.helo = as_text(helo)
    session.tls, session.auth, session.found, session.speaks_of_none = tls, auth, found, speaks_of_none
    session.more_hellos, session.more_mails = more_hellos, more_mails
    session.more_recipients = more_recipients
    for name in hellos:
        text_append(&session.hellos, as_text(name))
    for name, certain in recipients:
        text_append(&session.recipients, as_text(name))
        session.recipients.last.certain = certain
    for last in chunks[:MOST_PENDING_CHUNKS]:
        chunk_append(session, bool(last))
    if current is not None:
        session.mail = as_mail(sessions, current)
        if place == 0:
            session.spoken = session.mail
    for number, one in enumerate(mails, 1):
        mail = as_mail(sessions, one)
        mail_append(&session.mails, mail)
        if place == number:
            session.spoken = mail


cdef void sessions_from_values(Sessions *sessions, list values) except *:
    for one in values:
        session_from_values(sessions, one)
