# Pools: all memory that peers can make the gateway use, under one cap.
from libc.stdint cimport uint64_t, uint8_t

cdef enum:
    PAGE_BYTES = 2048

# `used` plus `spare` is never more than `limit`. One half of the limit is for flows, the other for their streams and
# dialogues; neither can use up the other's half.
cdef struct Pool:
    uint8_t *pages             # first of the free pages, each of which begins with a pointer to the next
    uint64_t used              # bytes in use, malloc's overhead included
    uint64_t spare             # bytes kept for the next user: free pages, and the blocks in free lists
    uint64_t flows             # the part of `used` that belongs to the flow table
    uint64_t limit
    uint64_t taken             # bytes that receivers have acknowledged since this count was last set to zero

cdef inline void pool_bound(Pool *pool, uint64_t limit) noexcept nogil:
    pool.limit = limit

# Adds to the count of bytes that receivers have acknowledged; pool_forget_taken sets it to zero.
cdef inline void pool_note_taken(Pool *pool, uint64_t length) noexcept nogil:
    pool.taken += length

cdef inline void pool_forget_taken(Pool *pool) noexcept nogil:
    pool.taken = 0

# Takes `size` bytes of the streams' half for an owner that already uses `have` bytes of it; to be given back with the
# same size. NULL where malloc fails, and where the owner would use more than is left for all others: owners that use
# much are refused memory while those that need little go on.
cdef void *pool_take(Pool *pool, uint64_t size, uint64_t have) noexcept nogil
cdef void pool_give(Pool *pool, void *memory, uint64_t size) noexcept nogil

# Whether memory is short, so that nothing is kept that need not be: the last quarter of the streams' half is for what
# must be kept.
cdef inline bint pool_is_short(const Pool *pool) noexcept nogil:
    return pool.used - pool.flows > pool.limit // 2 - pool.limit // 8

# Takes and gives back memory of the flows' half.
cdef void *pool_take_flow(Pool *pool, uint64_t size) noexcept nogil
cdef void pool_give_flow(Pool *pool, void *memory, uint64_t size) noexcept nogil
# Takes and gives back a page of the streams' half, as pool_take and pool_give do.
cdef uint8_t *pool_take_page(Pool *pool, uint64_t have) noexcept nogil
cdef void pool_give_page(Pool *pool, uint8_t *page) noexcept nogil
# Frees the pages that nobody uses; called last.
cdef void pool_close(Pool *pool) noexcept nogil

# What a block of `size` bytes takes of the machine's memory: malloc adds 8 bytes and rounds up to 16 (64-bit glibc).
cdef inline uint64_t memory_cost(uint64_t size) noexcept nogil:
    return (size + 8 + 15) & ~<uint64_t> 15 if size > 24 else 32

cdef inline void reuse_spare(Pool *pool, uint64_t size) noexcept nogil:
    pool.spare -= memory_cost(size)
    pool.used += memory_cost(size)

cdef inline void set_aside(Pool *pool, uint64_t size) noexcept nogil:
    # A block in use becomes a free one, which the pool keeps for the next user.
    pool.used -= memory_cost(size)
    pool.spare += memory_cost(size)
