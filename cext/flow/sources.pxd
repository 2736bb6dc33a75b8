# Shares: what all flows of one source use together, counted in fixed memory.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef enum:
    PLACES = 65536             # counters in each row

# The counts of all sources that share one place in a row.
cdef struct Share:
    uint64_t bytes             # memory for stream data, of the half of limits.memory kept for that
    uint32_t flows             # flows that have opened
    uint32_t held              # packets held in the kernel's queue

# The places where a source is counted, one in each row. Two sources may share a place in one row, but hardly in both.
cdef struct Source:
    uint16_t place[2]

cdef struct Shares:
    Share *rows[2]
    uint64_t key[2]

# `key`: 16 random bytes. Returns -1 without memory.
cdef int shares_open(Shares *shares, const uint8_t *key) noexcept nogil
cdef void shares_close(Shares *shares) noexcept nogil
# The source that an address belongs to: an IPv4 address, or the /64 network of an IPv6 address.
cdef Source source_of(const Shares *shares, uint8_t family, const uint8_t *address) noexcept nogil

# What a source uses: never less than the truth, and more only if other sources share both of its places.
cdef inline uint32_t flows_of(const Shares *shares, Source source) noexcept nogil:
    cdef uint32_t a = shares.rows[0][source.place[0]].flows, b = shares.rows[1][source.place[1]].flows
    return a if a < b else b

cdef inline uint32_t held_of(const Shares *shares, Source source) noexcept nogil:
    cdef uint32_t a = shares.rows[0][source.place[0]].held, b = shares.rows[1][source.place[1]].held
    return a if a < b else b

cdef inline uint64_t bytes_of(const Shares *shares, Source source) noexcept nogil:
    cdef uint64_t a = shares.rows[0][source.place[0]].bytes, b = shares.rows[1][source.place[1]].bytes
    return a if a < b else b

# Adds `change` to a source's counts, modulo 2^32 or 2^64; to subtract a number, its two's complement is added.
cdef inline void add_flows(Shares *shares, Source source, uint32_t change) noexcept nogil:
    shares.rows[0][source.place[0]].flows += change
    shares.rows[1][source.place[1]].flows += change

cdef inline void add_held(Shares *shares, Source source, uint32_t change) noexcept nogil:
    shares.rows[0][source.place[0]].held += change
    shares.rows[1][source.place[1]].held += change

cdef inline void add_bytes(Shares *shares, Source source, uint64_t change) noexcept nogil:
    shares.rows[0][source.place[0]].bytes += change
    shares.rows[1][source.place[1]].bytes += change
