# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bytes that grow. Does not know what they say."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc

cdef enum:
    FIRST_CAPACITY = 4096

cdef const char *PAIRS = (
    b"0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    b"5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899"
)


cdef int buffer_grow(Buffer *buffer, size_t more) noexcept nogil:
    cdef size_t capacity = buffer.capacity if buffer.capacity else FIRST_CAPACITY
    cdef uint8_t *data
    while capacity - buffer.length < more:
        capacity *= 2
    data = <uint8_t *> realloc(buffer.data, capacity)
    if data == NULL:
        return -1
    buffer.data = data
    buffer.capacity = capacity
    return 0


cdef void buffer_free(Buffer *buffer) noexcept nogil:
    free(buffer.data)
    buffer.data = NULL
    buffer.length = buffer.capacity = 0


cdef void put_number(Buffer *buffer, uint64_t value) noexcept nogil:
    """In decimal digits, two at a time."""
    cdef char digits[20]
    cdef int at = 20
    cdef uint32_t pair
    while value >= 100:
        pair = <uint32_t> (value % 100)
        value //= 100
        at -= 2
        memcpy(digits + at, PAIRS + 2 * pair, 2)
    if value >= 10:
        at -= 2
        memcpy(digits + at, PAIRS + 2 * value, 2)
    else:
        at -= 1
        digits[at] = <char> (48 + value)
    put_bytes(buffer, digits + at, <size_t> (20 - at))
