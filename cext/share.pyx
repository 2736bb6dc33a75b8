# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Shares: what the flows of one source have together, in fixed memory.

Keeps invariant 6 (bounded) for whoever has many flows: however many sources there are, their
counts take the same room. A stranger cannot fill another's share: places are chosen by keyed
hashes, two of them independent, and the smaller count says (Cormode and Muthukrishnan, "An
improved data stream summary: the count-min sketch", 2005). Does not know what is counted.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef extern from "bytes.h" nogil:
    uint32_t nm_get32(const uint8_t *p) noexcept
    uint64_t nm_siphash(const uint64_t *key, const uint8_t *p, size_t length) noexcept


cdef int shares_open(Shares *shares, const uint8_t *key) noexcept nogil:
    cdef uint64_t secret[2]
    cdef uint64_t number = 0
    cdef int row, i
    memcpy(secret, key, 16)
    for row in range(2):
        for i in range(3):
            number += 1
            shares.factors[row][i] = nm_siphash(secret, <const uint8_t *> &number, 8)
        shares.rows[row] = <Share *> calloc(PLACES, sizeof(Share))
        if shares.rows[row] == NULL:
            return -1
    return 0


cdef void shares_close(Shares *shares) noexcept nogil:
    free(shares.rows[0])
    free(shares.rows[1])
    shares.rows[0] = shares.rows[1] = NULL


cdef Source source_of(const Shares *shares, uint8_t family, const uint8_t *address) noexcept nogil:
    # An IPv6 host has 2^64 addresses: its network counts (RFC 4291 2.5.1). Dietzfelbinger's multiply-shift of
    # two words: any two sources meet in a row with a chance of 2 in PLACES, whoever chose them without the key.
    cdef uint64_t first = nm_get32(address), second = nm_get32(address + 4) if family == 6 else 0
    cdef Source source
    cdef int row
    for row in range(2):
        source.place[row] = <uint16_t> ((shares.factors[row][0] * first + shares.factors[row][1] * second
                                         + shares.factors[row][2]) >> 48)
    return source
