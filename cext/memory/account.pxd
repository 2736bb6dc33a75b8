# The memory account of one flow: how much of the memory for streams the flow uses.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef struct Account:
    uint64_t since             # nanoseconds: the time since which the flow's receivers have acknowledged little
    uint64_t bytes             # bytes of memory that the flow uses
    uint64_t charged           # the part of `bytes` that is counted in the account of the flow's source
    uint32_t taken             # bytes that the flow's receivers have acknowledged since `since`; at most 0xffffffff
    uint8_t listed             # the flow's dialogue is in the list of those that use a page of memory or more
