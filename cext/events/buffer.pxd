# A growing byte buffer in which event lines are put together, to be written in large blocks.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

cdef extern from "digits.h" nogil:
    const char *PAIRS "nm_pairs"       # the numbers 00 to 99 as pairs of digits

cdef struct Buffer:
    uint8_t *data
    size_t length
    size_t capacity

cdef int buffer_grow(Buffer *buffer, size_t more) noexcept nogil
cdef void buffer_free(Buffer *buffer) noexcept nogil

cdef inline int buffer_reserve(Buffer *buffer, size_t more) noexcept nogil:
    # Makes room for `more` bytes, which the put_ functions do not check; -1: out of memory.
    return 0 if buffer.capacity - buffer.length >= more else buffer_grow(buffer, more)

cdef inline void put_bytes(Buffer *buffer, const void *data, size_t length) noexcept nogil:
    memcpy(buffer.data + buffer.length, data, length)
    buffer.length += length

cdef inline void put_words(Buffer *buffer, const char *words) noexcept nogil:
    # Appends a constant string, whose length the compiler knows.
    put_bytes(buffer, words, strlen(words))

cdef inline void put_byte(Buffer *buffer, uint8_t byte) noexcept nogil:
    buffer.data[buffer.length] = byte
    buffer.length += 1

cdef inline void put_number(Buffer *buffer, uint64_t value) noexcept nogil:
    # Appends a number in decimal, two digits at a time.
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
