# What a flow has of the streams' memory.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef struct Account:
    uint64_t since             # nanoseconds: since then its flow's receivers have taken little
    uint64_t bytes             # of memory that its flow has
    uint64_t charged           # of them, those on its source's account
    uint32_t taken             # bytes, that little; 0xffffffff: so many or more
    uint8_t listed             # its dialogue is in the list of those with a page or more
