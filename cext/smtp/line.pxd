# Memory for the first bytes of a line that is being read, allocated while the line is unfinished.
from libc.stdint cimport uint16_t, uint32_t, uint8_t
from libc.string cimport memcpy

from nfmailguard.cext.memory.freelist cimport (
    FreeList, freelist_alloc, freelist_close, freelist_free, freelist_open,
)
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.policy.numbers cimport LINE_BYTES_SHOWN

# The first bytes of an unfinished line, as they came.
cdef struct Line:
    uint16_t length            # bytes of the line that are kept in `data`
    uint16_t sent              # bytes of the line's verb or keyword that were forwarded unmasked
    uint8_t data[LINE_BYTES_SHOWN]

cdef struct LinePool:
    Line *spare                # the line last given back in this call, for the next alloc_line; NULL: none
    FreeList lines
    Pool *pool                 # for the ring of outstanding commands, where there are many

cdef inline void line_pool_open(LinePool *line_pool, Pool *pool) noexcept nogil:
    freelist_open(&line_pool.lines, pool, sizeof(Line))
    line_pool.pool = pool

cdef inline void line_pool_close(LinePool *line_pool) noexcept nogil:
    freelist_close(&line_pool.lines)

# At the end of an engine call: frees the spare line, so that only lines in use by a dialogue remain allocated.
cdef inline void line_pool_trim(LinePool *line_pool) noexcept nogil:
    if line_pool.spare != NULL:
        freelist_free(&line_pool.lines, line_pool.spare)
        line_pool.spare = NULL

# Returns an empty line, or NULL without memory; each line is given back when the SMTP line it belongs to ends.
cdef inline Line *alloc_line(LinePool *line_pool) noexcept nogil:
    cdef Line *line = line_pool.spare
    if line != NULL:
        line_pool.spare = NULL
    else:
        line = <Line *> freelist_alloc(&line_pool.lines)
    if line != NULL:
        line.length = 0
        line.sent = 0
    return line

cdef inline void free_line(LinePool *line_pool, Line **line) noexcept nogil:
    if line[0] != NULL:
        line_pool_trim(line_pool)
        line_pool.spare = line[0]
        line[0] = NULL

cdef inline void line_add(Line *line, uint8_t byte) noexcept nogil:
    if line.length < LINE_BYTES_SHOWN:
        line.data[line.length] = byte
        line.length += 1

# Appends as many of the bytes as there is room for.
cdef inline void line_add_all(Line *line, const uint8_t *data, uint32_t length) noexcept nogil:
    if length > <uint32_t> (LINE_BYTES_SHOWN - line.length):
        length = LINE_BYTES_SHOWN - line.length
    if length:
        memcpy(line.data + line.length, data, length)
        line.length += <uint16_t> length

# Fills an empty line with its first `length` bytes, which fit; `room` bytes may be read at `data`.
cdef inline void line_begin(Line *line, const uint8_t *data, uint32_t length, uint32_t room) noexcept nogil:
    line.length = <uint16_t> length
    if length <= 16 <= room:
        memcpy(line.data, data, 16)  # a fixed size needs no call of memcpy; bytes past `length` are overwritten later
    else:
        memcpy(line.data, data, length)

# Sets one of the kept bytes to the value it had when it came, before it was changed.
cdef inline void line_restore(Line *line, uint32_t at, uint8_t byte) noexcept nogil:
    line.data[at] = byte

cdef inline void line_let_through(Line *line, uint32_t length) noexcept nogil:
    line.sent += <uint16_t> length
