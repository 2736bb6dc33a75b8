# How much may be written: events/allowance.py.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

cdef enum:
    MOST_SOURCES = 4096
    SOURCE_BUCKETS = 8192
    UNLIMITED = -1

cdef enum:  # what is withheld, and counted by it
    KIND_MAILGUARD = 0
    KIND_ALERT
    KIND_SMTP
    KIND_FLOW
    KINDS

cdef struct Used:
    uint64_t key
    double octets              # times the rate's scale
    uint16_t bucket
    uint16_t next_in_bucket    # places are counted from 1; 0: none
    uint16_t earlier           # by when they were asked about last
    uint16_t later
    uint8_t is_6

cdef struct Rate:
    int64_t rate               # octets a second, or UNLIMITED
    double most
    double used                # of the burst, by all; what has been paid off is not used
    double scale
    uint64_t now
    uint16_t count
    uint16_t earliest
    uint16_t latest
    uint16_t bucket[SOURCE_BUCKETS]
    Used sources[MOST_SOURCES + 2]
    uint16_t free_places       # by next_in_bucket
    uint16_t touched           # places that were ever in use

cdef struct Allowance:
    Rate proven
    Rate forgeable
    uint64_t key[2]
    uint64_t reported          # when something was, last
    uint64_t withheld[KINDS]
    uint64_t untold[KINDS]
    uint8_t order[KINDS]       # of those that are not told, the one that was withheld first comes first
    uint8_t kinds
    uint16_t sources           # of so many
    uint64_t source[SOURCE_BUCKETS]     # a set
    uint8_t source_is[SOURCE_BUCKETS]   # 0: none; 4 or 6

cdef void allowance_open(Allowance *allowance, const uint64_t *key) noexcept nogil
# Another rate, or UNLIMITED; what was used is used.
cdef void allowance_change(Allowance *allowance, int64_t rate) noexcept nogil
# Whether so many octets of a client may be written now; `forgeable`: its address may be anybody's.
cdef bint allowance_takes(Allowance *allowance, uint8_t family, const uint8_t *client, uint64_t octets, uint8_t kind,
                          uint64_t now, bint forgeable) noexcept nogil
# Whether something was withheld and not told for long enough.
cdef bint allowance_is_due(const Allowance *allowance, uint64_t now) noexcept nogil
cdef void allowance_told(Allowance *allowance, uint64_t now) noexcept nogil
