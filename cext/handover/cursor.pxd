# Cursors through an image: what is written is counted where there is no room yet; nothing is read past the end.
from libc.stdint cimport uint64_t, uint8_t
from libc.string cimport memcpy, memset

cdef struct Writer:
    uint8_t *data              # NULL: nothing is written, only counted
    uint64_t size
    uint64_t used              # more than `size`: it did not fit

cdef struct Reader:
    const uint8_t *data
    uint64_t size
    uint64_t at

cdef inline void put_bytes(Writer *writer, const void *source, uint64_t length) noexcept nogil:
    if writer.data != NULL and writer.used <= writer.size and length <= writer.size - writer.used:
        memcpy(writer.data + writer.used, source, length)
    writer.used += length

# The next `length` bytes, in place; NULL where there are fewer.
cdef inline const uint8_t *next_bytes(Reader *reader, uint64_t length) noexcept nogil:
    cdef const uint8_t *found = reader.data + reader.at
    if length > reader.size - reader.at:
        return NULL
    reader.at += length
    return found

# Copies as many into `target`; False where there are fewer, and then it is all zero.
cdef inline bint get_bytes(Reader *reader, void *target, uint64_t length) noexcept nogil:
    cdef const uint8_t *found = next_bytes(reader, length)
    if found == NULL:
        memset(target, 0, length)
        return False
    memcpy(target, found, length)
    return True
