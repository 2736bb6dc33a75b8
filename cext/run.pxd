# Runs of octets within a command line, none of which changes how it is read.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

cdef enum Fate:                        # of the verb being read
    FATE_PASS = 0
    FATE_OPEN = 1                      # cut by the segment's end: decided by prefix
    FATE_LETTER = 2
    FATE_NOOP = 3

cdef enum Kind:                        # findings that are counted together for a segment's lines
    KIND_DENIED = 0
    KIND_LF = 1
    KIND_CR = 2
    KIND_NUL = 3
    KIND_ILLEGAL = 4
    KIND_UPSTREAM = 5
    KINDS = 6

cdef struct Manner:                    # how odd octets are taken
    bint blank_lf                      # a LF becomes a space
    bint blank_nul                     # behind a verb a NUL, likewise
    bint blank_cr                      # what stands behind a CR becomes a LF
    uint32_t whole                     # octets of a verb, or a line, that may be read at once
    uint32_t left[KINDS]               # how many more of a kind would not be told, as far as it is known
    uint32_t counted                   # of all kinds
    uint32_t count[KINDS]              # of them, those that are yet to be counted in the tally

# Counts in the tally what has been found; before anything else may look there, or at Session.found.
cdef inline void settle_counts(Scene *scene, Manner *manner) noexcept nogil:
    if manner.counted:
        settle_each(scene, manner)

cdef void settle_each(Scene *scene, Manner *manner) noexcept nogil
# As `untold`, where more than is known is asked for.
cdef bint more_untold(Scene *scene, Manner *manner, Kind kind, uint32_t number) noexcept nogil
# Whether so many more findings of a kind are told nobody and end nothing.
cdef inline bint untold(Scene *scene, Manner *manner, Kind kind, uint32_t number) noexcept nogil:
    return manner.left[<int> kind] >= number or more_untold(scene, manner, kind, number)

# Counts as many of them.
cdef inline void found(Manner *manner, Kind kind, uint32_t number) noexcept nogil:
    manner.left[<int> kind] -= number
    manner.count[<int> kind] += number
    manner.counted += number

# Makes all of them `octet`.
cdef void fill(Scene *scene, uint8_t *octets, uint32_t length, uint8_t octet) noexcept nogil
# As the ruling has it; for a whole segment.
cdef void manner_of(Scene *scene, Manner *manner) noexcept nogil
# Reads octets[at:], as far as that is what they are, of a line that has begun; how many. Behind a CR there are none.
cdef uint32_t line_run(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets, uint32_t at,
                       uint32_t length, uint64_t offset) noexcept nogil
