# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Free lists: memory of one size, allocated from the pool and used again.
"""

from libc.string cimport memcpy

from nfmailguard.cext.memory.pool cimport pool_give, pool_take, reuse_spare, set_aside

cdef enum:
    MOST_FREE = 64


cdef void freelist_open(FreeList *shelf, Pool *pool, uint32_t size) noexcept nogil:
    shelf.first = NULL
    shelf.pool = pool
    shelf.size = size
    shelf.count = shelf.allocated = 0


cdef void *freelist_alloc(FreeList *shelf) noexcept nogil:
    cdef void *thing = shelf.first
    if thing == NULL:
        thing = pool_take(shelf.pool, shelf.size, 0)
    else:
        memcpy(&shelf.first, thing, sizeof(void *))
        shelf.count -= 1
        reuse_spare(shelf.pool, shelf.size)
    shelf.allocated += thing != NULL
    return thing


cdef void freelist_free(FreeList *shelf, void *thing) noexcept nogil:
    shelf.allocated -= 1
    if shelf.count == MOST_FREE:
        pool_give(shelf.pool, thing, shelf.size)
        return
    memcpy(thing, &shelf.first, sizeof(void *))
    shelf.first = thing
    shelf.count += 1
    set_aside(shelf.pool, shelf.size)


cdef void freelist_close(FreeList *shelf) noexcept nogil:
    cdef void *thing
    while shelf.count:
        thing = freelist_alloc(shelf)
        pool_give(shelf.pool, thing, shelf.size)
