# Pools: all memory that peers can make us use, under one cap.
from libc.stdint cimport uint64_t, uint8_t

cdef enum:
    PAGE_BYTES = 2048

# `used` and `spare` together stay under `limit`. One half is the flows', the other their streams' and
# dialogues': neither takes the other's.
cdef struct Pool:
    uint8_t *pages             # free ones, each beginning with the address of the next
    uint64_t used              # octets lent, as malloc takes them from the machine
    uint64_t spare             # octets that are kept for the next to ask: free pages, what lies on shelves
    uint64_t flows             # of those used, the flow table's
    uint64_t limit
    uint64_t taken             # bytes that receivers have acknowledged, since it was last zero

cdef inline void pool_bound(Pool *pool, uint64_t limit) noexcept nogil:
    pool.limit = limit

# Receivers have acknowledged bytes; that has been seen.
cdef inline void pool_note_taken(Pool *pool, uint64_t length) noexcept nogil:
    pool.taken += length

cdef inline void pool_forget_taken(Pool *pool) noexcept nogil:
    pool.taken = 0

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
# A page of the streams' half, as pool_take and pool_give.
cdef uint8_t *pool_take_page(Pool *pool, uint64_t have) noexcept nogil
cdef void pool_give_page(Pool *pool, uint8_t *page) noexcept nogil
# Frees the pages nobody uses; called last.
cdef void pool_close(Pool *pool) noexcept nogil

# What `size` octets take of the machine's memory: malloc's own 8, in steps of 16 (glibc, 64 bits).
cdef inline uint64_t memory_cost(uint64_t size) noexcept nogil:
    return (size + 8 + 15) & ~<uint64_t> 15 if size > 24 else 32

cdef inline void reuse_spare(Pool *pool, uint64_t size) noexcept nogil:
    pool.spare -= memory_cost(size)
    pool.used += memory_cost(size)

cdef inline void set_aside(Pool *pool, uint64_t size) noexcept nogil:
    # What was taken is free, and not given back to the machine.
    pool.used -= memory_cost(size)
    pool.spare += memory_cost(size)
