# The reply that is being read, and its line.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.smtp.line cimport Line

cdef enum Answers:             # of ReplyLine.answers_ehlo
    ANSWERS_OTHER = 0
    ANSWERS_BY_CODE = 1        # where its code is 250
    ANSWERS_ANYHOW = 2         # whatever it begins with, where it is not the first

cdef struct ReplyLine:
    Line *kept                 # its beginning; NULL between lines
    uint64_t offset            # stream offset of its first octet
    uint16_t code
    uint16_t first_code        # of the reply that is coming in
    uint16_t column            # of its next octet
    uint8_t malformed
    uint8_t lines              # of the reply that have come before it
    uint8_t junk               # a line has come that is no reply's, and clients may count as the reply's first
    uint8_t after_cr           # a CR was the segment's last octet
    uint8_t before             # its last octet so far, as it came
    uint8_t masked_lines
    uint8_t already_masked     # the letter, from 0, that the next line masked upstream has at least
    uint8_t keyword_mask_mode
    uint8_t answers_ehlo       # Answers: it may

# The code of a line of `size` octets; whether it is one.
cdef inline bint read_code(ReplyLine *reply, const uint8_t *data, uint32_t size) noexcept nogil:
    cdef uint8_t first, second, third
    reply.code = 0
    if size < 3:
        return False
    first, second, third = data[0] - 48, data[1] - 48, data[2] - 48
    reply.code = first * 100 + second * 10 + third
    return 2 <= first <= 5 and second <= 9 and third <= 9

# The code of a line that has been seen whole, which is one.
cdef inline void take_code(ReplyLine *reply, uint16_t code) noexcept nogil:
    reply.code = code

# Replies that nobody asked for have come, one after the other.
cdef inline void take_unasked(ReplyLine *reply, uint16_t last) noexcept nogil:
    reply.code = last
    reply.answers_ehlo = ANSWERS_OTHER
    reply.masked_lines = 0

# A line begins there.
cdef inline void begin_reply_line(ReplyLine *reply, uint64_t offset) noexcept nogil:
    reply.offset = offset

# A line that is no reply's.
cdef inline void take_junk(ReplyLine *reply) noexcept nogil:
    reply.junk = 1

# A line is a reply's last one.
cdef inline void end_reply(ReplyLine *reply, const uint8_t *text, uint32_t length) noexcept nogil:
    # Neither space nor dash behind the code (RFC 5321 4.2.1): some clients read on.
    reply.junk = length > 3 and text[3] != c" "

# What becomes of the keyword in it.
cdef inline void choose_keyword_mode(ReplyLine *reply, uint8_t mode) noexcept nogil:
    reply.keyword_mask_mode = mode

# A line of the reply has been masked.
cdef inline void note_masked_line(ReplyLine *reply) noexcept nogil:
    reply.masked_lines += 1
