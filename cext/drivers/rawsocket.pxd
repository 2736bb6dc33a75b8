# Raw sockets that send packets of our own (RSTs).
from libc.stdint cimport uint32_t, uint64_t, uint8_t

cdef struct RawSockets:
    int ipv4
    int ipv6
    uint64_t sent
    uint64_t errors            # packets the kernel did not send

cdef class RawSender:
    cdef RawSockets sockets

# Sends an IP packet without waiting: where a device queue is full the packet is lost, and counted as an error.
cdef void raw_send(RawSockets *sockets, const uint8_t *packet, uint32_t length) noexcept nogil
