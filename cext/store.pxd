# Stores: octets in order, in pooled pages, with any place found at once.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    PAGE_OCTETS = 2048

# All memory that peers can make us use, under one cap: `used` and `spare` together stay under `limit`.
cdef struct Pool:
    uint8_t *pages             # free ones, each beginning with the address of the next
    uint64_t used              # octets lent
    uint64_t spare             # octets in free pages
    uint64_t limit

cdef struct Store:
    uint8_t **pages            # a ring of `capacity`, NULL while nothing is kept
    uint32_t length            # octets kept
    uint32_t capacity          # a power of two, or 0
    uint32_t first             # the ring's index of the first page
    uint32_t offset            # octets of the first page before the first one kept

# `size` octets of the pool's, or NULL where the cap or the machine says no; given back with the same size.
cdef void *pool_take(Pool *pool, uint64_t size) noexcept nogil
cdef void pool_give(Pool *pool, void *memory, uint64_t size) noexcept nogil
# Frees the pages nobody uses; called last.
cdef void pool_close(Pool *pool) noexcept nogil

# Appends; -1 when memory runs out, and then nothing has changed.
cdef int store_append(Store *store, Pool *pool, const uint8_t *octets, uint32_t length) noexcept nogil
# Forgets the first `length` octets, at most all.
cdef void store_drop(Store *store, Pool *pool, uint32_t length) noexcept nogil
# The octets from `at` on that lie together; `length` becomes their number, at most what it was.
cdef uint8_t *store_span(Store *store, uint32_t at, uint32_t *length) noexcept nogil
# How many of `length` octets differ from those kept from `at` on; they become those where `write`.
cdef uint32_t store_compare(Store *store, uint32_t at, uint8_t *octets, uint32_t length, bint write) noexcept nogil
