# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reply lines: where they begin and end, and which of them are masked.

Keeps invariant 4 for the server's direction: segmentation decides nothing. Replies other than the greeting and the
reply to EHLO are never altered (Cisco: all traces).
"""

from libc.stdint cimport uint16_t
from libc.string cimport memchr, memcpy

from nfmailguard.cext.policy.findings cimport (
    again, forget_changes, note_not_smtp, out_of_memory, report, report_shown, shown,
)
from nfmailguard.cext.policy.numbers cimport (
    ACTION_MASK, ACTION_PASS, BANNER_MASKED, FLOW_NOT_SMTP, LINE_BYTES_SHOWN, NOT_AGAIN, REPLY_KEYWORD_MASKED,
    REPLY_MALFORMED, UPSTREAM_BANNER_MASKED, UPSTREAM_KEYWORD_MASKED, VERB_EHLO,
)
from nfmailguard.cext.policy.ruling cimport gates
from nfmailguard.cext.smtp.grammar cimport INPUT_OPAQUE
from nfmailguard.cext.smtp.line cimport Line, alloc_line, free_line, line_add, line_begin
from nfmailguard.cext.smtp.name cimport Name, name_is
from nfmailguard.cext.smtp.outstanding cimport Exchange, expected_verb
from nfmailguard.cext.smtp.reply_effects cimport settle_reply
from nfmailguard.cext.smtp.reply_line cimport ReplyLine, choose_keyword_mode, read_code
from nfmailguard.cext.smtp.reply_mask cimport (
    KEYWORD_NONE, banner_byte, begin_keyword, keyword_byte, keyword_denied, keyword_line, mask_byte, masking_banner,
    masking_keywords, ok_byte, report_banner, report_keyword, report_ok, too_long, turning_ok,
)
from nfmailguard.cext.smtp.session cimport SECRET_SAID, offer_chunking
from nfmailguard.cext.smtp.unmask cimport banner_masked, keyword_masked, report_damage, restore_reply
from nfmailguard.cext.smtp.whole_replies cimport (
    answers, is_behind, is_plain, is_refusal, masking_junk, no_reply_s, quick_lines, settle_unremarkable,
)

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32
    DASH = 45


cdef void note_chunking(Context *context, Dialogue *dialogue) noexcept nogil:
    # RFC 3030 2: the client may send BDAT if EHLO's reply offers CHUNKING in the form in which it is forwarded.
    cdef Line *line = dialogue.reply.kept
    cdef Name chunking
    memcpy(chunking.data, b"CHUNKING", 8)
    chunking.length = 8
    if dialogue.exchange.greetings > 1:
        return                                     # a later command has begun the session anew
    if dialogue.reply.lines == 0:
        offer_chunking(context.session, False)
    elif line.length == 12 and name_is(&chunking, line.data + 4, 8):
        offer_chunking(context.session, True)


cdef void report_upstream(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    """Reports what of a reply line another firewall upstream has masked."""
    cdef ReplyLine *reply = &dialogue.reply
    cdef Line *line = reply.kept
    cdef uint32_t length = line.length - 4 if line.length > 4 else 0
    if reply.lines == 0:
        reply.already_masked = 0
        if reply.code == 220 and expected_verb(&dialogue.exchange) == context.grammar.verb_greeting and (
                banner_masked(line.data + 4, length)):
            report_damage(context, UPSTREAM_BANNER_MASKED, False, 0, offset, line.data, line.length)
    elif reply.answers_ehlo and reply.code == 250 and (
            keyword_masked(line.data + 4, length, reply.already_masked)):
        reply.already_masked = line.data[line.length - 1] - c"A" + 1
        report_damage(context, UPSTREAM_KEYWORD_MASKED, False, VERB_EHLO, offset, line.data, line.length)


cdef void end_reply_line(Context *context, Dialogue *dialogue) noexcept nogil:
    cdef ReplyLine *reply = &dialogue.reply
    cdef Line *line = reply.kept
    cdef uint64_t start = reply.offset
    cdef bint more = line != NULL and line.length > 3 and line.data[3] == DASH
    if reply.malformed or reply.column < 3:
        if again(context, REPLY_MALFORMED, False) != NOT_AGAIN:
            pass
        elif line == NULL or context.session.marks & SECRET_SAID:
            report(context, REPLY_MALFORMED, False, 0, start)
        else:
            report_shown(context, REPLY_MALFORMED, False, 0, start, shown(line.data, line.length, NULL, 0))
        if reply.malformed and masking_junk(context, reply) and line != NULL:
            report_shown(context, REPLY_KEYWORD_MASKED, False, VERB_EHLO, start,
                         shown(line.data, 0 if context.session.marks & SECRET_SAID else line.length, NULL, 0))
        reply.junk |= reply.column != 0
        free_line(context.line_pool, &reply.kept)
        reply.column = 0
        reply.malformed = 0
        return
    report_upstream(context, dialogue, start)
    if masking_banner(context, dialogue) and reply.lines == 0:
        report_banner(context, dialogue, start)
    else:
        if reply.code // 100 == 5 and turning_ok(context, dialogue):
            report_ok(context, dialogue, start)
        if keyword_denied(context, dialogue):
            report_keyword(context, dialogue, start)
        elif reply.keyword_mask_mode != KEYWORD_NONE and too_long(context, reply.column):
            report_shown(context, REPLY_KEYWORD_MASKED, False, VERB_EHLO, start,
                         shown(line.data, 0 if context.session.marks & SECRET_SAID else 120, NULL, 0))
        if reply.code == 250 and expected_verb(&dialogue.exchange) == VERB_EHLO and (
                reply.keyword_mask_mode == KEYWORD_NONE or line.sent + 4 >= line.length):
            note_chunking(context, dialogue)
    if more:
        if reply.lines == 0:
            reply.first_code = reply.code
        if reply.lines < 255:
            reply.lines += 1
    elif context.verdict == ACTION_PASS:
        settle_reply(context, dialogue, line.data if line != NULL else NULL, line.length if line != NULL else 0, start)
        reply.lines = 0
        reply.masked_lines = 0
    free_line(context.line_pool, &reply.kept)
    reply.column = 0


cdef void reply_byte(Context *context, Dialogue *dialogue, uint8_t *at, uint32_t length) noexcept nogil:
    """Reads one byte of a reply line that is not part of its end; ``length`` bytes from ``at`` on are in this
    segment."""
    cdef ReplyLine *reply = &dialogue.reply
    cdef uint16_t column = reply.column
    cdef uint8_t byte = at[0]
    cdef bint last, hide_denial
    if column == 0:
        reply.kept = alloc_line(context.line_pool)
        reply.code = 0
        choose_keyword_mode(reply, KEYWORD_NONE)
        reply.answers_ehlo = answers(context, dialogue)
        if context.policy.restore and reply.lines == 0:
            restore_reply(context, &dialogue.exchange, at, length, reply.offset)
            byte = at[0]
        if reply.kept == NULL:
            out_of_memory(context, False, reply.offset)
            return
    hide_denial = (byte if column == 0 else reply.kept.data[0]) == c"5" and turning_ok(context, dialogue)
    if column < 3 and not reply.malformed and not no_reply_s(reply, column, byte):
        reply.code = reply.code * 10 + (byte - 48)
        if hide_denial:
            mask_byte(context, at, ok_byte(column, byte))
    elif column < 3 or reply.malformed:
        reply.malformed = 1
        if masking_junk(context, reply) and context.policy.action[REPLY_KEYWORD_MASKED] == ACTION_MASK:
            mask_byte(context, at, c"X")
    elif hide_denial:
        mask_byte(context, at, ok_byte(column, byte))
    elif masking_banner(context, dialogue):
        if context.policy.action[BANNER_MASKED] == ACTION_MASK:
            mask_byte(context, at, banner_byte(context, column, byte, reply.before))
    elif column > 3:
        # Decided for the whole line here: an EHLO that comes in the middle of a reply line cannot be what it answers.
        if column == 4:
            reply.answers_ehlo = answers(context, dialogue)
            if masking_keywords(context, dialogue):
                begin_keyword(context, dialogue, at, length)
        if reply.keyword_mask_mode != KEYWORD_NONE:
            last = length > 1 and (at[1] == LF or (at[1] == CR and (length == 2 or at[2] == LF)))
            keyword_byte(context, dialogue, at, last)
    line_add(reply.kept, byte)
    reply.before = byte
    if column < 0xffff:
        reply.column += 1


cdef inline bint says_nothing(Context *context, Dialogue *dialogue, uint8_t verb, const uint8_t *data,
                              uint32_t size) noexcept nogil:
    """Whether a line of EHLO's reply is never altered, has no finding to be logged, and does not offer CHUNKING."""
    if verb != VERB_EHLO or context.policy.mask_ehlo or dialogue.reply.junk or (
            size == 12 and data[4] | SPACE == c"c") or (dialogue.reply.lines and is_refusal(&dialogue.reply)):
        return False
    return dialogue.reply.lines == 0 or dialogue.reply.code != 250 or size < 5 or not (
        keyword_masked(data + 4, size - 4, dialogue.reply.already_masked))


cdef uint32_t whole_line(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t length) noexcept nogil:
    # Reads a reply line that begins here and ends in this segment, up to its LF or, where the line is plain, with its
    # LF. Returns how many bytes were read; 0: the line has to be read byte by byte.
    cdef ReplyLine *reply = &dialogue.reply
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint32_t whole = nm_next_lf(data, length)
    cdef uint32_t size = whole
    cdef uint8_t verb = expected_verb(exchange)
    if (whole == length or context.policy.restore
            or (verb == context.grammar.verb_masked and turning_ok(context, dialogue))):
        return 0
    if size and data[size - 1] == CR:
        size -= 1
    if size > LINE_BYTES_SHOWN:
        return 0                                   # an overlong line has to be measured byte by byte
    reply.answers_ehlo = answers(context, dialogue) if is_behind(reply) else 0
    if not read_code(reply, data, size):
        if masking_junk(context, reply):
            return 0
        if (context.session.state == context.grammar.state_connect
                or again(context, REPLY_MALFORMED, False) == NOT_AGAIN):
            return 0
        reply.junk |= size != 0
        return whole + 1
    if (size == 3 or data[3] == SPACE or data[3] == DASH) and (
            is_plain(context, dialogue, verb) or says_nothing(context, dialogue, verb, data, size)):
        if verb == VERB_EHLO and reply.lines == 0 and reply.code == 250 and exchange.greetings < 2:
            offer_chunking(context.session, False)     # EHLO's first line withdraws the old offer, as in note_chunking
        if size > 3 and data[3] == DASH:
            if reply.lines == 0:
                reply.already_masked = 0
                reply.first_code = reply.code
            if reply.lines < 255:
                reply.lines += 1
        else:
            if not settle_unremarkable(context, dialogue, verb):
                settle_reply(context, dialogue, data, size, reply.offset)
            reply.lines = 0
            reply.masked_lines = 0
        return whole + 1
    if size <= 3 or masking_banner(context, dialogue) or no_reply_s(reply, 0, data[0]) or (
            no_reply_s(reply, 1, data[1]) or no_reply_s(reply, 2, data[2])):
        return 0
    reply.kept = alloc_line(context.line_pool)
    if reply.kept == NULL:
        return 0                                   # no memory: reading the line's first byte reports this
    line_begin(reply.kept, data, size, 0)
    reply.column = <uint16_t> size
    choose_keyword_mode(reply, KEYWORD_NONE)
    reply.answers_ehlo = answers(context, dialogue)
    if size > 4 and masking_keywords(context, dialogue):
        begin_keyword(context, dialogue, data + 4, whole - 4 + 1)
        keyword_line(context, dialogue, data + 4, size - 4)
    return whole


cdef inline bint whole_line_passes(Context *context, Dialogue *dialogue) noexcept nogil:
    # After the separator of a reply that is not altered, nothing but the line's end matters.
    return (dialogue.reply.column > 3 and dialogue.reply.kept.length >= 128 and not masking_banner(context, dialogue)
            and dialogue.reply.keyword_mask_mode == KEYWORD_NONE and not turning_ok(context, dialogue))


cdef uint32_t server_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t length,
                           uint64_t offset) noexcept nogil:
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint32_t at = 0, run
    cdef uint16_t waiting
    cdef uint8_t *end
    cdef uint8_t carriage_return
    cdef uint32_t edits
    while at < length and context.verdict == ACTION_PASS and exchange.input != INPUT_OPAQUE:
        if dialogue.reply.after_cr:
            dialogue.reply.after_cr = 0
            if data[at] != LF:
                edits = context.edits
                carriage_return = CR
                reply_byte(context, dialogue, &carriage_return, 1)       # the CR, already forwarded, ended no line
                forget_changes(context, edits)
        if dialogue.reply.column == 0:
            waiting = exchange.waiting
            run = quick_lines(context, dialogue, data + at, length - at, offset + at)
            if run == 0:
                run = whole_line(context, dialogue, data + at, length - at)
            at += run
            if run and data[at - 1] == LF:
                if waiting and not exchange.waiting and not gates(context.policy):
                    return at
                continue
        if data[at] == LF:
            waiting = exchange.waiting
            end_reply_line(context, dialogue)
            at += 1
            if waiting and not exchange.waiting and not gates(context.policy):
                return at
            continue
        if data[at] == CR and (at + 1 == length or data[at + 1] == LF):
            at += 1                                # a line end's CR, never altered; its LF may come later
            dialogue.reply.after_cr = at == length
            continue
        reply_byte(context, dialogue, data + at, length - at)
        at += 1
        if dialogue.reply.malformed and context.session.state == context.grammar.state_connect and not context.not_smtp:
            note_not_smtp(context)                   # RFC 5321 3.1: a server speaks first, with a reply code
            report_shown(context, FLOW_NOT_SMTP, False, 0, offset,
                         shown(data, 0 if context.session.marks & SECRET_SAID else min(length, 48), NULL, 0))
            return length
        if context.verdict == ACTION_PASS and whole_line_passes(context, dialogue):
            end = <uint8_t *> memchr(data + at, LF, length - at)
            at = <uint32_t> (end - data) if end != NULL else length
    return length
