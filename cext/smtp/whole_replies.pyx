# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One-line replies that lie in one segment as a whole and are never altered: read in one step.

Promises: the session becomes what ``reply`` makes of it byte by byte. Short lines cost most per byte. Does not know
banners, keywords or what else changes a reply.
"""

from libc.stdint cimport uint64_t

from nfmailguard.cext.policy.findings cimport omit_records, repeat
from nfmailguard.cext.policy.numbers cimport (
    ACTION_DROP, ACTION_PASS, FORM_OK, LINE_BYTES_SHOWN, REPLY_MALFORMED, VERB_BDAT, VERB_RCPT, VERB_UNKNOWN,
)
from nfmailguard.cext.policy.ruling cimport gates
from nfmailguard.cext.policy.tally cimport tally_untold
from nfmailguard.cext.smtp.grammar cimport TRAIT_ANSWERED
from nfmailguard.cext.smtp.outstanding cimport answer_oldest, expected_verb, is_untold
from nfmailguard.cext.smtp.reply_effects cimport note_reply, shown_of_reply
from nfmailguard.cext.smtp.reply_line cimport begin_reply_line, take_code, take_junk, take_unasked

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept
    uint32_t nm_code(const uint8_t *p) noexcept

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32
    DASH = 45


cdef inline bint masks_junk(Context *context, Dialogue *dialogue) noexcept nogil:
    # Whether a line after one that belongs to no reply has to be masked: clients waiting for EHLO's reply may read it.
    return context.policy.mask_ehlo and not context.policy.hide and answers(context, dialogue) == ANSWERS_ANYHOW


cdef uint32_t bad_lines(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    """Reads lines without a reply code whose findings are only counted; returns how many bytes they have."""
    cdef uint32_t at = 0, count = 0, end
    cdef bint masking = masks_junk(context, dialogue)
    cdef uint32_t untold = tally_untold(&context.session.tally, REPLY_MALFORMED, context.policy.findings_told)
    if context.policy.action[REPLY_MALFORMED] == ACTION_PASS:
        untold = length
    elif context.policy.action[REPLY_MALFORMED] >= ACTION_DROP:
        untold = 0
    while at < length and count < untold:
        end = at
        if data[at] == CR and at + 1 < length and data[at + 1] == LF:
            end += 1
        elif data[at] != LF:
            if <uint8_t> (data[at] - 48) <= 9:
                break
            end += nm_next_lf(data + at, length - at)
            if end == length or end - at > LINE_BYTES_SHOWN:
                break
        count += 1
        if end - at > (data[at] == CR):
            take_junk(&dialogue.reply)
            at = end + 1
            if masking:
                break                              # the next line that belongs to no reply has to be masked
        at = end + 1
    if count:
        repeat(context, REPLY_MALFORMED, count, False)
    return at


cdef inline uint16_t number_of(uint32_t code) noexcept nogil:
    return <uint16_t> ((code >> 16 & 15) * 100 + (code >> 8 & 15) * 10 + (code & 15))


cdef inline uint32_t single_line(const uint8_t *data, uint32_t at, uint32_t length) noexcept nogil:
    """The index of the LF that ends a whole one-line reply: a code alone, or a code, a space and text; 0: it is none,
    or cut."""
    cdef uint32_t end = at + 3 + nm_next_lf(data + at + 3, length - at - 3)
    if end == length or end - at > LINE_BYTES_SHOWN or (
            data[at + 3] != SPACE and end - (data[end - 1] == CR) != at + 3):
        return 0
    return end


cdef inline bint leads_nowhere(const Context *context, const Dialogue *dialogue, uint8_t verb,
                               uint8_t one) noexcept nogil:
    """Whether a reply, as note_reply has it, only moves the session's state by the table, and is not recorded."""
    cdef uint16_t traits = context.grammar.traits[verb]
    if traits & (TRAIT_UNREMARKABLE | TRAIT_RECORDED) == TRAIT_UNREMARKABLE:
        return True
    return (one >= 4 and is_untold(&dialogue.exchange) and verb != VERB_RCPT and verb != VERB_BDAT
            and verb != context.grammar.verb_end_of_data)


cdef uint32_t quick_replies(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length,
                            uint64_t offset) noexcept nogil:
    """Reads one-line replies that are no more than answers, up to one that lets the client go on; returns their length
    in bytes."""
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint32_t at = 0, end
    cdef uint32_t code
    cdef uint8_t one, verb
    cdef bint waiting = exchange.waiting and not gates(context.policy)
    while exchange.count and at + 4 < length and context.verdict == ACTION_PASS:
        verb = expected_verb(exchange)
        code = nm_code(data + at)
        one = data[at] - 48
        if code == 0 or not context.grammar.traits[verb] & TRAIT_ANSWERED or <uint8_t> (one - 2) > 3:
            break
        end = single_line(data, at, length)
        if end == 0:
            break
        if leads_nowhere(context, dialogue, verb, one):
            omit_records(context, context.grammar.traits[verb] & TRAIT_RECORDED)
            move_session(context.session, context.grammar.next_state[context.session.state][verb][one])
            renew_offer(context.session)
            note_junk(context, offset + at)
        else:
            take_code(&dialogue.reply, number_of(code))
            note_reply(context, dialogue, verb, data + at,
                       shown_of_reply(context, verb, end - at - (data[end - 1] == CR)), offset + at)
        answer_oldest(context, exchange, verb)
        at = end + 1
        if waiting and not exchange.waiting:
            break
    return at


cdef uint32_t unasked_replies(Context *context, Dialogue *dialogue, const uint8_t *data,
                              uint32_t length) noexcept nogil:
    """Reads one-line replies that no command is outstanding for, with findings that are only counted; returns their
    length in bytes."""
    cdef uint32_t at = 0, count = 0, end, code, last = 0
    cdef uint32_t untold = tally_untold(&context.session.tally, REPLY_UNSOLICITED, context.policy.findings_told)
    if context.session.offered_chunking or context.grammar.traits[VERB_UNKNOWN] & TRAIT_RECORDED or (
            context.policy.action[REPLY_UNSOLICITED] >= ACTION_DROP):
        return 0
    if context.policy.action[REPLY_UNSOLICITED] == ACTION_PASS:
        untold = length
    while at + 4 < length and count < untold:
        code = nm_code(data + at)
        if code == 0 or not c"2" <= data[at] <= c"5":
            break
        end = single_line(data, at, length)
        if end == 0:
            break
        last = code
        count += 1
        at = end + 1
    if count:
        repeat(context, REPLY_UNSOLICITED, count, False)
        note_unasked(context.session)
        take_unasked(&dialogue.reply, number_of(last))
    return at


cdef uint32_t quick_lines(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length,
                          uint64_t offset) noexcept nogil:
    cdef ReplyLine *reply = &dialogue.reply
    cdef Exchange *exchange = &dialogue.exchange
    begin_reply_line(reply, offset)
    if context.policy.restore or reply.lines or context.session.state == context.grammar.state_connect or (
            context.policy.unknown == FORM_OK) or (reply.junk and masks_junk(context, dialogue)):
        return 0
    if not 48 <= data[0] <= 57:
        return bad_lines(context, dialogue, data, length)
    if reply.junk or exchange.input != INPUT_COMMANDS or context.session.asked == ASKED_EHLO:
        return 0
    if exchange.count == 0:
        return unasked_replies(context, dialogue, data, length) if length > 4 and data[3] != DASH else 0
    return quick_replies(context, dialogue, data, length, offset)
