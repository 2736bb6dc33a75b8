# Nanoseconds since 1970 as EVE writes them.
from libc.stdint cimport uint8_t, uint64_t

from nfmailguard.cext.events.buffer cimport Buffer

cdef enum:
    SECONDS_KEPT = 64          # a power of two
    CLOCK_TEXT = 32
    MOST_TIMESTAMP = 2 * CLOCK_TEXT + 8

cdef struct Second:
    uint64_t seconds           # + 1; 0: nothing is kept here
    uint8_t before_length
    uint8_t after_length
    char before[CLOCK_TEXT]    # up to the fraction
    char after[CLOCK_TEXT]     # behind it: the offset

# Seconds as text: the lines of one second have the same, and looking up local time takes long.
cdef struct Clock:
    Second second[SECONDS_KEPT]

# Room for MOST_TIMESTAMP is the caller's to reserve.
cdef void put_timestamp(Buffer *buffer, Clock *clock, uint64_t now) noexcept nogil
