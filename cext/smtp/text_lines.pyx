# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Lines of message text: how long they are, and where a message's header ends.

Promises: nothing is changed here; an overlong line is reported once. Does not know ends of data.
"""

from nfmailguard.cext.policy.findings cimport report
from nfmailguard.cext.policy.numbers cimport ACTION_PASS, DATA_LINE_TOO_LONG, HEADER_LINE_TOO_LONG

cdef extern from "scan.h" nogil:
    const uint8_t *nm_last_lf(const uint8_t *p, size_t length) noexcept

cdef enum:
    CR = 13
    LF = 10
    REPORTED_LINE = 1
    MOST_LINE = 0x7fffffff


cdef void measure_lines(Context *context, TextLines *lines, const uint8_t *data, uint32_t at, uint32_t length,
                        uint64_t offset) noexcept nogil:
    # RFC 5321 4.5.3.1.6; ASA default map, classes 3 and 4: a CR at a line's end is not counted.
    cdef uint32_t stop, size, limit
    cdef const uint8_t *end
    while at < length and context.verdict == ACTION_PASS:
        limit = context.policy.header_line_length if lines.in_header else context.policy.body_line_length
        if not lines.in_header and lines.length == 0:
            # Any line that ends within `limit` bytes is short enough: only the last line end matters.
            end = nm_last_lf(data + at, length - at if limit == 0 or length - at < limit else limit)
            if end != NULL:
                at = <uint32_t> (end - data) + 1
                lines.after_cr = 0
                lines.reported = 0
                continue
        stop = at + nm_next_lf(data + at, length - at)
        size = lines.length + (stop - at)
        if stop > at:
            lines.after_cr = data[stop - 1] == CR
        if limit and size - lines.after_cr > limit and not lines.reported & REPORTED_LINE:
            lines.reported |= REPORTED_LINE
            report(context, HEADER_LINE_TOO_LONG if lines.in_header else DATA_LINE_TOO_LONG, True, 0,
                   offset + at + limit - lines.length)
        if stop == length:
            lines.length = size
            return
        if size - lines.after_cr == 0:
            lines.in_header = 0                    # RFC 5322 2.1: an empty line ends the header
        lines.length = 0
        lines.after_cr = 0
        lines.reported = 0
        at = stop + 1


cdef uint32_t walk_head(uint8_t *state, const uint8_t *data, uint32_t length) noexcept nogil:
    """Searches for the empty line that ends a message's header (RFC 5322 2.1); returns how many of the bytes are the
    header's."""
    cdef uint32_t at = 0, size, line = state[0] // HEAD_LINE & 3
    cdef uint8_t head = state[0] & HEAD_LF
    cdef bint cr = state[0] & HEAD_CR != 0
    while head and at < length:
        size = nm_next_lf(data + at, length - at)
        if size:
            line = 2 if size + line > 1 else 1
            cr = data[at + size - 1] == CR
        at += size + 1
        if at > length:
            break
        if head == HEAD_FIRST:
            head = HEAD_CRLF if cr else HEAD_LF
        if head == HEAD_CRLF and not cr:
            line = 2                               # Exim makes this LF a blank, and the line goes on
        elif line <= <uint32_t> cr:
            head = HEAD_NONE
        else:
            line = 0
        cr = False
    state[0] = <uint8_t> (head + line * HEAD_LINE + cr * HEAD_CR)
    return at if at < length else length


cdef uint32_t follow_head(TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil:
    return walk_head(&lines.head, data, length)


cdef uint32_t size_of_head(const TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint8_t state = lines.head
    return walk_head(&state, data, length)


cdef void note_line(TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil:
    """Counts the bytes of the message since its last LF."""
    cdef const uint8_t *end = nm_last_lf(data, length)
    if end != NULL:
        lines.length = <uint32_t> (data + length - end) - 1
    elif lines.length < MOST_LINE:
        lines.length += length
