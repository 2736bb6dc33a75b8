# The ends of a connection as a line has them: addresses and ports, and the Community ID.
from libc.stdint cimport uint8_t

from nfmailguard.cext.events.buffer cimport Buffer
from nfmailguard.cext.record cimport Identity

cdef enum:
    COMMUNITY_SIZE = 30        # "1:" and 20 bytes in base64
    MOST_ADDRESS = 46          # octets of an address as text

# Whether the processor has instructions for SHA-1; what community_of wants to know.
cdef bint sha1_is_native() noexcept nogil
# Community ID version 1, seed 0, of a TCP flow: the same from either side. COMMUNITY_SIZE octets at `out`.
cdef void community_of(const Identity *identity, bint native, uint8_t *out) noexcept nogil
# As inet_ntop(3) writes it; room for MOST_ADDRESS is the caller's to reserve.
cdef void put_address(Buffer *buffer, uint8_t family, const uint8_t *address) noexcept nogil
