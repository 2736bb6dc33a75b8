# The state of the reply that is being read, and of its current line.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.smtp.line cimport Line

cdef enum Answers:             # Answers: ReplyLine.answers_ehlo, whether a line may belong to EHLO's reply
    ANSWERS_OTHER = 0
    ANSWERS_BY_CODE = 1        # the line may belong to EHLO's reply if its code is 250
    ANSWERS_ANYHOW = 2         # it may belong to EHLO's reply whatever its code, unless it is the reply's first line

cdef struct ReplyLine:
    Line *kept                 # the line's first bytes as they came; NULL between lines
    uint64_t offset            # server stream offset of the line's first byte
    uint16_t code
    uint16_t first_code        # code of the first line of this reply
    uint16_t column            # place of the next byte in the line, from 0; at most 0xffff
    uint8_t malformed
    uint8_t lines              # lines of this reply before this one, at most 255
    uint8_t junk               # 1: a line came that belongs to no reply; clients may count it as the reply's first line
    uint8_t after_cr           # 1: a CR was the segment's last byte, and its LF may come next
    uint8_t before             # the line's last byte so far, as it came
    uint8_t masked_lines
    uint8_t already_masked     # lowest letter (0: A) that the next line masked upstream may end in
    uint8_t keyword_mask_mode
    uint8_t answers_ehlo       # Answers: whether this line may belong to EHLO's reply

# Reads the code of a line of `size` bytes; returns whether it is a valid reply code.
cdef inline bint read_code(ReplyLine *reply, const uint8_t *data, uint32_t size) noexcept nogil:
    cdef uint8_t first, second, third
    reply.code = 0
    if size < 3:
        return False
    first, second, third = data[0] - 48, data[1] - 48, data[2] - 48
    reply.code = first * 100 + second * 10 + third
    return 2 <= first <= 5 and second <= 9 and third <= 9

# Sets the code of a line that was read in one step and has a valid code.
cdef inline void take_code(ReplyLine *reply, uint16_t code) noexcept nogil:
    reply.code = code

# Several replies have come for which no command is outstanding; `last` is the code of the last one.
cdef inline void take_unasked(ReplyLine *reply, uint16_t last) noexcept nogil:
    reply.code = last
    reply.answers_ehlo = ANSWERS_OTHER
    reply.masked_lines = 0

# A reply line begins at this offset of the server's stream.
cdef inline void begin_reply_line(ReplyLine *reply, uint64_t offset) noexcept nogil:
    reply.offset = offset

# A line has come that belongs to no reply.
cdef inline void take_junk(ReplyLine *reply) noexcept nogil:
    reply.junk = 1

# The last line of a reply has been read.
cdef inline void end_reply(ReplyLine *reply, const uint8_t *text, uint32_t length) noexcept nogil:
    # The code is followed by neither space nor dash (RFC 5321 4.2.1): some clients then wait for another line.
    reply.junk = length > 3 and text[3] != c" "

# Sets what becomes of the EHLO keyword in the line.
cdef inline void choose_keyword_mode(ReplyLine *reply, uint8_t mode) noexcept nogil:
    reply.keyword_mask_mode = mode

# Counts a line of the reply that has been masked.
cdef inline void note_masked_line(ReplyLine *reply) noexcept nogil:
    reply.masked_lines += 1
