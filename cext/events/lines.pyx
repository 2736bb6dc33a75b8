# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Turns records into EVE lines, byte for byte as `events.eve.EveWriter` writes them.

Promises: room for a whole line is reserved before it is begun, so that no line is incomplete; bytes from peers that are
not printable ASCII never appear in a line. Does not know where the lines go.
"""

from libc.string cimport memchr, memcpy

from nfmailguard.cext.events.allowance cimport (
    KIND_ALERT, KIND_FLOW, KIND_MAILGUARD, KIND_SMTP, allowance_is_due, allowance_takes, allowance_told,
)
from nfmailguard.cext.events.buffer cimport buffer_reserve, put_byte, put_bytes, put_number, put_words
from nfmailguard.cext.events.clock cimport MOST_TIMESTAMP, put_timestamp
from nfmailguard.cext.events.ends cimport COMMUNITY_SIZE, MOST_ADDRESS, community_of, put_address
from nfmailguard.cext.events.session cimport (
    Mail, Session, mail_free, session_find, session_free, session_settle, session_take_out,
)
from nfmailguard.cext.events.text cimport JSON_SIZE, Text, put_shown, put_text
from nfmailguard.cext.events.transactions cimport session_of, take_finding, take_said
from nfmailguard.cext.record cimport MOST_RULES, RECORD_FINDING, RECORD_FLOW, RECORD_REPEATED, RECORD_TEXT

cdef enum:
    ENVELOPE = 512 + MOST_TIMESTAMP + 2 * MOST_ADDRESS     # bytes of a line besides its event object
    FIELDS = 1024                      # bytes of an event object's names, numbers and fixed text
    STATE_CONNECT = 0
    NANOSECONDS = 1000000000
    BYTES_BEFORE_KEYWORD = 4           # length of a reply line's code and separator, before the keyword

cdef const char *KIND_NAMES[4]
KIND_NAMES[:] = [b"mailguard", b"alert", b"smtp", b"flow"]

# What all lines of one record share: the record, and the connection's Community ID.
cdef struct Telling:
    const Record *record
    uint8_t community[COMMUNITY_SIZE]
    bint forgeable


cdef inline void put_word(Buffer *out, const Word *word) noexcept nogil:
    put_bytes(out, word.data, word.length)


cdef inline void put_bool(Buffer *out, bint value) noexcept nogil:
    put_words(out, b"true" if value else b"false")


cdef void put_envelope(Writing *writing, const Telling *telling, const char *kind) noexcept nogil:
    cdef Buffer *out = &writing.out
    cdef const Record *record = telling.record
    put_words(out, b'{"timestamp":"')
    put_timestamp(out, &writing.clock, record.now)
    put_words(out, b'","flow_id":')
    put_number(out, writing.engine | record.identity.flow_id)
    put_words(out, b',"event_type":"')
    put_words(out, kind)
    put_words(out, b'","src_ip":"')
    put_address(out, record.identity.family, record.identity.client)
    put_words(out, b'","src_port":')
    put_number(out, record.identity.client_port)
    put_words(out, b',"dest_ip":"')
    put_address(out, record.identity.family, record.identity.server)
    put_words(out, b'","dest_port":')
    put_number(out, record.identity.server_port)
    if record.to_server:
        put_words(out, b',"proto":"TCP","app_proto":"smtp","direction":"to_server","community_id":"')
    else:
        put_words(out, b',"proto":"TCP","app_proto":"smtp","direction":"to_client","community_id":"')
    put_bytes(out, telling.community, COMMUNITY_SIZE)
    put_words(out, b'","')
    put_words(out, kind)
    put_words(out, b'":')


cdef inline bint begin_line(Writing *writing, size_t room) noexcept nogil:
    if buffer_reserve(&writing.out, ENVELOPE + FIELDS + room) < 0:
        writing.lost += 1
        return False
    return True


cdef inline void end_line(Writing *writing, const Telling *telling, size_t begin, uint8_t kind) noexcept nogil:
    """Ends a line, or removes it again where the rate limit withholds it."""
    cdef Buffer *out = &writing.out
    cdef const Record *record = telling.record
    put_words(out, b"}\n")
    if allowance_takes(&writing.allowance, record.identity.family, record.identity.client, out.length - begin, kind,
                       record.now, telling.forgeable and kind != KIND_SMTP):
        writing.lines += 1
    else:
        out.length = begin


cdef void put_keyword(Buffer *out, const Record *record) noexcept nogil:
    """Writes the EHLO keyword in a reply line."""
    cdef uint32_t length = record.before_length, begin = BYTES_BEFORE_KEYWORD
    cdef const uint8_t *end
    if length < begin:
        begin = length
    end = <const uint8_t *> memchr(record.text + begin, 32, length - begin)
    if end != NULL:
        length = <uint32_t> (end - record.text)
    put_shown(out, record.text + begin, length - begin)


cdef inline const Word *rule_of(const Writing *writing, const Record *record) noexcept nogil:
    return &writing.names.rule[(<uint32_t> record.generation * MOST_RULES + record.identity.rule) % RULES_NUMBERED]


cdef void put_finding(Writing *writing, const Record *record) noexcept nogil:
    cdef Buffer *out = &writing.out
    cdef const Names *names = &writing.names
    put_word(out, rule_of(writing, record))
    put_word(out, &names.finding[record.finding % MOST_FINDINGS])
    put_words(out, b'","action":"')
    put_word(out, &names.action[record.action % MOST_NAMES])
    put_words(out, b'","applied":')
    put_bool(out, record.applied)
    put_words(out, b',"state":"')
    put_word(out, &names.state[record.state % MOST_NAMES])
    put_byte(out, b'"')
    if record.b > 1:
        put_words(out, b',"count":')
        put_number(out, record.b)
    if record.kind == RECORD_REPEATED:
        put_words(out, b',"repeated":true}')
        return
    put_words(out, b',"offset":')
    put_number(out, record.a)
    if record.finding == writing.meaning.keyword_masked:
        put_words(out, b',"keyword":"')
        put_keyword(out, record)
        put_byte(out, b'"')
    elif record.verb < MOST_VERBS and names.verb[record.verb].length:
        put_words(out, b',"verb":"')
        put_word(out, &names.verb[record.verb])
        put_byte(out, b'"')
    if record.hypothetical:
        put_words(out, b',"hypothetical":true')
    if record.before_length:
        put_words(out, b',"before":"')
        put_shown(out, record.text, record.before_length)
        put_byte(out, b'"')
    if record.after_length:
        put_words(out, b',"after":"')
        put_shown(out, record.text + record.before_length, record.after_length)
        put_byte(out, b'"')
    put_byte(out, b"}")


cdef void tell_finding(Writing *writing, const Telling *telling) noexcept nogil:
    cdef const Record *record = telling.record
    cdef const Word *alert
    cdef size_t begin = writing.out.length
    if begin_line(writing, rule_of(writing, record).length + JSON_SIZE * RECORD_TEXT):
        put_envelope(writing, telling, b"mailguard")
        put_finding(writing, record)
        end_line(writing, telling, begin, KIND_MAILGUARD)
    if not writing.alerts:
        return
    alert = &writing.names.alert[((record.finding % MOST_FINDINGS) * MOST_NAMES + record.action % MOST_NAMES) * 2
                                 + (record.applied != 0)]
    begin = writing.out.length
    if begin_line(writing, alert.length):
        put_envelope(writing, telling, b"alert")
        put_word(&writing.out, alert)
        end_line(writing, telling, begin, KIND_ALERT)


cdef inline void put_separator(Buffer *out) noexcept nogil:
    # Writes the comma between fields of an object, of which each may be missing.
    if out.data[out.length - 1] != b"{":
        put_byte(out, b",")


cdef void put_text_field(Buffer *out, const char *name, const Text *text) noexcept nogil:
    if text == NULL or text.length == 0:
        return
    put_separator(out)
    put_words(out, name)
    put_text(out, text)
    put_byte(out, b'"')


cdef void put_number_field(Buffer *out, const char *name, uint64_t value) noexcept nogil:
    if value:
        put_separator(out)
        put_words(out, name)
        put_number(out, value)


cdef void put_flag(Buffer *out, const char *field, bint value) noexcept nogil:
    if value:
        put_separator(out)
        put_words(out, field)


cdef void put_recipients(Buffer *out, const Mail *mail) noexcept nogil:
    cdef const Text *text = mail.first_recipient
    if text == NULL:
        return
    put_separator(out)
    put_words(out, b'"rcpt_to":[')
    while text != NULL:
        put_byte(out, b'"')
        put_text(out, text)
        put_byte(out, b'"')
        text = text.next
        if text != NULL:
            put_byte(out, b",")
    put_byte(out, b"]")


cdef void put_changes(Writing *writing, const Mail *mail) noexcept nogil:
    cdef Buffer *out = &writing.out
    cdef uint32_t i
    if mail.changes == 0:
        return
    put_separator(out)
    put_words(out, b'"changed":[')
    for i in range(mail.changes):
        if i:
            put_byte(out, b",")
        put_byte(out, b'"')
        put_word(out, &writing.names.finding[mail.change[i]])
        put_byte(out, b'"')
    put_byte(out, b"]")


cdef inline size_t room_of(const Text *text) noexcept nogil:
    return 0 if text == NULL else JSON_SIZE * <size_t> text.length + 4


cdef size_t room_of_mail(const Mail *mail) noexcept nogil:
    cdef size_t room = room_of(mail.helo) + room_of(mail.sender) + room_of(mail.reply)
    cdef const Text *text = mail.first_recipient
    while text != NULL:
        room += room_of(text)
        text = text.next
    return room + (LONGEST_NAME + 3) * <size_t> mail.changes


cdef void tell_mail(Writing *writing, const Telling *telling, const Mail *mail) noexcept nogil:
    cdef Buffer *out = &writing.out
    cdef size_t begin = out.length
    if not mail.complete:
        writing.mails[MAIL_UNANSWERED] += 1
    elif mail.reply != NULL and mail.reply.data[0] == b"2":
        writing.mails[MAIL_ACCEPTED] += 1
    else:
        writing.mails[MAIL_REFUSED] += 1
    if not begin_line(writing, room_of_mail(mail)):
        return
    put_envelope(writing, telling, b"smtp")
    put_byte(out, b"{")
    put_text_field(out, b'"helo":"', mail.helo)
    put_text_field(out, b'"mail_from":"', mail.sender)
    put_recipients(out, mail)
    put_flag(out, b'"uncertain":true', mail.uncertain)
    put_number_field(out, b'"rcpt_omitted":', mail.omitted)
    put_number_field(out, b'"bytes":', mail.bytes)
    put_text_field(out, b'"reply":"', mail.reply)
    put_flag(out, b'"tls":true', mail.tls)
    put_flag(out, b'"auth":true', mail.auth)
    put_changes(writing, mail)
    put_flag(out, b'"complete":true', mail.complete)
    put_byte(out, b"}")
    end_line(writing, telling, begin, KIND_SMTP)


cdef void tell_flow(Writing *writing, const Telling *telling, bint found) noexcept nogil:
    cdef Buffer *out = &writing.out
    cdef const Record *record = telling.record
    cdef const Names *names = &writing.names
    cdef size_t begin = out.length
    if not begin_line(writing, 0):
        return
    put_envelope(writing, telling, b"flow")
    put_words(out, b'{"pkts_toserver":')
    put_number(out, record.b)
    put_words(out, b',"pkts_toclient":')
    put_number(out, record.d)
    put_words(out, b',"bytes_toserver":')
    put_number(out, record.c)
    put_words(out, b',"bytes_toclient":')
    put_number(out, record.e)
    put_words(out, b',"start":"')
    put_timestamp(out, &writing.clock, record.a)
    put_words(out, b'","end":"')
    put_timestamp(out, &writing.clock, record.now)
    put_words(out, b'","age":')
    put_number(out, (record.now - record.a) // NANOSECONDS if record.now > record.a else 0)
    put_word(out, &names.flow_state[record.code % MOST_NAMES])
    put_bool(out, found)
    put_words(out, b',"smtp_state":"')
    put_word(out, &names.state[record.state % MOST_NAMES])
    put_word(out, &names.ended[record.code % MOST_NAMES])
    end_line(writing, telling, begin, KIND_FLOW)


cdef void know_community(const Writing *writing, Telling *telling, Session *session) noexcept nogil:
    """Computes the flow's Community ID, only once if there is a session to keep it in."""
    cdef bint known = session != NULL and session.has_community
    if not known:
        community_of(&telling.record.identity, writing.native, telling.community)
    if known:
        memcpy(telling.community, session.community, COMMUNITY_SIZE)
    elif session != NULL:
        session.has_community = True
        memcpy(session.community, telling.community, COMMUNITY_SIZE)


cdef void write_finding(Writing *writing, Telling *telling) noexcept nogil:
    cdef const Record *record = telling.record
    cdef uint64_t flow_id = record.identity.flow_id
    cdef Session *session = NULL
    telling.forgeable = (record.state == STATE_CONNECT
                         and writing.meaning.by_packets >> (record.finding % MOST_FINDINGS) & 1)
    if flow_id:                        # flow_id 0: the finding is about a packet without a flow
        session = session_find(&writing.sessions, flow_id)
        if record.kind == RECORD_FINDING:
            if session == NULL:
                session = session_of(&writing.sessions, record)
                if session != NULL:
                    session_settle(&writing.sessions, session)
            if session != NULL:
                take_finding(&writing.sessions, session, record)
    know_community(writing, telling, session)
    tell_finding(writing, telling)


cdef void write_end(Writing *writing, Telling *telling) noexcept nogil:
    """Writes the flow's mails that were begun and not finished, and the event for the flow itself."""
    cdef Session *session = session_find(&writing.sessions, telling.record.identity.flow_id)
    cdef const Mail *mail
    telling.forgeable = telling.record.state == STATE_CONNECT
    know_community(writing, telling, session)
    if session == NULL:
        tell_flow(writing, telling, False)
        return
    session_take_out(&writing.sessions, session)
    if session.mail != NULL:
        tell_mail(writing, telling, session.mail)
    mail = session.mails.first
    while mail != NULL:
        tell_mail(writing, telling, mail)
        mail = mail.next
    tell_flow(writing, telling, session.found)
    session_free(&writing.sessions, session)


cdef void write_said(Writing *writing, Telling *telling) noexcept nogil:
    cdef const Record *record = telling.record
    cdef Session *session = session_find(&writing.sessions, record.identity.flow_id)
    cdef Mail *mail
    if session == NULL:
        session = session_of(&writing.sessions, record)
        if session == NULL:
            return
    mail = take_said(&writing.sessions, session, &writing.meaning, record)
    if mail != NULL:
        know_community(writing, telling, session)
        tell_mail(writing, telling, mail)
        mail_free(&writing.sessions, mail)


cdef void write_record(Writing *writing, const Record *record) noexcept nogil:
    cdef Telling telling
    telling.record, telling.forgeable = record, False
    if record.kind == RECORD_FINDING or record.kind == RECORD_REPEATED:
        write_finding(writing, &telling)
    elif record.kind == RECORD_FLOW:
        write_end(writing, &telling)
    else:
        write_said(writing, &telling)
    if allowance_is_due(&writing.allowance, record.now):
        write_withheld(writing, record.now)


cdef void write_withheld(Writing *writing, uint64_t now) noexcept nogil:
    cdef Buffer *out = &writing.out
    cdef Allowance *allowance = &writing.allowance
    cdef uint32_t i, kind
    if not begin_line(writing, 0):
        return
    put_words(out, b'{"timestamp":"')
    put_timestamp(out, &writing.clock, now)
    put_words(out, b'","event_type":"withheld","withheld":{')
    for i in range(allowance.kinds):
        kind = allowance.order[i]
        put_byte(out, b'"')
        put_words(out, KIND_NAMES[kind])
        put_words(out, b'":')
        put_number(out, allowance.untold[kind])
        put_byte(out, b",")
    put_words(out, b'"sources":')
    put_number(out, allowance.sources)
    put_words(out, b"}}\n")
    writing.lines += 1
    allowance_told(allowance, now)
