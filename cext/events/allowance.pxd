# Limits how many bytes of event lines are written per second; the same as events/allowance.py.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

cdef enum:
    MOST_SOURCES = 4096
    SOURCE_BUCKETS = 8192
    UNLIMITED = -1

# Kinds of event lines, by which withheld lines are counted.
cdef enum:
    KIND_MAILGUARD = 0
    KIND_ALERT
    KIND_SMTP
    KIND_FLOW
    KINDS

cdef struct Used:
    uint64_t key
    double octets              # bytes written for this source and not paid off yet, divided by the rate's scale
    uint16_t bucket
    uint16_t next_in_bucket    # next source in the hash bucket: an index into `sources`, from 1 on; 0: none
    uint16_t earlier           # neighbours in the list of sources by last use; 0: none
    uint16_t later
    uint8_t is_6

cdef struct Rate:
    int64_t rate               # bytes per second, or UNLIMITED
    double most
    double used                # bytes written by all sources and not paid off yet by the time that has passed
    double scale
    uint64_t now
    uint16_t count
    uint16_t earliest
    uint16_t latest
    uint16_t bucket[SOURCE_BUCKETS]
    Used sources[MOST_SOURCES + 2]
    uint16_t free_places       # first of the free places in `sources`, linked by next_in_bucket; 0: none
    uint16_t touched           # places of `sources` that have ever been used

cdef struct Allowance:
    Rate proven
    Rate forgeable
    uint64_t key[2]
    uint64_t reported          # time of the last report of withheld lines, in nanoseconds
    uint64_t withheld[KINDS]
    uint64_t untold[KINDS]
    uint8_t order[KINDS]       # kinds with unreported withheld lines, in the order they were first withheld
    uint8_t kinds
    uint16_t sources           # number of sources with withheld lines not reported yet
    uint64_t source[SOURCE_BUCKETS]     # those sources' addresses: a hash set with open addressing
    uint8_t source_is[SOURCE_BUCKETS]   # address family of each entry in `source`: 4 or 6; 0: empty

cdef void allowance_open(Allowance *allowance, const uint64_t *key) noexcept nogil
# Sets another rate, or UNLIMITED; what was written before still counts against it.
cdef void allowance_change(Allowance *allowance, int64_t rate) noexcept nogil
# Whether `octets` bytes about a client may be written now; `forgeable`: the client's address may be forged.
cdef bint allowance_takes(Allowance *allowance, uint8_t family, const uint8_t *client, uint64_t octets, uint8_t kind,
                          uint64_t now, bint forgeable) noexcept nogil
# Whether withheld lines are to be reported now: there are some, and the last report is long enough ago.
cdef bint allowance_is_due(const Allowance *allowance, uint64_t now) noexcept nogil
cdef void allowance_told(Allowance *allowance, uint64_t now) noexcept nogil
