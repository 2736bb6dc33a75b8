# Stores: octets in order, in pooled pages, with any place found at once.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from nfmailguard.cext.pool cimport PAGE_OCTETS, Pool

# The pages of a store that has several: a ring of their addresses behind the struct.
cdef struct PageRing:
    uint32_t capacity          # a power of two
    uint32_t first             # the ring's index of the first page

cdef struct Store:
    uint8_t *memory            # the one page, or a PageRing where `ringed`; NULL where nothing is kept
    uint32_t length            # octets kept
    uint16_t offset            # octets of the first page before the first one kept
    uint8_t ringed

# Appends; -1 when memory runs out, and then nothing has changed. `have`: octets the store's owner
# has elsewhere.
cdef int store_append(Store *store, Pool *pool, const uint8_t *octets, uint32_t length, uint64_t have) noexcept nogil
# What appending so much takes of the machine's memory, at most.
cdef uint64_t store_cost(const Store *store, uint32_t length) noexcept nogil
# Forgets the first `length` octets, at most all.
cdef void store_drop(Store *store, Pool *pool, uint32_t length) noexcept nogil
# The octets from `at` on that lie together; `length` becomes their number, at most what it was.
cdef uint8_t *store_span(Store *store, uint32_t at, uint32_t *length) noexcept nogil
# How many of `length` octets differ from those kept from `at` on; they become those where `write`.
cdef uint32_t store_compare(Store *store, uint32_t at, uint8_t *octets, uint32_t length, bint write) noexcept nogil
