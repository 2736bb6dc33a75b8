# Lines of message text: their lengths, and where a message's header ends.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept

cdef enum Head:                # of TextLines.head: how Exim reads a message's header, by how its first line ends
    HEAD_NONE = 0              # an empty line has ended the header
    HEAD_FIRST = 1             # the header's first line has not ended
    HEAD_CRLF = 2              # header lines end at CRLF only
    HEAD_LF = 3                # header lines end at LF, with or without CR
    HEAD_LINE = 4              # the current line has one byte; twice this value: it has more
    HEAD_CR = 16               # a bit: the last byte read is a CR

cdef struct TextLines:
    uint32_t length            # bytes of the current line so far
    uint8_t head               # Head: how header lines end, and what the current one has so far
    uint8_t in_header
    uint8_t after_cr
    uint8_t reported           # 1: the current line has been reported as too long

cdef enum:
    LONG_HEAD = 100_000        # bytes that make a header overlong: a tenth of Exim's header_maxsize
    LONG_LINE = 50_000  # bytes that make a line overlong: half of what the server with the longest lines reads at once

# A message begins. `after_cr`: a CR came last, whose LF, the end of DATA's own line, may be the text's first byte.
cdef inline void begin_text_lines(TextLines *lines, bint after_cr) noexcept nogil:
    lines.length = 0
    lines.head = HEAD_FIRST
    if after_cr:
        lines.head += 2 * HEAD_LINE + HEAD_CR      # the first LF may be that of DATA's own line
    lines.in_header = 1
    lines.after_cr = 0
    lines.reported = 0

# Reports lines longer than the policy allows; keeps the length of the line that has not ended.
cdef void measure_lines(Context *context, TextLines *lines, const uint8_t *data, uint32_t at, uint32_t length,
                        uint64_t offset) noexcept nogil
# Keeps the length of the line that has not ended, where the policy has no limits for lines.
cdef void note_line(TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil
# Searches text that is about to be forwarded for the empty line that ends the message's header; only while `in_head`.
# Returns how many of the bytes belong to the header.
cdef uint32_t follow_head(TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil
# As follow_head, for text that is not forwarded yet: nothing is kept of it.
cdef uint32_t size_of_head(const TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil

cdef inline bint in_head(const TextLines *lines) noexcept nogil:
    return lines.head & HEAD_LF != 0

cdef inline bint heads_on(const TextLines *lines, uint64_t length) noexcept nogil:
    """Whether the message's header is overlong if the message has `length` bytes."""
    return in_head(lines) and length >= LONG_HEAD

cdef inline bint lasts(const TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil:
    """Whether the line that `data` continues becomes overlong before it ends."""
    if lines.length + length < LONG_LINE:
        return False
    return lines.length + nm_next_lf(data, length) >= LONG_LINE
