# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Tallies: how many findings of each kind a flow has had.

Keeps invariant 6 (bounded): the records that a flow can cause grow only with the logarithm of what it sends. Keeps
invariant 4 (segmentation decides nothing): whether a finding is logged depends only on its number in the flow. Does not
know what a finding means.
"""

from libc.string cimport memset

from nfmailguard.cext.memory.pool cimport pool_give, pool_take

cdef enum:
    FEW = 3                            # kinds of findings that the word has room for
    BITS = 21                          # bits for each kind in the word: 15 for its count, 6 for its number
    COUNT_BITS = 15
    FEW_MOST = 63                      # highest count of a kind in the word; an array counts quicker beyond it
    COUNT_MASK = 32767
    BYTES = TALLY_KINDS * 4


cdef inline int place_of(const Tally *tally, uint8_t kind) noexcept nogil:
    # The slot of the word in which the kind of finding is, or could be, counted; FEW: the word has no slot for it.
    cdef int i
    cdef uint32_t one
    for i in range(FEW):
        one = <uint32_t> (tally.word >> (1 + BITS * i)) & ((1 << BITS) - 1)
        if one == 0 or one >> COUNT_BITS == kind:
            return i
    return FEW


cdef uint32_t *spread(Tally *tally, Pool *pool) noexcept nogil:
    """Moves the counts from the word to a new array for all kinds, and returns the array; NULL without memory."""
    cdef uint32_t *counts = <uint32_t *> pool_take(pool, BYTES, 0)
    cdef int i
    cdef uint32_t one
    if counts == NULL:
        return NULL
    memset(counts, 0, BYTES)
    for i in range(FEW):
        one = <uint32_t> (tally.word >> (1 + BITS * i)) & ((1 << BITS) - 1)
        counts[one >> COUNT_BITS] = one & COUNT_MASK
    tally.word = <uint64_t> <uintptr_t> counts
    return counts


cdef uint32_t tally_add(Tally *tally, Pool *pool, uint8_t kind) noexcept nogil:
    cdef uint32_t *counts
    cdef int place
    cdef uint32_t count
    if tally.word & 1 or tally.word == 0:
        place = place_of(tally, kind)
        count = <uint32_t> (tally.word >> (1 + BITS * place)) & COUNT_MASK if place < FEW else FEW_MOST
        if count < FEW_MOST:
            if count == 0:
                tally.word |= 1 | <uint64_t> kind << (1 + BITS * place + COUNT_BITS)
            tally.word += <uint64_t> 1 << (1 + BITS * place)
            return count + 1
        counts = spread(tally, pool)
        if counts == NULL:
            return 1
    else:
        counts = counts_of(tally)
    if counts[kind] < UINT32_MAX - 1:
        counts[kind] += 1
    return counts[kind]


cdef uint32_t tally_count(const Tally *tally, uint8_t kind) noexcept nogil:
    cdef int place
    if tally.word == 0:
        return 0
    if not tally.word & 1:
        return counts_of(tally)[kind]
    place = place_of(tally, kind)
    return <uint32_t> (tally.word >> (1 + BITS * place)) & COUNT_MASK if place < FEW else 0


cdef uint32_t tally_untold(const Tally *tally, uint8_t kind, uint32_t first) noexcept nogil:
    cdef uint32_t count = tally_count(tally, kind)
    cdef uint32_t most = UINT32_MAX - 1
    cdef uint64_t recorded = first
    if counts_of(tally) == NULL:
        most = FEW_MOST if count else 0            # a kind that is not counted in the word yet has no slot there
    if count < first or count >= most:
        return 0
    if first == 0:
        return most - count
    while recorded <= count:
        recorded *= 2
    return <uint32_t> (recorded - 1 if recorded - 1 < most else most) - count


cdef void tally_repeat_few(Tally *tally, uint8_t kind, uint32_t number) noexcept nogil:
    if number:
        tally.word += <uint64_t> number << (1 + BITS * place_of(tally, kind))


cdef void tally_close(Tally *tally, Pool *pool) noexcept nogil:
    if not tally.word & 1:
        pool_give(pool, counts_of(tally), BYTES)
    tally.word = 0


cdef uint32_t last_told(uint32_t count, uint32_t first) noexcept nogil:
    cdef uint64_t number = first if first else 1
    if count <= first:
        return count
    while number * 2 <= count:
        number *= 2
    return <uint32_t> number
