# Free lists: memory of one size, allocated from the pool and used again.
from libc.stdint cimport uint32_t

from nfmailguard.cext.memory.pool cimport Pool

# Things of one size that are lent for a short time: those given back lie here for the next to ask.
cdef struct FreeList:
    void *first                # each begins with the address of the next
    Pool *pool
    uint32_t size              # octets of one
    uint32_t count
    uint32_t allocated

# `size`: at least a pointer's.
cdef void freelist_open(FreeList *freelist, Pool *pool, uint32_t size) noexcept nogil
# One, with whatever it holds, or NULL as pool_take; every one is given back.
cdef void *freelist_alloc(FreeList *freelist) noexcept nogil
cdef void freelist_free(FreeList *freelist, void *thing) noexcept nogil
cdef void freelist_close(FreeList *freelist) noexcept nogil
