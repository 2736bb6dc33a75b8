# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Pools: all memory that peers can make the gateway use, under one cap.

Keeps invariant 6 (bounded): no memory that a peer can make the gateway keep comes from elsewhere. Who may use how much
of scarce memory follows Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches"
(1998). Does not know what the memory is for.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "bytes.h" nogil:
    void nm_prefetch(const void *p) noexcept


cdef inline bint may_have(Pool *pool, uint64_t size, uint64_t have) noexcept nogil:
    cdef uint64_t streams = pool.used - pool.flows
    return streams + size + have <= pool.limit // 2


cdef void *take(Pool *pool, uint64_t size) noexcept nogil:
    cdef uint64_t cost = memory_cost(size)
    cdef void *memory
    while pool.used + pool.spare + cost > pool.limit:
        if pool.pages == NULL:
            return NULL
        drop_free_page(pool)
    memory = malloc(size)
    if memory != NULL:
        pool.used += cost
    return memory


cdef void *pool_take(Pool *pool, uint64_t size, uint64_t have) noexcept nogil:
    return take(pool, size) if may_have(pool, size, have) else NULL


cdef void pool_give(Pool *pool, void *memory, uint64_t size) noexcept nogil:
    if memory != NULL:
        free(memory)
        pool.used -= memory_cost(size)


cdef void *pool_take_flow(Pool *pool, uint64_t size) noexcept nogil:
    cdef void *memory = take(pool, size)
    if memory != NULL:
        pool.flows += memory_cost(size)
    return memory


cdef void pool_give_flow(Pool *pool, void *memory, uint64_t size) noexcept nogil:
    pool.flows -= memory_cost(size)
    pool_give(pool, memory, size)


cdef void drop_free_page(Pool *pool) noexcept nogil:
    cdef uint8_t *page = pool.pages
    memcpy(&pool.pages, page, sizeof(void *))
    reuse_spare(pool, PAGE_BYTES)
    pool_give(pool, page, PAGE_BYTES)


cdef void pool_close(Pool *pool) noexcept nogil:
    while pool.pages != NULL:
        drop_free_page(pool)


cdef uint8_t *pool_take_page(Pool *pool, uint64_t have) noexcept nogil:
    cdef uint8_t *page = pool.pages
    if page == NULL:
        return <uint8_t *> pool_take(pool, PAGE_BYTES, have)
    if not may_have(pool, PAGE_BYTES, have):
        return NULL
    memcpy(&pool.pages, page, sizeof(void *))
    nm_prefetch(pool.pages)  # prefetch the page that is handed out next: its link, and where its bytes will be written
    reuse_spare(pool, PAGE_BYTES)
    return page


cdef void pool_give_page(Pool *pool, uint8_t *page) noexcept nogil:
    memcpy(page, &pool.pages, sizeof(void *))
    pool.pages = page
    set_aside(pool, PAGE_BYTES)
