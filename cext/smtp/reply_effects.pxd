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

# As note_asked, for a verb that some servers may read as EHLO.
cdef void note_ehlo(Session *session, const ReplyLine *reply, uint8_t verb, const uint8_t *data,
                    uint32_t length) noexcept nogil

# A command line has ended, and its reply is not expected yet: notes which replies may be the reply to an EHLO from now
# on. `verb` is the verb as it passed; `data` has its bytes as they came, in which a server may see EHLO.
cdef inline void note_asked(Session *session, const ReplyLine *reply, uint8_t verb, const uint8_t *data,
                            uint32_t length) noexcept nogil:
    if length and (data[0] <= 32 or data[0] | 32 == c"e"):
        note_ehlo(session, reply, verb, data, length)
    elif session.asked == ASKED_NOTHING:
        session.asked = ASKED_OTHER

# Whether a reply of several lines that has begun may be the reply to an EHLO.
cdef inline bint may_answer_ehlo(const Session *session, const Exchange *exchange) noexcept nogil:
    return session.asked == ASKED_EHLO or session.asked == ASKED_DOUBT or (
        session.asked == ASKED_TOLD and exchange.count == 0)

# How many bytes of a reply's text an event may show: none if it may repeat a secret.
cdef inline uint32_t shown_of_reply(Context *context, uint8_t verb, uint32_t length) noexcept nogil:
    # Some servers repeat in their reply what they do not understand.
    if context.session.marks & SECRET_SAID and (context.session.marks & SECRET_BEGUN or (
            verb != context.grammar.verb_end_of_data and verb != VERB_BDAT)):
        return 0
    return length

# Handles a reply to `verb` that is only an answer: moves the session's state by the table, and makes an event record
# with `length` bytes of the reply's text.
cdef void note_reply(Context *context, Dialogue *dialogue, uint8_t verb, const uint8_t *text, uint32_t length,
                     uint64_t offset) noexcept nogil
# A reply is complete, `text` is its last line: matches it with the oldest outstanding command, and moves the session's
# state by the table.
cdef void settle_reply(Context *context, Dialogue *dialogue, const uint8_t *text, uint32_t length,
                       uint64_t offset) noexcept nogil
