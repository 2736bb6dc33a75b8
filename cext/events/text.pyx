# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Makes peers' bytes printable: none of them reaches a log or a terminal raw. Does not know what they mean."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from nfmailguard.cext.events.buffer cimport put_byte, put_bytes

cdef const char *HEXADECIMAL = b"0123456789abcdef"


cdef inline bint is_shown(uint8_t byte) noexcept nogil:
    # the backslash, 92, is not shown as it is: it begins \xNN
    return byte >= 32 and byte < 127 and byte != 92


cdef bint all_shown(const uint8_t *data, uint32_t length) noexcept nogil:
    # No early exit from the loop, so that the compiler can check many bytes at once.
    cdef uint32_t i
    cdef uint8_t odd = 0
    for i in range(length):
        odd |= <uint8_t> ((data[i] < 32) | (data[i] > 126) | (data[i] == 92))
    return odd == 0


cdef bint has_special(const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t special = 0
    for i in range(length):
        special |= <uint8_t> ((data[i] == 34) | (data[i] == 92))
    return special != 0


cdef uint32_t show(uint8_t *out, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i, at = 0
    if all_shown(data, length):
        memcpy(out, data, length)
        return length
    for i in range(length):
        if is_shown(data[i]):
            out[at] = data[i]
            at += 1
        else:
            out[at] = b"\\"
            out[at + 1] = b"x"
            out[at + 2] = <uint8_t> HEXADECIMAL[data[i] >> 4]
            out[at + 3] = <uint8_t> HEXADECIMAL[data[i] & 15]
            at += 4
    return at


cdef void put_escaped(Buffer *buffer, const uint8_t *data, uint32_t length) noexcept nogil:
    """Appends printable ASCII, escaped for a JSON string (RFC 8259 7)."""
    cdef uint32_t i
    if not has_special(data, length):
        put_bytes(buffer, data, length)
        return
    for i in range(length):
        if data[i] == 34 or data[i] == 92:
            put_byte(buffer, b"\\")
        put_byte(buffer, data[i])


cdef void put_shown(Buffer *buffer, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    if all_shown(data, length):
        put_escaped(buffer, data, length)
        return
    for i in range(length):
        if is_shown(data[i]):
            if data[i] == 34:
                put_byte(buffer, b"\\")
            put_byte(buffer, data[i])
        else:
            put_bytes(buffer, b"\\\\x", 3)
            put_byte(buffer, <uint8_t> HEXADECIMAL[data[i] >> 4])
            put_byte(buffer, <uint8_t> HEXADECIMAL[data[i] & 15])


cdef void put_text(Buffer *buffer, const Text *text) noexcept nogil:
    if text.as_it_is:
        put_bytes(buffer, text.data, text.length)
    else:
        put_escaped(buffer, text.data, text.length)


cdef Text *text_made(const uint8_t *data, uint32_t length) noexcept nogil:
    cdef Text *text = <Text *> malloc(sizeof(Text) + length)
    if text == NULL:
        return NULL
    text.next = NULL
    text.references = 1
    text.length = <uint16_t> length
    text.certain = 1
    text.as_it_is = not has_special(data, length)
    memcpy(text.data, data, length)
    return text


cdef void text_release(Text *text) noexcept nogil:
    if text == NULL:
        return
    text.references -= 1
    if text.references == 0:
        free(text)
