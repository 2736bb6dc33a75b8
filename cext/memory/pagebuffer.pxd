# Stores: octets in order, in pooled pages, with any place found at once.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.memory.pool cimport Pool

# The pages of a store that has several: a ring of their addresses behind the struct.
cdef struct PageRing:
    uint32_t capacity          # a power of two
    uint32_t first             # the ring's index of the first page

cdef struct PageBuffer:
    uint8_t *memory            # the one page, or a PageRing where `ringed`; NULL where nothing is kept
    uint32_t length            # octets kept
    uint16_t offset            # octets of the first page before the first one kept
    uint8_t ringed

# Appends; -1 when memory runs out, and then nothing has changed. `have`: octets the store's owner
# has elsewhere.
cdef int pagebuffer_append(PageBuffer *store, Pool *pool, const uint8_t *data, uint32_t length,
                           uint64_t have) noexcept nogil
# What appending so much takes of the machine's memory, at most.
cdef uint64_t pagebuffer_cost(const PageBuffer *store, uint32_t length) noexcept nogil
# Forgets the first `length` octets, at most all.
cdef void pagebuffer_drop(PageBuffer *store, Pool *pool, uint32_t length) noexcept nogil
# The octets from `at` on that lie together; `length` becomes their number, at most what it was.
cdef uint8_t *pagebuffer_span(PageBuffer *store, uint32_t at, uint32_t *length) noexcept nogil
# How many of `length` octets differ from those kept from `at` on; they become those where `write`.
cdef uint32_t pagebuffer_compare(PageBuffer *store, uint32_t at, uint8_t *data, uint32_t length,
                                 bint write) noexcept nogil
