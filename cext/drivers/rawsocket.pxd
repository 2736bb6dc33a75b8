# Raw sockets for packets of our own making.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef struct RawSockets:
    int ipv4
    int ipv6
    uint64_t sent
    uint64_t errors            # packets the kernel would not send

cdef class RawSender:
    cdef RawSockets sockets

# Never waits: a full device queue loses the packet, counted.
cdef void raw_send(RawSockets *sockets, const uint8_t *packet, uint32_t length) noexcept nogil
