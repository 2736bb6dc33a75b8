# A connection's endpoints in an event line: addresses, ports and the Community ID.
from libc.stdint cimport uint8_t

from nfmailguard.cext.events.buffer cimport Buffer
from nfmailguard.cext.record cimport Identity

cdef enum:
    COMMUNITY_SIZE = 30        # length of a Community ID: "1:" and 20 bytes in base64
    MOST_ADDRESS = 46          # bytes of the longest address as text

# Whether the processor has SHA-1 instructions; passed to community_of as `native`.
cdef bint sha1_is_native() noexcept nogil
# Writes a TCP flow's Community ID (version 1, seed 0), the same for both directions: COMMUNITY_SIZE bytes at `out`.
cdef void community_of(const Identity *identity, bint native, uint8_t *out) noexcept nogil
# Appends an address in the form of inet_ntop(3); the caller has reserved MOST_ADDRESS bytes.
cdef void put_address(Buffer *buffer, uint8_t family, const uint8_t *address) noexcept nogil
