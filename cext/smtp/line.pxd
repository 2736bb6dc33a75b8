# Lines' beginnings: memory for the first bytes of a line that is being read, lent while it is open.
from libc.stdint cimport uint16_t, uint32_t, uint8_t
from libc.string cimport memcpy

from nfmailguard.cext.memory.freelist cimport (
    FreeList, freelist_alloc, freelist_close, freelist_free, freelist_open,
)
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.policy.numbers cimport LINE_BYTES_SHOWN

# The beginning of a line, as it came.
cdef struct Line:
    uint16_t length            # bytes kept
    uint16_t sent              # of a verb or keyword cut over segments: bytes let through
    uint8_t data[LINE_BYTES_SHOWN]

cdef struct LinePool:
    Line *spare                # the line last given back in this call: most are wanted again at once
    FreeList lines
    Pool *pool                 # for the outstanding commands, where they are many

cdef inline void line_pool_open(LinePool *line_pool, Pool *pool) noexcept nogil:
    freelist_open(&line_pool.lines, pool, sizeof(Line))
    line_pool.pool = pool

cdef inline void line_pool_close(LinePool *line_pool) noexcept nogil:
    freelist_close(&line_pool.lines)

# The call is over: nothing is left over but what a dialogue has.
cdef inline void line_pool_trim(LinePool *line_pool) noexcept nogil:
    if line_pool.spare != NULL:
        freelist_free(&line_pool.lines, line_pool.spare)
        line_pool.spare = NULL

# An empty line, or NULL without memory; every line lent is given back at its end.
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

# As many of these as there is room for.
cdef inline void line_add_all(Line *line, const uint8_t *data, uint32_t length) noexcept nogil:
    if length > <uint32_t> (LINE_BYTES_SHOWN - line.length):
        length = LINE_BYTES_SHOWN - line.length
    if length:
        memcpy(line.data + line.length, data, length)
        line.length += <uint16_t> length

# The beginning of an empty line, which fits; of `data` there are `room` bytes to be read.
cdef inline void line_begin(Line *line, const uint8_t *data, uint32_t length, uint32_t room) noexcept nogil:
    line.length = <uint16_t> length
    if length <= 16 <= room:
        memcpy(line.data, data, 16)            # without a call; what stands behind is overwritten
    else:
        memcpy(line.data, data, length)

# One of the bytes kept is what it was when it came.
cdef inline void line_restore(Line *line, uint32_t at, uint8_t byte) noexcept nogil:
    line.data[at] = byte

cdef inline void line_let_through(Line *line, uint32_t length) noexcept nogil:
    line.sent += <uint16_t> length
