# Names of verbs and EHLO keywords, compared in any case.
from libc.stdint cimport uint32_t, uint8_t

cdef enum:
    NAME_BYTES = 24           # bytes of the longest verb or keyword a table can hold

cdef struct Name:
    uint8_t data[NAME_BYTES]   # the name in upper case
    uint8_t length

cdef inline uint8_t upper(uint8_t byte) noexcept nogil:
    return byte - 32 if 97 <= byte <= 122 else byte

# Whether the name begins with the bytes of `data`, in upper or lower case.
cdef inline bint name_begins(const Name *name, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    if length > name.length:
        return False
    for i in range(length):
        if upper(data[i]) != name.data[i]:
            return False
    return True

# Whether the bytes of `data` spell the whole name, in upper or lower case (RFC 5321 2.4).
cdef inline bint name_is(const Name *name, const uint8_t *data, uint32_t length) noexcept nogil:
    return length == name.length and name_begins(name, data, length)
