# Lines of message text: their length, and where a message's header ends.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept

cdef enum Head:                # of TextLines.head: how Exim reads a message's header, by its first line's end
    HEAD_NONE = 0              # an empty line has ended it
    HEAD_FIRST = 1             # the first line has not ended
    HEAD_CRLF = 2              # lines end at CRLF alone
    HEAD_LF = 3                # at LF, with or without CR
    HEAD_LINE = 4              # its line has a byte; twice that: more
    HEAD_CR = 16               # a bit: the last one is a CR

cdef struct TextLines:
    uint32_t length            # of the line so far
    uint8_t head               # Head
    uint8_t in_header
    uint8_t after_cr
    uint8_t reported           # its length

cdef enum:
    LONG_HEAD = 100_000        # bytes of a header: a tenth of Exim's header_maxsize
    LONG_LINE = 50_000         # bytes of a line; half of what the server with the longest lines reads at once

# A message begins; `after_cr`: with what the CR of DATA's own line may belong to.
cdef inline void begin_text_lines(TextLines *lines, bint after_cr) noexcept nogil:
    lines.length = 0
    lines.head = HEAD_FIRST
    if after_cr:
        lines.head += 2 * HEAD_LINE + HEAD_CR      # the first LF may be that of DATA's own line
    lines.in_header = 1
    lines.after_cr = 0
    lines.reported = 0

# Tells of lines that are longer than the policy has it; keeps their length.
cdef void measure_lines(Context *context, TextLines *lines, const uint8_t *data, uint32_t at, uint32_t length,
                        uint64_t offset) noexcept nogil
# Keeps that length where no line is measured.
cdef void note_line(TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil
# Looks in what is about to leave for the empty line that ends a message's header; only while `in_head`. How many of the
# bytes are the header's.
cdef uint32_t follow_head(TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil
# As many, where nothing leaves yet.
cdef uint32_t size_of_head(const TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil

cdef inline bint in_head(const TextLines *lines) noexcept nogil:
    return lines.head & HEAD_LF != 0

cdef inline bint heads_on(const TextLines *lines, uint64_t length) noexcept nogil:
    """Whether the message's header is a long one where the message has `length` bytes."""
    return in_head(lines) and length >= LONG_HEAD

cdef inline bint lasts(const TextLines *lines, const uint8_t *data, uint32_t length) noexcept nogil:
    """Whether the line that `data` goes on with is a long one before it ends."""
    if lines.length + length < LONG_LINE:
        return False
    return lines.length + nm_next_lf(data, length) >= LONG_LINE
