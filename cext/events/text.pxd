# Peers' bytes for people, and as JSON.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from nfmailguard.cext.events.buffer cimport Buffer

cdef enum:
    SHOWN_SIZE = 4             # octets that one byte becomes at most: \xNN
    JSON_SIZE = 5              # and in JSON, where the backslash is doubled

# A text that is kept, printable ASCII. Whoever holds one has a reference; it stands in at most one list.
cdef struct Text:
    Text *next
    uint32_t references
    uint16_t length
    uint8_t certain            # of an address: every server reads this one
    uint8_t as_it_is           # nothing in it is another in JSON
    uint8_t data[1]            # `length` of them

# What is printable ASCII and no backslash as it is, the rest as \xNN; octets written, at most SHOWN_SIZE each.
cdef uint32_t show(uint8_t *out, const uint8_t *data, uint32_t length) noexcept nogil
# The same within a JSON string. Room for JSON_SIZE each is the caller's to reserve.
cdef void put_shown(Buffer *buffer, const uint8_t *data, uint32_t length) noexcept nogil
# A text of printable ASCII within a JSON string; room for JSON_SIZE each is the caller's to reserve.
cdef void put_text(Buffer *buffer, const Text *text) noexcept nogil
# With one reference; NULL: there is no memory.
cdef Text *text_made(const uint8_t *data, uint32_t length) noexcept nogil

cdef void text_release(Text *text) noexcept nogil
cdef inline Text *text_shared(Text *text) noexcept nogil:
    if text != NULL:
        text.references += 1
    return text
