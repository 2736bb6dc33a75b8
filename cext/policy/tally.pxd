# Tallies: how often each kind of finding has occurred in a flow, and which of them are logged.
from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t, uint8_t, uintptr_t

from nfmailguard.cext.memory.pool cimport Pool

cdef enum:
    TALLY_KINDS = 64
    TALLY_NONE = 0             # value of Context.number: the flow's tally counts and numbers the finding
    TALLY_UNTOLD = 0xffffffff  # number of a finding that is not logged, whatever the limit

# A flow's counts of findings by kind. The word itself holds small counts of up to three kinds, which is enough for
# nearly every flow, and its lowest bit is 1; otherwise it is a pointer to an array in the pool, with a count for every
# kind.
cdef struct Tally:
    uint64_t word

# Counts one more finding of a kind and returns its number in the flow. Without memory it returns 1, as for the first of
# its kind: such findings are logged too often, never too rarely.
cdef uint32_t tally_add(Tally *tally, Pool *pool, uint8_t kind) noexcept nogil
cdef uint32_t tally_count(const Tally *tally, uint8_t kind) noexcept nogil
cdef void tally_close(Tally *tally, Pool *pool) noexcept nogil
# The number of the last finding that was logged, when there have been `count` of its kind.
cdef uint32_t last_told(uint32_t count, uint32_t first) noexcept nogil

# Whether the finding of this number is logged: the `first` ones of a kind are, then the one of twice that number, of
# four times that number, and so on.
cdef inline bint is_told(uint32_t number, uint32_t first) noexcept nogil:
    if number <= first:
        return True
    while number > first and not number & 1:
        number >>= 1
    return number == first

# The array with the counts of all kinds of finding, or NULL while they fit into Tally.word itself.
cdef inline uint32_t *counts_of(const Tally *tally) noexcept nogil:
    return <uint32_t *> <uintptr_t> tally.word if not tally.word & 1 else NULL

# How many more findings of a kind would not be logged, and can be counted without moving counts to an array.
cdef uint32_t tally_untold(const Tally *tally, uint8_t kind, uint32_t first) noexcept nogil

# Counts `number` more findings of a kind; tally_repeat_few does so while the counts are in Tally.word.
cdef inline void tally_repeat(Tally *tally, uint8_t kind, uint32_t number) noexcept nogil:
    cdef uint32_t *counts = counts_of(tally)
    if counts != NULL:
        counts[kind] += number
    else:
        tally_repeat_few(tally, kind, number)

cdef void tally_repeat_few(Tally *tally, uint8_t kind, uint32_t number) noexcept nogil

# Whether the next finding of a kind is not logged, and can be counted without moving counts to an array.
cdef inline bint tally_repeats_next(const Tally *tally, uint8_t kind, uint32_t first) noexcept nogil:
    cdef uint32_t *counts = counts_of(tally)
    if counts == NULL:
        return tally_untold(tally, kind, first) != 0
    return counts[kind] < UINT32_MAX - 1 and not is_told(counts[kind] + 1, first)

# Counts the next finding of a kind if it is one that is not logged, and returns whether it is.
cdef inline bint tally_repeats(Tally *tally, uint8_t kind, uint32_t first) noexcept nogil:
    if not tally_repeats_next(tally, kind, first):
        return False
    tally_repeat(tally, kind, 1)
    return True
