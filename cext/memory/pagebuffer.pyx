# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Page buffers: bytes in order, in pages that count against the pool's cap.

Keeps invariant 6 (bounded): every byte is kept in pool memory, and any position of a buffer is found in one step,
however much it holds, so that the work for a retransmission depends only on its own length. Does not know sequence
numbers.
"""

from libc.string cimport memcmp, memcpy

from nfmailguard.cext.memory.pool cimport PAGE_BYTES, memory_cost, pool_give, pool_give_page, pool_take, pool_take_page

cdef enum:
    FIRST_PAGES = 4            # page addresses that a new ring has room for


cdef inline uint32_t pages_of(const PageBuffer *store, uint32_t length) noexcept nogil:
    return (store.offset + length + PAGE_BYTES - 1) // PAGE_BYTES


cdef inline PageRing *ring_of(const PageBuffer *store) noexcept nogil:
    return <PageRing *> store.memory


cdef inline uint8_t **place(PageRing *ring, uint32_t page) noexcept nogil:
    return <uint8_t **> (ring + 1) + ((ring.first + page) & (ring.capacity - 1))


cdef inline uint8_t *page_of(const PageBuffer *store, uint32_t page) noexcept nogil:
    return place(ring_of(store), page)[0] if store.ringed else store.memory


cdef inline uint64_t ring_size(uint32_t capacity) noexcept nogil:
    return sizeof(PageRing) + capacity * sizeof(uint8_t *)


cdef inline uint32_t capacity_for(uint32_t have, uint32_t pages) noexcept nogil:
    cdef uint32_t capacity = have if have else FIRST_PAGES
    while capacity < pages:
        capacity *= 2
    return capacity


cdef uint64_t pagebuffer_cost(const PageBuffer *store, uint32_t length) noexcept nogil:
    cdef uint32_t had = pages_of(store, store.length) if store.length else 0
    cdef uint32_t need = pages_of(store, store.length + length)
    cdef uint32_t have = ring_of(store).capacity if store.ringed else 0
    cdef uint64_t cost = (need - had) * memory_cost(PAGE_BYTES)
    if need > had and need > 1 and capacity_for(have, need) != have:
        cost += memory_cost(ring_size(capacity_for(have, need)))
    return cost


cdef int widen(PageBuffer *store, Pool *pool, uint32_t pages) noexcept nogil:
    """Makes room in the ring for ``pages`` addresses; -1 without memory."""
    cdef uint32_t have = ring_of(store).capacity if store.ringed else 0
    cdef uint32_t capacity = capacity_for(have, pages)
    cdef uint32_t i, count = pages_of(store, store.length) if store.length else 0
    cdef PageRing *ring
    if capacity == have:
        return 0
    ring = <PageRing *> pool_take(pool, ring_size(capacity), 0)
    if ring == NULL:
        return -1
    ring.capacity = capacity
    ring.first = 0
    for i in range(count):
        place(ring, i)[0] = page_of(store, i)
    if have:
        pool_give(pool, store.memory, ring_size(have))
    store.memory = <uint8_t *> ring
    store.ringed = 1
    return 0


cdef int make_room(PageBuffer *store, Pool *pool, uint32_t need, uint64_t have) noexcept nogil:
    """Adds pages until the buffer has ``need``; -1 without memory, and then it has as many as before."""
    cdef uint32_t page, had = pages_of(store, store.length) if store.length else 0
    cdef uint8_t *fresh
    if need > 1 and widen(store, pool, need) < 0:
        return -1
    for page in range(had, need):
        fresh = pool_take_page(pool, have + <uint64_t> page * PAGE_BYTES)
        if fresh == NULL:
            while page > had:
                page -= 1
                pool_give_page(pool, page_of(store, page))
            if store.length == 0:
                pagebuffer_shrink(store, pool)
            return -1
        if store.ringed:
            place(ring_of(store), page)[0] = fresh
        else:
            store.memory = fresh
    return 0


cdef int pagebuffer_append(PageBuffer *store, Pool *pool, const uint8_t *data, uint32_t length,
                           uint64_t have) noexcept nogil:
    cdef uint32_t end = store.offset + store.length
    cdef uint32_t part, at = 0
    if length == 0:
        return 0
    # Most commands and replies fit into the page already begun, and need no other one.
    if (store.length == 0 or end % PAGE_BYTES == 0 or end % PAGE_BYTES + length > PAGE_BYTES) and (
            make_room(store, pool, pages_of(store, store.length + length), have) < 0):
        return -1
    while at < length:
        part = PAGE_BYTES - end % PAGE_BYTES
        if part > length - at:
            part = length - at
        memcpy(page_of(store, end // PAGE_BYTES) + end % PAGE_BYTES, data + at, part)
        at += part
        end += part
    store.length += length
    return 0


cdef void pagebuffer_shrink(PageBuffer *store, Pool *pool) noexcept nogil:
    # The buffer of an idle stream uses no memory, not even for its ring.
    if store.ringed:
        pool_give(pool, store.memory, ring_size(ring_of(store).capacity))
    store.memory = NULL
    store.offset = 0
    store.ringed = 0


cdef void pagebuffer_drop(PageBuffer *store, Pool *pool, uint32_t length) noexcept nogil:
    cdef uint32_t already_forwarded
    cdef PageRing *ring
    if store.length == 0:
        return
    if length >= store.length:
        already_forwarded = pages_of(store, store.length)
        store.length = 0
    else:
        store.length -= length
        length += store.offset
        already_forwarded = length // PAGE_BYTES
        store.offset = <uint16_t> (length % PAGE_BYTES)
    while already_forwarded:
        pool_give_page(pool, page_of(store, 0))
        if store.ringed:
            ring = ring_of(store)
            ring.first = (ring.first + 1) & (ring.capacity - 1)
        already_forwarded -= 1
    if store.length == 0:
        pagebuffer_shrink(store, pool)


cdef uint8_t *pagebuffer_span(PageBuffer *store, uint32_t at, uint32_t *length) noexcept nogil:
    cdef uint32_t place = store.offset + at
    cdef uint32_t here = PAGE_BYTES - place % PAGE_BYTES
    if here > store.length - at:
        here = store.length - at
    if length[0] > here:
        length[0] = here
    return page_of(store, place // PAGE_BYTES) + place % PAGE_BYTES


cdef uint32_t pagebuffer_compare(PageBuffer *store, uint32_t at, uint8_t *data, uint32_t length,
                                 bint write) noexcept nogil:
    cdef uint32_t done = 0, part, changed = 0
    cdef uint8_t *kept
    while done < length:
        part = length - done
        kept = pagebuffer_span(store, at + done, &part)
        if memcmp(data + done, kept, part) != 0:
            changed += part
            if write:
                memcpy(data + done, kept, part)
        done += part
    return changed
