# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Byte sequences that only some servers take for an end of data (SMTP smuggling, 2023; docs/servers.md), made harmless.

Promises: the byte that completes such a sequence is blanked, and reported. Does not know where a text ends.
"""

from libc.stddef cimport size_t
from libc.string cimport memchr

from nfmailguard.cext.policy.findings cimport again, repeat, report_shown, shown
from nfmailguard.cext.policy.numbers cimport ACTION_BLANK, ACTION_PASS, DATA_SMUGGLING_SHAPE, NOT_AGAIN
from nfmailguard.cext.policy.tally cimport tally_untold
from nfmailguard.cext.smtp.text_lines cimport LONG_HEAD, LONG_LINE

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept
    const uint8_t *nm_last_lf(const uint8_t *p, size_t length) noexcept

cdef extern from "string.h" nogil:
    void *memmem(const void *haystack, size_t length, const void *needle, size_t size)

cdef enum:
    CR = 13
    LF = 10
    DOT = 46
    SPACE = 32

cdef uint64_t END = 0x0D0A2E0D0AULL    # the bytes of CRLF.CRLF


cdef void count_shapes(Context *context, Shapes *shapes) noexcept nogil:
    if shapes.count:
        repeat(context, DATA_SMUGGLING_SHAPE, shapes.count, True)
        shapes.count = 0


cdef bint next_shape(Context *context, Shapes *shapes, uint8_t *byte, uint8_t blank, uint64_t offset) noexcept nogil:
    cdef uint8_t before = byte[0], action
    count_shapes(context, shapes)
    action = again(context, DATA_SMUGGLING_SHAPE, True)
    if action == NOT_AGAIN:
        action = report_shown(context, DATA_SMUGGLING_SHAPE, True, 0, offset, shown(&before, 1, &blank, 1))
    shapes.blanks = action == ACTION_BLANK
    if context.policy.action[DATA_SMUGGLING_SHAPE] == ACTION_BLANK:    # blanking, simulated or not, ends no flow
        shapes.left = tally_untold(&context.session.tally, DATA_SMUGGLING_SHAPE, context.policy.findings_told)
    if not shapes.blanks:
        return False
    note_change(context)
    byte[0] = blank
    return True


cdef uint32_t end_as_it_came(uint32_t last_four, const uint8_t *data, uint32_t at, uint32_t length) noexcept nogil:
    cdef uint64_t last = last_four
    cdef uint32_t i
    cdef const uint8_t *end
    for i in range(at, length if length - at < 4 else at + 4):
        last = (last << 8 | data[i]) & 0xFFFFFFFFFFULL
        if last == END:
            return i + 1
    if memchr(data + at, CR, length - at) == NULL or memchr(data + at, LF, length - at) == NULL:
        return 0                                   # no CR or no LF: a cheap test, for text with many dots
    end = <const uint8_t *> memmem(data + at, length - at, b"\r\n.\r\n", 5)
    return <uint32_t> (end - data) + 5 if end != NULL else 0


cdef bint long_lines(Context *context, const Text *text, const Stretch *stretch, bint blank) noexcept nogil:
    """hMailServer 5.7 reads 100,000 bytes of a line at a time, Exim header_maxsize bytes of a header, and both take a
    .CRLF at the beginning of what they read next for an end of data. Where the text's own end comes next, that is all
    they would take for a command."""
    cdef uint8_t *data = stretch.data
    cdef uint32_t at = stretch.at, head = stretch.head, length = stretch.length
    cdef uint32_t start = at, line, stop = length
    cdef uint32_t first_lf = at + nm_next_lf(data + at, length - at)
    cdef uint64_t size = text.bytes - at
    cdef Shapes shapes
    open_shapes(&shapes)
    if head < length and first_lf < length:
        stop = head if head > first_lf + 1 else first_lf + 1    # outside the header only the first line may be overlong
    if text.last_four & 255 != DOT:
        at = next_dot(data, at, stop) + 1
    while at < stop:
        if is_end(data[at]) and not (stretch.ended and at + 5 == length):
            line = at - start + text.lines.length
            if at > first_lf:
                line = <uint32_t> (data + at - nm_last_lf(data + first_lf, at - first_lf)) - 1
            if line >= LONG_LINE or (line > 1 and at < head and size + at >= LONG_HEAD):
                if not blank:
                    return True
                if shape(context, &shapes, data + at, SPACE, stretch.offset + at) and at == first_lf:
                    first_lf = at + 1 + nm_next_lf(data + at + 1, length - at - 1)
                    if stop == at + 1:
                        stop = first_lf + 1 if first_lf < length else length
                if context.verdict != ACTION_PASS:
                    break
        at = next_dot(data, at, stop) + 1
    count_shapes(context, &shapes)
    return False


cdef void blank_long_lines(Context *context, const Text *text, const Stretch *stretch) noexcept nogil:
    long_lines(context, text, stretch, True)


cdef bint has_long_line(Context *context, const Text *text, const Stretch *stretch) noexcept nogil:
    return long_lines(context, text, stretch, False)
