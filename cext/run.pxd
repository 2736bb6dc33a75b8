# Runs of octets within a command line, none of which changes how it is read.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

cdef enum Fate:                        # of the verb being read
    FATE_PASS = 0
    FATE_OPEN = 1                      # cut by the segment's end: decided by prefix
    FATE_LETTER = 2
    FATE_NOOP = 3

cdef struct Manner:                    # how odd octets are taken
    bint blank_lf                      # a LF becomes a space
    bint blank_nul                     # behind a verb a NUL, likewise

# As the ruling has it; for a whole segment.
cdef void manner_of(Scene *scene, Manner *manner) noexcept nogil
# Reads octets[at:], as far as that is what they are, of a line that has begun; how many. Behind a CR there are none.
cdef uint32_t line_run(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets, uint32_t at,
                       uint32_t length, uint64_t offset) noexcept nogil
