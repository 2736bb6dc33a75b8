# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Tallies: of each kind of finding, how many a flow has had.

Keeps invariant 6 (bounded): what a flow can make us record grows with the logarithm of what it
says. Keeps invariant 4: which of its findings are told depends on their number in the flow alone.
Does not know what a finding means.
"""

from libc.string cimport memset

from nfmailguard.cext.memory.pool cimport pool_give, pool_take

cdef enum:
    FEW = 3                            # kinds in the word
    BITS = 21                          # of each: 15 of its count, 6 of its kind
    COUNT_BITS = 15
    FEW_MOST = 63                      # beyond, a flow repeats itself, and counting has to be quick
    COUNT_MASK = 32767
    BYTES = TALLY_KINDS * 4


cdef inline int place_of(const Tally *tally, uint8_t kind) noexcept nogil:
    # Where in the word the kind stands, or could; FEW: nowhere.
    cdef int i
    cdef uint32_t one
    for i in range(FEW):
        one = <uint32_t> (tally.word >> (1 + BITS * i)) & ((1 << BITS) - 1)
        if one == 0 or one >> COUNT_BITS == kind:
            return i
    return FEW


cdef uint32_t *spread(Tally *tally, Pool *pool) noexcept nogil:
    """The counts of all kinds, taken out of the word; NULL without memory."""
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
        most = FEW_MOST if count else 0            # a kind that is not in the word has no place yet
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
