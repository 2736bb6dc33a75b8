# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Free lists: memory blocks of one size, allocated from the pool and used again."""

from libc.string cimport memcpy

from nfmailguard.cext.memory.pool cimport pool_give, pool_take, reuse_spare, set_aside

cdef enum:
    MOST_FREE = 64


cdef void freelist_open(FreeList *freelist, Pool *pool, uint32_t size) noexcept nogil:
    freelist.first = NULL
    freelist.pool = pool
    freelist.size = size
    freelist.count = freelist.allocated = 0


cdef void *freelist_alloc(FreeList *freelist) noexcept nogil:
    cdef void *thing = freelist.first
    if thing == NULL:
        thing = pool_take(freelist.pool, freelist.size, 0)
    else:
        memcpy(&freelist.first, thing, sizeof(void *))
        freelist.count -= 1
        reuse_spare(freelist.pool, freelist.size)
    freelist.allocated += thing != NULL
    return thing


cdef void freelist_free(FreeList *freelist, void *thing) noexcept nogil:
    freelist.allocated -= 1
    if freelist.count == MOST_FREE:
        pool_give(freelist.pool, thing, freelist.size)
        return
    memcpy(thing, &freelist.first, sizeof(void *))
    freelist.first = thing
    freelist.count += 1
    set_aside(freelist.pool, freelist.size)


cdef void freelist_close(FreeList *freelist) noexcept nogil:
    cdef void *thing
    while freelist.count:
        thing = freelist_alloc(freelist)
        pool_give(freelist.pool, thing, freelist.size)
