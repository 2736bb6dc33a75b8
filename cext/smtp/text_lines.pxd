# Lines of message text: their length, and where a message's header ends.
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport HEAD_LF, Dialogue

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept

cdef enum:
    LONG_HEAD = 100_000        # bytes of a header: a tenth of Exim's header_maxsize
    LONG_LINE = 50_000         # bytes of a line; half of what the server with the longest lines reads at once

# Tells of lines that are longer than the policy has it; keeps their length in Dialogue.data_line_length.
cdef void measure_lines(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t at, uint32_t length,
                        uint64_t offset) noexcept nogil
# Keeps that length where no line is measured.
cdef void note_line(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil
# Looks in what is about to leave for the empty line that ends a message's header; only while `in_head`. How many of the
# bytes are the header's.
cdef uint32_t follow_head(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil
# As many, where nothing leaves yet.
cdef uint32_t size_of_head(const Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil

cdef inline bint in_head(const Dialogue *dialogue) noexcept nogil:
    return dialogue.bracket & HEAD_LF != 0

cdef inline bint heads_on(const Dialogue *dialogue, uint32_t length) noexcept nogil:
    """Whether the message's header is a long one with the next `length` bytes."""
    return in_head(dialogue) and dialogue.message_bytes + length >= LONG_HEAD

cdef inline bint lasts(const Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    """Whether the line that `data` goes on with is a long one before it ends."""
    if dialogue.data_line_length + length < LONG_LINE:
        return False
    return dialogue.data_line_length + nm_next_lf(data, length) >= LONG_LINE
