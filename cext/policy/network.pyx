# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Networks: whether an address lies in one of a list of networks. Does not know what the list is used for."""

from libc.string cimport memcmp


cdef bint in_networks(const Network *networks, uint32_t count, uint8_t family, const uint8_t *address) noexcept nogil:
    cdef uint32_t i, data, bits
    for i in range(count):
        if networks[i].family != family:
            continue
        data = networks[i].bits // 8
        bits = networks[i].bits % 8
        if memcmp(networks[i].data, address, data) != 0:
            continue
        if bits == 0 or (networks[i].data[data] ^ address[data]) >> (8 - bits) == 0:
            return True
    return count == 0
