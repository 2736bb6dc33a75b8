# Bytes that grow: lines are put together in one, and leave in large blocks.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

cdef extern from "digits.h" nogil:
    const char *PAIRS "nm_pairs"       # 00 to 99

cdef struct Buffer:
    uint8_t *data
    size_t length
    size_t capacity

cdef int buffer_grow(Buffer *buffer, size_t more) noexcept nogil
cdef void buffer_free(Buffer *buffer) noexcept nogil

cdef inline int buffer_reserve(Buffer *buffer, size_t more) noexcept nogil:
    # Room for so many bytes more, which the put_ functions take without asking; -1: there is no memory.
    return 0 if buffer.capacity - buffer.length >= more else buffer_grow(buffer, more)

cdef inline void put_bytes(Buffer *buffer, const void *data, size_t length) noexcept nogil:
    memcpy(buffer.data + buffer.length, data, length)
    buffer.length += length

cdef inline void put_words(Buffer *buffer, const char *words) noexcept nogil:
    # A constant: the compiler knows its length.
    put_bytes(buffer, words, strlen(words))

cdef inline void put_byte(Buffer *buffer, uint8_t byte) noexcept nogil:
    buffer.data[buffer.length] = byte
    buffer.length += 1

cdef inline void put_number(Buffer *buffer, uint64_t value) noexcept nogil:
    # In decimal digits, two at a time.
    cdef char digits[20]
    cdef int at = 20
    cdef uint32_t pair
    while value >= 100:
        pair = <uint32_t> (value % 100)
        value = value // 100
        at -= 2
        memcpy(digits + at, PAIRS + 2 * pair, 2)
    if value >= 10:
        at -= 2
        memcpy(digits + at, PAIRS + 2 * value, 2)
    else:
        at -= 1
        digits[at] = <char> (48 + value)
    put_bytes(buffer, digits + at, <size_t> (20 - at))
