# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Stores: octets in order, in pages under one cap.

Keeps invariant 6 (bounded): every octet a peer can make us keep is taken from the
pool, and any place of a store is found in one step, however much it holds: a
retransmission costs its own length. Who may have how much of a memory that is short
follows Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
switches" (1998). Does not know sequence numbers.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

cdef enum:
    FIRST_PAGES = 4            # of a ring when it is made


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


cdef void pool_set_aside(Pool *pool, uint64_t size) noexcept nogil:
    pool.used -= memory_cost(size)
    pool.spare += memory_cost(size)


cdef void pool_lend_again(Pool *pool, uint64_t size) noexcept nogil:
    pool.spare -= memory_cost(size)
    pool.used += memory_cost(size)


cdef void drop_free_page(Pool *pool) noexcept nogil:
    cdef uint8_t *page = pool.pages
    memcpy(&pool.pages, page, sizeof(void *))
    pool_lend_again(pool, PAGE_OCTETS)
    pool_give(pool, page, PAGE_OCTETS)


cdef void pool_close(Pool *pool) noexcept nogil:
    while pool.pages != NULL:
        drop_free_page(pool)


cdef uint8_t *take_page(Pool *pool, uint64_t have) noexcept nogil:
    cdef uint8_t *page = pool.pages
    if page == NULL:
        return <uint8_t *> pool_take(pool, PAGE_OCTETS, have)
    if not may_have(pool, PAGE_OCTETS, have):
        return NULL
    memcpy(&pool.pages, page, sizeof(void *))
    pool_lend_again(pool, PAGE_OCTETS)
    return page


cdef void give_page(Pool *pool, uint8_t *page) noexcept nogil:
    memcpy(page, &pool.pages, sizeof(void *))
    pool.pages = page
    pool_set_aside(pool, PAGE_OCTETS)


cdef inline uint32_t pages_of(const Store *store, uint32_t length) noexcept nogil:
    return (store.offset + length + PAGE_OCTETS - 1) // PAGE_OCTETS


cdef inline uint8_t *page_of(const Store *store, uint32_t page) noexcept nogil:
    return store.pages[(store.first + page) & (store.capacity - 1)] if store.capacity else <uint8_t *> store.pages


cdef int widen(Store *store, Pool *pool, uint32_t pages) noexcept nogil:
    """A ring with room for ``pages``; -1 without memory."""
    cdef uint32_t capacity = store.capacity if store.capacity else FIRST_PAGES
    cdef uint32_t i, count = pages_of(store, store.length) if store.length else 0
    cdef uint8_t **ring
    while capacity < pages:
        capacity *= 2
    if capacity == store.capacity:
        return 0
    ring = <uint8_t **> pool_take(pool, capacity * sizeof(uint8_t *), 0)
    if ring == NULL:
        return -1
    for i in range(count):
        ring[i] = page_of(store, i)
    if store.capacity:
        pool_give(pool, store.pages, store.capacity * sizeof(uint8_t *))
    store.pages = ring
    store.capacity = capacity
    store.first = 0
    return 0


cdef int make_room(Store *store, Pool *pool, uint32_t need, uint64_t have) noexcept nogil:
    """Pages enough for ``need`` in all; -1 without memory, and then there are as many as before."""
    cdef uint32_t page, had = pages_of(store, store.length) if store.length else 0
    cdef uint8_t *fresh
    if need > 1 and need > store.capacity and widen(store, pool, need) < 0:
        return -1
    for page in range(had, need):
        fresh = take_page(pool, have + <uint64_t> page * PAGE_OCTETS)
        if fresh == NULL:
            while page > had:
                page -= 1
                give_page(pool, page_of(store, page))
            if store.length == 0:
                store_shrink(store, pool)
            return -1
        if store.capacity:
            store.pages[(store.first + page) & (store.capacity - 1)] = fresh
        else:
            store.pages = <uint8_t **> fresh
    return 0


cdef int store_append(Store *store, Pool *pool, const uint8_t *octets, uint32_t length, uint64_t have) noexcept nogil:
    cdef uint32_t end = store.offset + store.length
    cdef uint32_t part, at = 0
    if length == 0:
        return 0
    # In the page that is begun there is room for most of what is said in commands and replies.
    if (store.length == 0 or end % PAGE_OCTETS == 0 or end % PAGE_OCTETS + length > PAGE_OCTETS) and (
            make_room(store, pool, pages_of(store, store.length + length), have) < 0):
        return -1
    while at < length:
        part = PAGE_OCTETS - end % PAGE_OCTETS
        if part > length - at:
            part = length - at
        memcpy(page_of(store, end // PAGE_OCTETS) + end % PAGE_OCTETS, octets + at, part)
        at += part
        end += part
    store.length += length
    return 0


cdef void store_shrink(Store *store, Pool *pool) noexcept nogil:
    # An idle stream keeps nothing, not even its ring.
    if store.capacity:
        pool_give(pool, store.pages, store.capacity * sizeof(uint8_t *))
    store.pages = NULL
    store.capacity = store.first = store.offset = 0


cdef void store_drop(Store *store, Pool *pool, uint32_t length) noexcept nogil:
    cdef uint32_t gone
    if store.length == 0:
        return
    if length >= store.length:
        gone = pages_of(store, store.length)
        store.length = 0
    else:
        store.offset += length
        store.length -= length
        gone = store.offset // PAGE_OCTETS
        store.offset %= PAGE_OCTETS
    while gone:
        give_page(pool, page_of(store, 0))
        if store.capacity:
            store.first = (store.first + 1) & (store.capacity - 1)
        gone -= 1
    if store.length == 0:
        store_shrink(store, pool)


cdef uint8_t *store_span(Store *store, uint32_t at, uint32_t *length) noexcept nogil:
    cdef uint32_t place = store.offset + at
    cdef uint32_t here = PAGE_OCTETS - place % PAGE_OCTETS
    if here > store.length - at:
        here = store.length - at
    if length[0] > here:
        length[0] = here
    return page_of(store, place // PAGE_OCTETS) + place % PAGE_OCTETS


cdef uint32_t store_compare(Store *store, uint32_t at, uint8_t *octets, uint32_t length, bint write) noexcept nogil:
    cdef uint32_t done = 0, part, changed = 0
    cdef uint8_t *kept
    while done < length:
        part = length - done
        kept = store_span(store, at + done, &part)
        if memcmp(octets + done, kept, part) != 0:
            changed += part
            if write:
                memcpy(octets + done, kept, part)
        done += part
    return changed
