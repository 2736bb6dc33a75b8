# Where the text of a message ends.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.numbers cimport DATA_BARE, DATA_CR, DATA_LINE, DATA_TEXT
from nfmailguard.cext.smtp.text cimport Text

# The DataState after any byte but a dot, coming from a state that holds no dot.
cdef inline uint8_t step(uint8_t state, uint8_t byte) noexcept nogil:
    if byte == c"\r":
        return DATA_CR
    if byte == c"\n":
        return DATA_LINE if state == DATA_CR else DATA_BARE
    return DATA_TEXT

# The DataState at `stop`, coming from `state` at `at`, with no dot between: the last two bytes decide it.
cdef inline uint8_t state_before(uint8_t state, const uint8_t *data, uint32_t at, uint32_t stop) noexcept nogil:
    if stop - at >= 2:
        return step(step(DATA_TEXT, data[stop - 2]), data[stop - 1])
    return step(state, data[at]) if stop > at else state

# Looks for the end of data, CRLF.CRLF. Returns the index after it, with `ended` set, or `length` when the text goes on;
# less where a finding ends the flow. May change bytes of `data`, which is the caller's; `offset` is the stream offset
# of data[0].
cdef uint32_t find_end(Context *context, Text *text, uint8_t *data, uint32_t at, uint32_t length,
                       uint64_t offset, bint *ended) noexcept nogil
# As find_end, where the server may clear eighth bits (sendmail's EF_7BITBODY): where that would make an end of data,
# the byte that would complete it becomes a space.
cdef uint32_t find_end_in_seven(Context *context, Text *text, uint8_t *data, uint32_t at, uint32_t length,
                                uint64_t offset, bint *ended) noexcept nogil
