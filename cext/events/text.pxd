# Bytes from peers made printable, for people and for JSON.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from nfmailguard.cext.events.buffer cimport Buffer

cdef enum:
    SHOWN_SIZE = 4             # most bytes that one byte becomes when shown: \xNN
    JSON_SIZE = 5              # most bytes that one byte becomes in JSON, where the backslash is doubled

# A kept text of printable ASCII, with a reference count; it is in at most one list.
cdef struct Text:
    Text *next
    uint32_t references
    uint16_t length
    uint8_t certain            # 1: the text is an address that every server reads the same way in the line
    uint8_t as_it_is           # 1: the text needs no escapes in JSON
    uint8_t data[1]            # the text's `length` bytes

# Writes bytes as printable ASCII, others and the backslash as \xNN; returns the bytes written, at most SHOWN_SIZE each.
cdef uint32_t show(uint8_t *out, const uint8_t *data, uint32_t length) noexcept nogil
# Appends bytes like `show`, escaped for a JSON string; the caller has reserved JSON_SIZE bytes for each.
cdef void put_shown(Buffer *buffer, const uint8_t *data, uint32_t length) noexcept nogil
# Appends a text, escaped for a JSON string; the caller has reserved JSON_SIZE bytes for each character.
cdef void put_text(Buffer *buffer, const Text *text) noexcept nogil
# A new text with one reference; NULL: out of memory.
cdef Text *text_made(const uint8_t *data, uint32_t length) noexcept nogil

cdef void text_release(Text *text) noexcept nogil
cdef inline Text *text_shared(Text *text) noexcept nogil:
    if text != NULL:
        text.references += 1
    return text
