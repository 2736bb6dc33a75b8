# Names of verbs and keywords, in any case.
from libc.stdint cimport uint32_t, uint8_t

cdef enum:
    NAME_BYTES = 24           # the longest verb or keyword a table holds

cdef struct Name:
    uint8_t data[NAME_BYTES]   # upper case
    uint8_t length

cdef inline uint8_t upper(uint8_t byte) noexcept nogil:
    return byte - 32 if 97 <= byte <= 122 else byte

# Whether the name begins with `data`, in any case.
cdef inline bint name_begins(const Name *name, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    if length > name.length:
        return False
    for i in range(length):
        if upper(data[i]) != name.data[i]:
            return False
    return True

# Whether `data` spell the name in any case (RFC 5321 2.4).
cdef inline bint name_is(const Name *name, const uint8_t *data, uint32_t length) noexcept nogil:
    return length == name.length and name_begins(name, data, length)
