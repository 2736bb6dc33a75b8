# Page buffers: bytes in order, kept in pages of pool memory; any position is found in one step.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.memory.pool cimport Pool

# The pages of a buffer that has several: a ring of their addresses, which follow the struct in memory.
cdef struct PageRing:
    uint32_t capacity          # number of page addresses that the ring has room for, a power of two
    uint32_t first             # index in the ring of the buffer's first page

cdef struct PageBuffer:
    uint8_t *memory            # the buffer's only page, or a PageRing if `ringed`; NULL if the buffer is empty
    uint32_t length            # bytes in the buffer
    uint16_t offset            # unused bytes in the first page, before the buffer's first byte
    uint8_t ringed

# Appends `length` bytes; -1 when memory runs out, and then the buffer is unchanged. `have`: bytes that the buffer's
# owner uses elsewhere.
cdef int pagebuffer_append(PageBuffer *store, Pool *pool, const uint8_t *data, uint32_t length,
                           uint64_t have) noexcept nogil
# How much memory appending `length` bytes takes at most, malloc's overhead included.
cdef uint64_t pagebuffer_cost(const PageBuffer *store, uint32_t length) noexcept nogil
# Removes the first `length` bytes, or all if the buffer has fewer.
cdef void pagebuffer_drop(PageBuffer *store, Pool *pool, uint32_t length) noexcept nogil
# The bytes from position `at` on that are contiguous in memory; `length` is lowered to their number.
cdef uint8_t *pagebuffer_span(PageBuffer *store, uint32_t at, uint32_t *length) noexcept nogil
# Compares `data` with the buffer's bytes from position `at` on. Returns 0 if they are equal, else the total size of the
# parts (one in each page) that differ; with `write`, the buffer's bytes overwrite those parts of `data`.
cdef uint32_t pagebuffer_compare(PageBuffer *store, uint32_t at, uint8_t *data, uint32_t length,
                                 bint write) noexcept nogil
