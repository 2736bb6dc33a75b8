# One-line replies that are no more than an answer, and lines that belong to no reply.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context, again, note_junk
from nfmailguard.cext.policy.numbers cimport NOT_AGAIN, REPLY_UNSOLICITED, VERB_EHLO
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.grammar cimport INPUT_COMMANDS, TRAIT_RECORDED, TRAIT_UNREMARKABLE
from nfmailguard.cext.smtp.outstanding cimport Exchange, answer_oldest, expected_verb
from nfmailguard.cext.smtp.reply_effects cimport may_answer_ehlo
from nfmailguard.cext.smtp.reply_line cimport ANSWERS_ANYHOW, ANSWERS_BY_CODE, ANSWERS_OTHER, ReplyLine
from nfmailguard.cext.smtp.session cimport ASKED_EHLO, move_session, note_unasked, renew_offer

# Reads such lines from the beginning of a line on, at `offset` of the server's stream; returns how many bytes they
# have.
cdef uint32_t quick_lines(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length,
                          uint64_t offset) noexcept nogil

# Whether a line that begins now may belong to a reply to EHLO: one of Answers.
cdef inline uint8_t answers(Context *context, Dialogue *dialogue) noexcept nogil:
    # A client that waits for EHLO's reply takes any line for it; and while it does, it waits for no other reply.
    cdef Exchange *exchange = &dialogue.exchange
    if not may_answer_ehlo(context.session, exchange):
        return ANSWERS_OTHER
    return ANSWERS_ANYHOW if exchange.count == 0 or expected_verb(exchange) == VERB_EHLO else ANSWERS_BY_CODE

cdef inline bint is_behind(const ReplyLine *reply) noexcept nogil:
    return reply.lines > 0 or reply.junk

cdef inline bint is_refusal(const ReplyLine *reply) noexcept nogil:
    # The lines of a refusal are text for people, as long as all of them are refusals: a client goes by the last line's
    # code, or the first's.
    return 400 <= (reply.first_code if reply.lines else reply.code) < 600

# Whether a byte of its code makes a line belong to no reply, although clients read it as part of one (Postfix).
cdef inline bint no_reply_s(const ReplyLine *reply, uint32_t column, uint8_t byte) noexcept nogil:
    # A reply code begins with 2 to 5 (RFC 5321 4.2.1); sendmail's 050 is no code of a reply.
    if not 48 <= byte <= 57 or (column == 0 and not c"2" <= byte <= c"5"):
        return True
    return (reply.answers_ehlo == ANSWERS_ANYHOW and reply.lines > 0 and is_refusal(reply)
            and byte - 48 != (reply.first_code // 100 if column == 0 else reply.first_code // 10 % 10
                              if column == 1 else reply.first_code % 10))

cdef inline bint masking_junk(Context *context, const ReplyLine *reply) noexcept nogil:
    return (context.policy.mask_ehlo and not context.policy.hide and reply.answers_ehlo == ANSWERS_ANYHOW
            and is_behind(reply))

cdef inline bint is_plain(Context *context, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # Whether nothing matters of a line that answers `verb` but its code, and whether it is the reply's last line.
    cdef ReplyLine *reply = &dialogue.reply
    cdef Exchange *exchange = &dialogue.exchange
    if reply.junk or verb == VERB_EHLO or (
            exchange.count == 0 and reply.lines and may_answer_ehlo(context.session, exchange)):
        return False
    if reply.code != 250:
        return reply.code != 220 or verb != context.grammar.verb_greeting
    return reply.lines == 0 or not may_answer_ehlo(context.session, exchange)

cdef inline bint settle_unremarkable(Context *context, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # As settle_reply, if no finding would be logged and nothing but the session's state changes; returns whether that
    # is so.
    cdef ReplyLine *reply = &dialogue.reply
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint16_t code = reply.code
    cdef uint8_t state = context.session.state
    if context.grammar.traits[verb] & (TRAIT_UNREMARKABLE | TRAIT_RECORDED) != TRAIT_UNREMARKABLE or (
            exchange.input != INPUT_COMMANDS or context.session.asked == ASKED_EHLO
            or code == 354 or code == 334 or code == 421):
        return False
    if exchange.count == 0:
        if context.session.offered_chunking:
            return False
        if again(context, REPLY_UNSOLICITED, False) == NOT_AGAIN:
            return False
        note_unasked(context.session)
        return True
    move_session(context.session, context.grammar.next_state[state][verb][code // 100 if code < 600 else 0])
    renew_offer(context.session)
    answer_oldest(context, exchange, verb)
    if verb != context.grammar.verb_greeting:
        note_junk(context, reply.offset)
    return True
