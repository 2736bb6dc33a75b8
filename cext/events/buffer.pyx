# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A growing byte buffer. Does not know what is in it."""

from libc.stdlib cimport free, realloc

cdef enum:
    FIRST_CAPACITY = 4096

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
