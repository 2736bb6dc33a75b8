# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Shares: what all flows of one source use together, counted in fixed memory.

Keeps invariant 6 (bounded) for sources with many flows: however many sources there are, their counts take the same
memory. A stranger cannot use up another source's share: the two places of a source come from independent keyed hashes,
and the smaller count is used (Cormode and Muthukrishnan, "An improved data stream summary: the count-min sketch",
2005). Does not know what is counted.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef extern from "bytes.h" nogil:
    uint64_t nm_siphash(const uint64_t *key, const uint8_t *p, size_t length) noexcept


cdef int shares_open(Shares *shares, const uint8_t *key) noexcept nogil:
    cdef int row
    memcpy(shares.key, key, 16)
    for row in range(2):
        shares.rows[row] = <Share *> calloc(PLACES, sizeof(Share))
        if shares.rows[row] == NULL:
            return -1
    return 0


cdef void shares_close(Shares *shares) noexcept nogil:
    free(shares.rows[0])
    free(shares.rows[1])
    shares.rows[0] = shares.rows[1] = NULL


cdef Source source_of(const Shares *shares, uint8_t family, const uint8_t *address) noexcept nogil:
    # An IPv6 host has 2^64 addresses, so its /64 network is counted (RFC 4291 2.5.1). Two parts of one keyed hash are
    # independent; with a cheaper hash (a multiplication), whole networks would share places under some keys.
    cdef uint8_t data[8]
    cdef uint64_t hash
    cdef Source source
    memset(data, 0, 8)
    memcpy(data, address, 8 if family == 6 else 4)
    hash = nm_siphash(shares.key, data, 8)
    source.place[0] = <uint16_t> hash
    source.place[1] = <uint16_t> (hash >> 32)
    return source
