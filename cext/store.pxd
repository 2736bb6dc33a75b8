# Stores: octets in order, in pooled pages, with any place found at once.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    PAGE_OCTETS = 2048

# All memory that peers can make us use, under one cap: `used` and `spare` together stay under `limit`.
# One half is the flows', the other their streams': neither takes the other's.
cdef struct Pool:
    uint8_t *pages             # free ones, each beginning with the address of the next
    uint64_t used              # octets lent, as malloc takes them from the machine
    uint64_t spare             # octets that are kept for the next to ask: free pages, free lines
    uint64_t flows             # of those used, the flow table's
    uint64_t limit

cdef struct Store:
    uint8_t **pages            # a ring of `capacity`; where that is 0 the one page itself, or NULL
    uint32_t length            # octets kept
    uint32_t capacity          # a power of two, or 0
    uint32_t first             # the ring's index of the first page
    uint32_t offset            # octets of the first page before the first one kept

# `size` octets of the streams' half for an owner who has `have` of it already; given back with the
# same size. NULL where the cap or the machine says no: nobody may have more than is left for the
# others then, so that those who take much come to their end while those who need little go on.
cdef void *pool_take(Pool *pool, uint64_t size, uint64_t have) noexcept nogil
cdef void pool_give(Pool *pool, void *memory, uint64_t size) noexcept nogil
# Whether what need not be kept should not be: a quarter of the streams' half is left for what must.
cdef inline bint pool_is_short(const Pool *pool) noexcept nogil:
    return pool.used - pool.flows > pool.limit // 2 - pool.limit // 8

# Of the flows' half.
cdef void *pool_take_flow(Pool *pool, uint64_t size) noexcept nogil
cdef void pool_give_flow(Pool *pool, void *memory, uint64_t size) noexcept nogil
# What was taken is free, and not given back: it is kept for the next to ask, who lends it again.
cdef void pool_set_aside(Pool *pool, uint64_t size) noexcept nogil
cdef void pool_lend_again(Pool *pool, uint64_t size) noexcept nogil
# Frees the pages nobody uses; called last.
cdef void pool_close(Pool *pool) noexcept nogil

# Appends; -1 when memory runs out, and then nothing has changed. `have`: octets the store's owner
# has elsewhere.
cdef int store_append(Store *store, Pool *pool, const uint8_t *octets, uint32_t length, uint64_t have) noexcept nogil
# Forgets the first `length` octets, at most all.
cdef void store_drop(Store *store, Pool *pool, uint32_t length) noexcept nogil
# The octets from `at` on that lie together; `length` becomes their number, at most what it was.
cdef uint8_t *store_span(Store *store, uint32_t at, uint32_t *length) noexcept nogil
# What `size` octets take of the machine's memory: malloc's own 8, in steps of 16 (glibc, 64 bits).
cdef inline uint64_t memory_cost(uint64_t size) noexcept nogil:
    return (size + 8 + 15) & ~<uint64_t> 15 if size > 24 else 32

# How many of `length` octets differ from those kept from `at` on; they become those where `write`.
cdef uint32_t store_compare(Store *store, uint32_t at, uint8_t *octets, uint32_t length, bint write) noexcept nogil
