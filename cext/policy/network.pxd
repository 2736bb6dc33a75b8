# Networks: IP address ranges, each given by an address and a prefix length.
from libc.stdint cimport uint32_t, uint8_t

cdef struct Network:
    uint8_t data[16]           # the network's address; IPv4 uses the first four bytes
    uint8_t family             # IP version of the network: 4 or 6
    uint8_t bits

# Whether the address lies in one of `count` networks; an empty list of networks contains every address.
cdef bint in_networks(const Network *networks, uint32_t count, uint8_t family, const uint8_t *address) noexcept nogil
