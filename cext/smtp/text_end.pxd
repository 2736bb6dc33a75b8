# Where a message's text ends.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.numbers cimport DATA_BARE, DATA_CR, DATA_LINE, DATA_TEXT
from nfmailguard.cext.smtp.text cimport Text

# The state behind any byte but a dot, in any state that holds no dot.
cdef inline uint8_t step(uint8_t state, uint8_t byte) noexcept nogil:
    if byte == c"\r":
        return DATA_CR
    if byte == c"\n":
        return DATA_LINE if state == DATA_CR else DATA_BARE
    return DATA_TEXT

# The state at `stop`, that was `state` at `at`, with no dot between: the two last bytes tell it.
cdef inline uint8_t state_before(uint8_t state, const uint8_t *data, uint32_t at, uint32_t stop) noexcept nogil:
    if stop - at >= 2:
        return step(step(DATA_TEXT, data[stop - 2]), data[stop - 1])
    return step(state, data[at]) if stop > at else state

# The index behind CRLF.CRLF, which has then `ended` the text, or `length` when it goes on; less where a finding ends
# the flow. Changes bytes of `data`, which is the caller's; `offset` is data[0]'s in its direction.
cdef uint32_t find_end(Context *context, Text *text, uint8_t *data, uint32_t at, uint32_t length,
                       uint64_t offset, bint *ended) noexcept nogil
# As find_end where the server may clear eighth bits (sendmail's EF_7BITBODY): of an end that only then is one, the byte
# that would complete it becomes a space.
cdef uint32_t find_end_in_seven(Context *context, Text *text, uint8_t *data, uint32_t at, uint32_t length,
                                uint64_t offset, bint *ended) noexcept nogil
