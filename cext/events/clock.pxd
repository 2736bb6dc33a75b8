# Writes times, nanoseconds since 1970, as EVE timestamps.
from libc.stdint cimport uint8_t, uint64_t

from nfmailguard.cext.events.buffer cimport Buffer

cdef enum:
    SECONDS_KEPT = 64          # seconds whose text is cached; a power of two
    CLOCK_TEXT = 32
    MOST_TIMESTAMP = 2 * CLOCK_TEXT + 8

cdef struct Second:
    uint64_t seconds           # the second since 1970, plus 1; 0: the entry is empty
    uint8_t before_length
    uint8_t after_length
    char before[CLOCK_TEXT]    # text before the fraction of a second: date and time
    char after[CLOCK_TEXT]     # text after the fraction: the offset from UTC

# A cache of timestamps by second: looking up local time is slow, and many lines fall into one second.
cdef struct Clock:
    Second second[SECONDS_KEPT]

# Appends the timestamp of `now`; the caller has reserved MOST_TIMESTAMP bytes.
cdef void put_timestamp(Buffer *buffer, Clock *clock, uint64_t now) noexcept nogil
