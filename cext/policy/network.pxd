# Networks: addresses with a prefix.
from libc.stdint cimport uint32_t, uint8_t

cdef struct Network:
    uint8_t data[16]           # IPv4 in the first four
    uint8_t family             # 4 or 6
    uint8_t bits

# Whether the address is in one of them; of none, every address is.
cdef bint in_networks(const Network *networks, uint32_t count, uint8_t family, const uint8_t *address) noexcept nogil
