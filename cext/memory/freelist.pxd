# Free lists: memory blocks of one size, allocated from the pool and used again.
from libc.stdint cimport uint32_t

from nfmailguard.cext.memory.pool cimport Pool

# A list of free blocks of one size. Blocks are used for a short time; those given back are kept here for the next user.
cdef struct FreeList:
    void *first                # the first free block; each free block begins with a pointer to the next
    Pool *pool
    uint32_t size              # size of a block in bytes
    uint32_t count
    uint32_t allocated

# `size`: bytes of a block, at least the size of a pointer.
cdef void freelist_open(FreeList *freelist, Pool *pool, uint32_t size) noexcept nogil
# Returns a block with undefined contents, or NULL where pool_take returns NULL. Every block has to be given back.
cdef void *freelist_alloc(FreeList *freelist) noexcept nogil
cdef void freelist_free(FreeList *freelist, void *thing) noexcept nogil
cdef void freelist_close(FreeList *freelist) noexcept nogil
