# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Operations: the growing list of what a driver is to do. Does not know packets or flows."""

from libc.stdlib cimport free, realloc


cdef int operations_reserve(Operations *out, uint32_t more) noexcept nogil:
    cdef uint32_t capacity = out.capacity if out.capacity else 64
    cdef Operation *items
    while capacity < out.count + more:
        capacity *= 2
    if capacity == out.capacity:
        return 0
    items = <Operation *> realloc(out.items, capacity * sizeof(Operation))
    if items == NULL:
        return -1
    out.items = items
    out.capacity = capacity
    return 0


cdef void operations_free(Operations *out) noexcept nogil:
    free(out.items)
    out.items = NULL
    out.count = out.capacity = 0
