# Cursors for writing and reading an image: a write beyond the end is only counted, a read never passes the end.
from libc.stdint cimport uint64_t, uint8_t
from libc.string cimport memcpy, memset

cdef struct Writer:
    uint8_t *data              # the image being written; NULL: its bytes are only counted
    uint64_t size
    uint64_t used              # bytes written or counted so far; more than `size`: the image does not fit

cdef struct Reader:
    const uint8_t *data
    uint64_t size
    uint64_t at

cdef inline void put_bytes(Writer *writer, const void *source, uint64_t length) noexcept nogil:
    if writer.data != NULL and writer.used <= writer.size and length <= writer.size - writer.used:
        memcpy(writer.data + writer.used, source, length)
    writer.used += length

# Returns the next `length` bytes of the image, without copying; NULL where fewer are left.
cdef inline const uint8_t *next_bytes(Reader *reader, uint64_t length) noexcept nogil:
    cdef const uint8_t *found = reader.data + reader.at
    if length > reader.size - reader.at:
        return NULL
    reader.at += length
    return found

# Copies the next `length` bytes of the image to `target`; if fewer are left, fills it with zeros and returns False.
cdef inline bint get_bytes(Reader *reader, void *target, uint64_t length) noexcept nogil:
    cdef const uint8_t *found = next_bytes(reader, length)
    if found == NULL:
        memset(target, 0, length)
        return False
    memcpy(target, found, length)
    return True
