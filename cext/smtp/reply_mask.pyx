# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Masked replies: the greeting's banner, the EHLO keywords, and refusals that become an OK.

Keeps invariant 4 for the server's direction: the banner rules look at one byte and its place in the line; a keyword
cut by a segment boundary passes while it may still become an allowed one, and becomes X's from the first byte that
rules this out. Does not know which line of which reply it is given.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memchr, memcpy, memset

from nfmailguard.cext.policy.findings cimport again, note_change, report_shown, shown
from nfmailguard.cext.policy.numbers cimport (
    ACTION_MASK, BANNER_MASKED, LINE_BYTES_SHOWN, NOT_AGAIN, REPLY_KEYWORD_MASKED, REPLY_TURNED_OK, VERB_EHLO,
)
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.smtp.line cimport Line, line_let_through
from nfmailguard.cext.smtp.name cimport NAME_BYTES, name_begins, name_is
from nfmailguard.cext.smtp.reply_line cimport ReplyLine, choose_keyword_mode, note_masked_line
from nfmailguard.cext.smtp.session cimport SECRET_SAID

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept

cdef enum:
    CR = 13


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


cdef void report_ok(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef Line *line = dialogue.reply.kept
    cdef uint8_t after[LINE_BYTES_SHOWN]
    cdef uint32_t i, length = line.length if line.length < 120 else 120
    for i in range(length):
        after[i] = ok_byte(i, line.data[i])
    report_shown(context, REPLY_TURNED_OK, False, 0, offset,
                 shown(line.data, 0 if context.session.marks & SECRET_SAID else length, after, length))


cdef inline uint8_t letter(Dialogue *dialogue) noexcept nogil:
    # S-PGT against S-NMAPC: the n-th masked line of a reply ends in the n-th letter of the alphabet.
    return <uint8_t> (c"A" + dialogue.reply.masked_lines % 26)


cdef void begin_keyword(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    """Chooses how the EHLO keyword line whose text begins at ``data`` is masked."""
    cdef ReplyLine *reply = &dialogue.reply
    cdef uint32_t end = nm_next_lf(data, length), stop
    if end and data[end - 1] == CR:                # the CR of CRLF is no text; a CR alone ends no line
        end -= 1
    if end == length:
        choose_keyword_mode(reply, KEYWORD_OPEN)
        return
    stop = 0
    while stop < end and not context.policy.keyword_end[data[stop]]:
        stop += 1
    choose_keyword_mode(reply, KEYWORD_PASS if end == 0 or keyword_allowed(context, data, stop) else KEYWORD_MASK)
    if not context.policy.hide and memchr(data, CR, end) != NULL:
        choose_keyword_mode(reply, KEYWORD_MASK)


cdef void keyword_byte(Context *context, Dialogue *dialogue, uint8_t *at, bint last) noexcept nogil:
    """Reads one byte of a keyword line's text. ``last``: the line's end comes next and is in this segment."""
    cdef ReplyLine *reply = &dialogue.reply
    cdef Line *line = reply.kept
    cdef uint8_t name[NAME_BYTES + 1]
    cdef uint32_t length = line.length - 4 if line.length > 4 else 0   # bytes of the line's text before this one
    if length > NAME_BYTES:
        length = NAME_BYTES                       # no keyword is that long: a longer one never fits
    if at[0] == CR and not context.policy.hide:      # a CR in the line, which ends it for some clients
        choose_keyword_mode(reply, KEYWORD_MASK)
    if reply.keyword_mask_mode == KEYWORD_OPEN:
        if context.policy.keyword_end[at[0]]:
            choose_keyword_mode(
                reply, KEYWORD_PASS if keyword_allowed(context, line.data + 4, length) else KEYWORD_MASK)
        else:
            name[length] = at[0]
            memcpy(name, line.data + 4, length)
            if not keyword_possible(context, name, length + 1):
                choose_keyword_mode(reply, KEYWORD_MASK)
    if too_long(context, reply.column + 1) and reply.keyword_mask_mode != KEYWORD_MASK:
        if context.policy.action[REPLY_KEYWORD_MASKED] == ACTION_MASK:
            mask_byte(context, at, c"X")
    elif reply.keyword_mask_mode == KEYWORD_MASK and context.policy.action[REPLY_KEYWORD_MASKED] == ACTION_MASK:
        mask_byte(context, at, letter(dialogue) if last else c"X")
    else:
        line_let_through(line, 1)


cdef void report_banner(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef Line *line = dialogue.reply.kept
    cdef uint8_t after[LINE_BYTES_SHOWN]
    cdef uint32_t i, length = line.length if line.length < 120 else 120
    for i in range(length):
        after[i] = banner_byte(context, i, line.data[i], line.data[i - 1] if i else 0)
    if context.session.marks & SECRET_SAID:
        length = 0
    report_shown(context, BANNER_MASKED, False, 0, offset, shown(line.data, length, after, length))


cdef void report_keyword(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef ReplyLine *reply = &dialogue.reply
    cdef Line *line = reply.kept
    cdef uint8_t after[LINE_BYTES_SHOWN]
    cdef uint32_t sent = line.sent if applies(context.policy) else 0
    cdef uint32_t length = line.length if line.length < 120 else 120
    if length <= 4:
        return
    if again(context, REPLY_KEYWORD_MASKED, False) == NOT_AGAIN:
        memcpy(after, line.data, length)
        if 4 + sent < length:
            memset(after + 4 + sent, c"X", length - 4 - sent)
            after[length - 1] = letter(dialogue)
        if context.session.marks & SECRET_SAID:
            length = 0                             # a secret may be in the line: not even unmasked bytes are shown
        report_shown(context, REPLY_KEYWORD_MASKED, False, VERB_EHLO, offset, shown(line.data, length, after, length))
    note_masked_line(reply)


cdef bint keyword_denied(Context *context, Dialogue *dialogue) noexcept nogil:
    # A keyword may have passed up to the line's end as the beginning of an allowed one, and not be allowed itself.
    cdef ReplyLine *reply = &dialogue.reply
    cdef Line *line = reply.kept
    if reply.keyword_mask_mode == KEYWORD_OPEN and line.length > 4:
        return not keyword_allowed(context, line.data + 4, line.length - 4)
    return reply.keyword_mask_mode == KEYWORD_MASK


cdef void keyword_line(Context *context, Dialogue *dialogue, uint8_t *text, uint32_t length) noexcept nogil:
    """Masks the text of a keyword line that lies in this segment as a whole, as ``keyword_byte`` does byte by byte."""
    cdef ReplyLine *reply = &dialogue.reply
    cdef uint32_t i
    if reply.keyword_mask_mode != KEYWORD_MASK or context.policy.action[REPLY_KEYWORD_MASKED] != ACTION_MASK:
        line_let_through(reply.kept, length)
        return
    for i in range(length - 1):
        if text[i] != c"X":
            note_change(context)
            break
    if applies(context.policy):
        memset(text, c"X", length - 1)
    mask_byte(context, text + length - 1, letter(dialogue))
