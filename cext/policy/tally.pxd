# How often each kind of finding has been met in a flow, and which of them are told.
from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t, uint8_t, uintptr_t

from nfmailguard.cext.memory.pool cimport Pool

cdef enum:
    TALLY_KINDS = 64
    TALLY_NONE = 0             # of Context.number: the flow's tally gives it
    TALLY_UNTOLD = 0xffffffff  # of a number: whatever the limit is, it is not told

# Up to three kinds with small counts stand in the word itself (its lowest bit is 1), as they do in
# nearly every flow; else it is where the counts of all kinds are, out of the pool.
cdef struct Tally:
    uint64_t word

# One more of a kind: its number in the flow. Without memory it is the first again: told too often, never too seldom.
cdef uint32_t tally_add(Tally *tally, Pool *pool, uint8_t kind) noexcept nogil
cdef uint32_t tally_count(const Tally *tally, uint8_t kind) noexcept nogil
cdef void tally_close(Tally *tally, Pool *pool) noexcept nogil
# The last number up to `count` that was told.
cdef uint32_t last_told(uint32_t count, uint32_t first) noexcept nogil

# Whether the one of this number is told: the `first` ones of a kind, then the number twice that, four times, ...
cdef inline bint is_told(uint32_t number, uint32_t first) noexcept nogil:
    if number <= first:
        return True
    while number > first and not number & 1:
        number >>= 1
    return number == first

# The counts of all kinds, where they are not in the word; else NULL.
cdef inline uint32_t *counts_of(const Tally *tally) noexcept nogil:
    return <uint32_t *> <uintptr_t> tally.word if not tally.word & 1 else NULL

# How many more of a kind would not be told, and could be counted where they are.
cdef uint32_t tally_untold(const Tally *tally, uint8_t kind, uint32_t first) noexcept nogil

# Counts as many of them; the same in the word.
cdef inline void tally_repeat(Tally *tally, uint8_t kind, uint32_t number) noexcept nogil:
    cdef uint32_t *counts = counts_of(tally)
    if counts != NULL:
        counts[kind] += number
    else:
        tally_repeat_few(tally, kind, number)

cdef void tally_repeat_few(Tally *tally, uint8_t kind, uint32_t number) noexcept nogil

# Whether the next one of a kind is not told, and could be counted where they are.
cdef inline bint tally_repeats_next(const Tally *tally, uint8_t kind, uint32_t first) noexcept nogil:
    cdef uint32_t *counts = counts_of(tally)
    if counts == NULL:
        return tally_untold(tally, kind, first) != 0
    return counts[kind] < UINT32_MAX - 1 and not is_told(counts[kind] + 1, first)

# Counts one more of a kind, if it is one that is not told.
cdef inline bint tally_repeats(Tally *tally, uint8_t kind, uint32_t first) noexcept nogil:
    if not tally_repeats_next(tally, kind, first):
        return False
    tally_repeat(tally, kind, 1)
    return True
