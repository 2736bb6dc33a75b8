# What a complete reply does to the session.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.numbers cimport VERB_BDAT
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.outstanding cimport Exchange
from nfmailguard.cext.smtp.reply_line cimport ReplyLine
from nfmailguard.cext.smtp.session cimport (
    ASKED_DOUBT, ASKED_EHLO, ASKED_NOTHING, ASKED_OTHER, ASKED_TOLD, SECRET_BEGUN, SECRET_SAID, Session,
)

# As note_asked, where the verb's octets may be EHLO to some servers.
cdef void note_ehlo(Session *session, const ReplyLine *reply, uint8_t verb, const uint8_t *data,
                    uint32_t length) noexcept nogil

# A command line has ended, before its reply is expected: which replies may now be one to an EHLO.
# `verb`: as it passed; the verb's own octets tell what a server may read.
cdef inline void note_asked(Session *session, const ReplyLine *reply, uint8_t verb, const uint8_t *data,
                            uint32_t length) noexcept nogil:
    if length and (data[0] <= 32 or data[0] | 32 == c"e"):
        note_ehlo(session, reply, verb, data, length)
    elif session.asked == ASKED_NOTHING:
        session.asked = ASKED_OTHER

# Whether a reply that has begun, of several lines, may be the one to an EHLO.
cdef inline bint may_answer_ehlo(const Session *session, const Exchange *exchange) noexcept nogil:
    return session.asked == ASKED_EHLO or session.asked == ASKED_DOUBT or (
        session.asked == ASKED_TOLD and exchange.count == 0)

# How much of a reply's text may be shown.
cdef inline uint32_t shown_of_reply(Context *context, uint8_t verb, uint32_t length) noexcept nogil:
    # Some servers repeat what they do not understand.
    if context.session.marks & SECRET_SAID and (context.session.marks & SECRET_BEGUN or (
            verb != context.grammar.verb_end_of_data and verb != VERB_BDAT)):
        return 0
    return length

# A reply to `verb` that is but an answer: moves the session by the table, and tells; `length` of its text.
cdef void note_reply(Context *context, Dialogue *dialogue, uint8_t verb, const uint8_t *text, uint32_t length,
                     uint64_t offset) noexcept nogil
# A reply is complete, `text` its last line: matches it and moves the session by the table.
cdef void settle_reply(Context *context, Dialogue *dialogue, const uint8_t *text, uint32_t length,
                       uint64_t offset) noexcept nogil
