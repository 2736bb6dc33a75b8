# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reply lines: the greeting's banner, the EHLO keywords, and which command each reply answers.

Keeps invariant 4 for the server's direction: the banner rules look at one octet and
its place in the line; a keyword cut over segments passes while an allowed one is
still possible and becomes X's from the first impossible octet. Replies other than
the greeting and that to EHLO are never altered (Cisco: all traces).
"""

from libc.stdint cimport uint16_t
from libc.string cimport memchr, memcpy, memset

from nfmailguard.cext.policy.findings cimport again, note_change, out_of_memory, report
from nfmailguard.cext.policy.numbers cimport (
    ACTION_MASK, ACTION_PASS, BANNER_B40, BANNER_B51, BANNER_MASKED, BANNER_NONE, FLOW_NOT_SMTP, LINE_BYTES_SHOWN,
    NOT_AGAIN, REPLY_KEYWORD_MASKED, REPLY_MALFORMED, REPLY_TURNED_OK, UPSTREAM_BANNER_MASKED,
    UPSTREAM_KEYWORD_MASKED, VERB_EHLO,
)
from nfmailguard.cext.smtp.grammar cimport INPUT_OPAQUE
from nfmailguard.cext.smtp.line cimport (
    Line, alloc_line, free_line, line_add, line_begin, line_let_through,
)
from nfmailguard.cext.smtp.name cimport NAME_BYTES, Name, name_begins, name_is
from nfmailguard.cext.smtp.outstanding cimport Exchange, expected_verb
from nfmailguard.cext.smtp.reply_effects cimport settle_reply
from nfmailguard.cext.smtp.reply_line cimport ANSWERS_ANYHOW, ReplyLine, read_code
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
    STAR = 42

cdef enum KeywordFate:
    KEYWORD_NONE = 0           # not a line of a reply to EHLO
    KEYWORD_PASS = 1
    KEYWORD_OPEN = 2           # cut: decided by prefix
    KEYWORD_MASK = 3

cdef const char *CMAP = b"SMTP/cmap ready"


cdef inline void put(Context *context, uint8_t *at, uint8_t byte) noexcept nogil:
    if at[0] != byte:
        note_change(context)
        if context.policy.apply:
            at[0] = byte


cdef uint8_t banner_byte(Context *context, uint32_t column, uint8_t byte, uint8_t before) noexcept nogil:
    """What the octet at ``column`` of a 220 greeting line, behind the octet ``before``, becomes by the banner rule."""
    cdef uint8_t rule = context.policy.banner
    if column < 3:
        return byte
    if column == 3:
        if byte == SPACE and context.policy.banner_separator:
            return byte
        if byte == DASH and context.policy.banner_dash:
            return byte
        return STAR
    if rule == BANNER_B40:                         # PIX 4.0: S-RECOG's sample, padded with _
        return CMAP[column - 4] if column < 19 else c"_"
    if rule == BANNER_B51 and (byte == c"2" or byte == c"0"):
        return byte                               # S-Q295725, S-MS320027
    if rule == BANNER_B51 and byte == SPACE and before == c"0" and context.policy.banner_separator:
        return byte                               # S-HVERA: "0 SPACE" is meant literally
    return STAR


cdef bint keyword_allowed(Context *context, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(context.policy.keyword_count):
        if name_is(&context.policy.keywords[i], data, length):
            return not context.policy.hide
    return context.policy.hide


cdef bint keyword_possible(Context *context, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    if context.policy.hide:
        return keyword_allowed(context, data, length)
    for i in range(context.policy.keyword_count):
        if name_begins(&context.policy.keywords[i], data, length):
            return True
    return False


cdef inline bint masking_banner(Context *context, Dialogue *dialogue) noexcept nogil:
    return (context.policy.banner != BANNER_NONE and dialogue.reply.code == 220
            and expected_verb(&dialogue.exchange) == context.grammar.verb_greeting)


cdef inline bint turning_ok(Context *context, Dialogue *dialogue) noexcept nogil:
    # S-4733: "responds with an OK even to denied commands": the server's answer to what was masked.
    return (expected_verb(&dialogue.exchange) == context.grammar.verb_masked
            and context.policy.action[REPLY_TURNED_OK] == ACTION_MASK)


cdef inline uint8_t ok_byte(uint32_t column, uint8_t byte) noexcept nogil:
    cdef const char *ok = b"250 OK"
    if column == 3:
        return byte
    return ok[column] if column < 6 else SPACE


cdef void report_ok(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef Line *line = dialogue.reply.kept
    cdef uint8_t after[LINE_BYTES_SHOWN]
    cdef uint32_t i, length = line.length if line.length < 120 else 120
    for i in range(length):
        after[i] = ok_byte(i, line.data[i])
    report(context, REPLY_TURNED_OK, False, 0, offset, line.data, 0 if context.session.secret else length, after,
           length)


cdef inline bint masking_keywords(Context *context, Dialogue *dialogue) noexcept nogil:
    cdef ReplyLine *reply = &dialogue.reply
    if not context.policy.mask_ehlo or not is_behind(reply) or not reply.answers_ehlo:
        return False
    if context.policy.hide:
        return context.session.ehlo_restored and reply.code == 250
    return reply.code == 250 or (reply.answers_ehlo == ANSWERS_ANYHOW and not is_refusal(reply))


cdef inline uint8_t letter(Dialogue *dialogue) noexcept nogil:
    # S-PGT against S-NMAPC: the n-th masked line of a reply ends in the n-th letter.
    return <uint8_t> (c"A" + dialogue.reply.masked_lines % 26)


cdef inline bint too_long(Context *context, uint32_t length) noexcept nogil:
    # RFC 5321 4.5.3.1.5: some clients take what is behind for another line, and so for a keyword.
    return length > context.policy.longest_line != 0


cdef void begin_keyword(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    """Chooses the mask mode of the keyword line whose text begins at ``data``."""
    cdef ReplyLine *reply = &dialogue.reply
    cdef uint32_t end = nm_next_lf(data, length), stop
    if end and data[end - 1] == CR:                # which alone ends no line
        end -= 1
    if end == length:
        reply.keyword_mask_mode = KEYWORD_OPEN
        return
    stop = 0
    while stop < end and not context.policy.keyword_end[data[stop]]:
        stop += 1
    reply.keyword_mask_mode = KEYWORD_PASS if end == 0 or keyword_allowed(context, data, stop) else KEYWORD_MASK
    if not context.policy.hide and memchr(data, CR, end) != NULL:
        reply.keyword_mask_mode = KEYWORD_MASK


cdef void keyword_byte(Context *context, Dialogue *dialogue, uint8_t *at, bint last) noexcept nogil:
    """One octet of the text; ``last``: the line's end is next and in this segment."""
    cdef ReplyLine *reply = &dialogue.reply
    cdef Line *line = reply.kept
    cdef uint8_t name[NAME_BYTES + 1]
    cdef uint32_t length = line.length - 4 if line.length > 4 else 0   # the text so far, this octet not in it
    if length > NAME_BYTES:
        length = NAME_BYTES                       # no keyword is that long: too long stays too long
    if at[0] == CR and not context.policy.hide:      # it seemed to be the line's end, and is to some clients
        reply.keyword_mask_mode = KEYWORD_MASK
    if reply.keyword_mask_mode == KEYWORD_OPEN:
        if context.policy.keyword_end[at[0]]:
            reply.keyword_mask_mode = KEYWORD_PASS if keyword_allowed(context, line.data + 4,
                                                                         length) else KEYWORD_MASK
        else:
            name[length] = at[0]
            memcpy(name, line.data + 4, length)
            if not keyword_possible(context, name, length + 1):
                reply.keyword_mask_mode = KEYWORD_MASK
    if too_long(context, reply.column + 1) and reply.keyword_mask_mode != KEYWORD_MASK:
        if context.policy.action[REPLY_KEYWORD_MASKED] == ACTION_MASK:
            put(context, at, c"X")
    elif reply.keyword_mask_mode == KEYWORD_MASK and context.policy.action[REPLY_KEYWORD_MASKED] == ACTION_MASK:
        put(context, at, letter(dialogue) if last else c"X")
    else:
        line_let_through(line, 1)


cdef void report_banner(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef Line *line = dialogue.reply.kept
    cdef uint8_t after[LINE_BYTES_SHOWN]
    cdef uint32_t i, length = line.length if line.length < 120 else 120
    for i in range(length):
        after[i] = banner_byte(context, i, line.data[i], line.data[i - 1] if i else 0)
    if context.session.secret:
        length = 0
    report(context, BANNER_MASKED, False, 0, offset, line.data, length, after, length)


cdef void report_keyword(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef ReplyLine *reply = &dialogue.reply
    cdef Line *line = reply.kept
    cdef uint8_t after[LINE_BYTES_SHOWN]
    cdef uint32_t sent = line.sent if context.policy.apply else 0
    cdef uint32_t length = line.length if line.length < 120 else 120
    if length <= 4:
        return
    if again(context, REPLY_KEYWORD_MASKED, False) == NOT_AGAIN:
        memcpy(after, line.data, length)
        if 4 + sent < length:
            memset(after + 4 + sent, c"X", length - 4 - sent)
            after[length - 1] = letter(dialogue)
        if context.session.secret:
            length = 0                             # nor what of it has left
        report(context, REPLY_KEYWORD_MASKED, False, VERB_EHLO, offset, line.data, length, after, length)
    reply.masked_lines += 1


cdef bint keyword_denied(Context *context, Dialogue *dialogue) noexcept nogil:
    cdef ReplyLine *reply = &dialogue.reply
    # At the line's end: a keyword that passed to its end as a beginning of an allowed one may be none.
    cdef Line *line = reply.kept
    if reply.keyword_mask_mode == KEYWORD_OPEN and line.length > 4:
        return not keyword_allowed(context, line.data + 4, line.length - 4)
    return reply.keyword_mask_mode == KEYWORD_MASK


cdef void note_chunking(Context *context, Dialogue *dialogue) noexcept nogil:
    # RFC 3030 2: what the client may use is what the EHLO reply offered, as emitted.
    cdef Line *line = dialogue.reply.kept
    cdef Name chunking
    memcpy(chunking.data, b"CHUNKING", 8)
    chunking.length = 8
    if dialogue.exchange.greetings > 1:
        return                                     # and the session has begun anew since
    if dialogue.reply.lines == 0:
        context.session.offered_chunking = 0
    elif line.length == 12 and name_is(&chunking, line.data + 4, 8):
        context.session.offered_chunking = 1


cdef void report_upstream(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    """What of the line was masked before it reached us."""
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
        elif line == NULL or context.session.secret:
            report(context, REPLY_MALFORMED, False, 0, start, NULL, 0, NULL, 0)
        else:
            report(context, REPLY_MALFORMED, False, 0, start, line.data, line.length, NULL, 0)
        if reply.malformed and masking_junk(context, reply) and line != NULL:
            report(context, REPLY_KEYWORD_MASKED, False, VERB_EHLO, start, line.data,
                   0 if context.session.secret else line.length, NULL, 0)
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
            report(context, REPLY_KEYWORD_MASKED, False, VERB_EHLO, start, line.data,
                   0 if context.session.secret else 120, NULL, 0)
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
    """One octet of a line that is not its end; ``length`` octets from ``at`` on are in this segment."""
    cdef ReplyLine *reply = &dialogue.reply
    cdef uint16_t column = reply.column
    cdef uint8_t byte = at[0]
    cdef bint last, hide_denial
    if column == 0:
        reply.kept = alloc_line(context.line_pool)
        reply.code = 0
        reply.keyword_mask_mode = KEYWORD_NONE
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
            put(context, at, ok_byte(column, byte))
    elif column < 3 or reply.malformed:
        reply.malformed = 1
        if masking_junk(context, reply) and context.policy.action[REPLY_KEYWORD_MASKED] == ACTION_MASK:
            put(context, at, c"X")
    elif hide_denial:
        put(context, at, ok_byte(column, byte))
    elif masking_banner(context, dialogue):
        if context.policy.action[BANNER_MASKED] == ACTION_MASK:
            put(context, at, banner_byte(context, column, byte, reply.before))
    elif column > 3:
        # For the whole line at once: an EHLO that comes in its middle cannot be what it answers.
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


cdef void keyword_line(Context *context, Dialogue *dialogue, uint8_t *text, uint32_t length) noexcept nogil:
    """The text of a keyword line that lies in this segment whole, as ``keyword_octet`` takes each octet of it."""
    cdef ReplyLine *reply = &dialogue.reply
    cdef uint32_t i
    if reply.keyword_mask_mode != KEYWORD_MASK or context.policy.action[REPLY_KEYWORD_MASKED] != ACTION_MASK:
        line_let_through(reply.kept, length)
        return
    for i in range(length - 1):
        if text[i] != c"X":
            note_change(context)
            break
    if context.policy.apply:
        memset(text, c"X", length - 1)
    put(context, text + length - 1, letter(dialogue))


cdef inline bint says_nothing(Context *context, Dialogue *dialogue, uint8_t verb, const uint8_t *data,
                              uint32_t size) noexcept nogil:
    """Whether a line of the reply to EHLO is never altered, nobody is told of it, and it does not offer CHUNKING."""
    if verb != VERB_EHLO or context.policy.mask_ehlo or dialogue.reply.junk or (
            size == 12 and data[4] | SPACE == c"c") or (dialogue.reply.lines and is_refusal(&dialogue.reply)):
        return False
    return dialogue.reply.lines == 0 or dialogue.reply.code != 250 or size < 5 or not (
        keyword_masked(data + 4, size - 4, dialogue.reply.already_masked))


cdef uint32_t whole_line(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t length) noexcept nogil:
    cdef ReplyLine *reply = &dialogue.reply
    cdef Exchange *exchange = &dialogue.exchange
    # Reads a line that begins here and ends in this segment, up to its LF, or, where it is plain, with it.
    # How many octets; 0: it is not for us.
    cdef uint32_t whole = nm_next_lf(data, length)
    cdef uint32_t size = whole
    cdef uint8_t verb = expected_verb(exchange)
    if (whole == length or context.policy.restore
            or (verb == context.grammar.verb_masked and turning_ok(context, dialogue))):
        return 0
    if size and data[size - 1] == CR:
        size -= 1
    if size > LINE_BYTES_SHOWN:
        return 0                                   # a long one is measured
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
            context.session.offered_chunking = 0     # as note_chunking has it
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
        return 0                                   # as the first octet will find out
    line_begin(reply.kept, data, size, 0)
    reply.column = <uint16_t> size
    reply.keyword_mask_mode = KEYWORD_NONE
    reply.answers_ehlo = answers(context, dialogue)
    if size > 4 and masking_keywords(context, dialogue):
        begin_keyword(context, dialogue, data + 4, whole - 4 + 1)
        keyword_line(context, dialogue, data + 4, size - 4)
    return whole


cdef inline bint whole_line_passes(Context *context, Dialogue *dialogue) noexcept nogil:
    # Behind the separator of a reply that is not altered, only the line's end matters.
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
                reply_byte(context, dialogue, &carriage_return, 1)       # it has left, and ended no line
                context.edits = edits
        if dialogue.reply.column == 0:
            waiting = exchange.waiting
            run = quick_lines(context, dialogue, data + at, length - at, offset + at)
            if run == 0:
                run = whole_line(context, dialogue, data + at, length - at)
            at += run
            if run and data[at - 1] == LF:
                if waiting and not exchange.waiting and not context.policy.hold:
                    return at
                continue
        if data[at] == LF:
            waiting = exchange.waiting
            end_reply_line(context, dialogue)
            at += 1
            if waiting and not exchange.waiting and not context.policy.hold:
                return at
            continue
        if data[at] == CR and (at + 1 == length or data[at + 1] == LF):
            at += 1                                # the line's end, never altered; or so it seems
            dialogue.reply.after_cr = at == length
            continue
        reply_byte(context, dialogue, data + at, length - at)
        at += 1
        if dialogue.reply.malformed and context.session.state == context.grammar.state_connect and not context.not_smtp:
            context.not_smtp = 1                     # RFC 5321 3.1: a server speaks first, with a reply code
            report(context, FLOW_NOT_SMTP, False, 0, offset, data,
                   0 if context.session.secret else length if length < 48 else 48, NULL, 0)
            return length
        if context.verdict == ACTION_PASS and whole_line_passes(context, dialogue):
            end = <uint8_t *> memchr(data + at, LF, length - at)
            at = <uint32_t> (end - data) if end != NULL else length
    return length
