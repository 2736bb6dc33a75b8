# Shares: what the flows of one source have together, in fixed memory.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef enum:
    PLACES = 65536             # of a row

# Of all sources that have this place.
cdef struct Share:
    uint64_t bytes             # of the streams' half of the memory
    uint32_t flows             # that have opened
    uint32_t held              # packets

# Where a source is counted: once in each row. Two sources share a place of one row easily, but hardly both.
cdef struct Source:
    uint16_t place[2]

cdef struct Shares:
    Share *rows[2]
    uint64_t key[2]

# `key`: 16 random bytes. -1 without memory.
cdef int shares_open(Shares *shares, const uint8_t *key) noexcept nogil
cdef void shares_close(Shares *shares) noexcept nogil
# The source an address belongs to: an IPv4 address, or the /64 of an IPv6 one.
cdef Source source_of(const Shares *shares, uint8_t family, const uint8_t *address) noexcept nogil

# What a source has: never less than the truth, and more only where strangers have both of its places.
cdef inline uint32_t flows_of(const Shares *shares, Source source) noexcept nogil:
    cdef uint32_t a = shares.rows[0][source.place[0]].flows, b = shares.rows[1][source.place[1]].flows
    return a if a < b else b

cdef inline uint32_t held_of(const Shares *shares, Source source) noexcept nogil:
    cdef uint32_t a = shares.rows[0][source.place[0]].held, b = shares.rows[1][source.place[1]].held
    return a if a < b else b

cdef inline uint64_t bytes_of(const Shares *shares, Source source) noexcept nogil:
    cdef uint64_t a = shares.rows[0][source.place[0]].bytes, b = shares.rows[1][source.place[1]].bytes
    return a if a < b else b

# `change`: of the number, modulo 2^32 or 2^64: what is taken away is added as its complement.
cdef inline void add_flows(Shares *shares, Source source, uint32_t change) noexcept nogil:
    shares.rows[0][source.place[0]].flows += change
    shares.rows[1][source.place[1]].flows += change

cdef inline void add_held(Shares *shares, Source source, uint32_t change) noexcept nogil:
    shares.rows[0][source.place[0]].held += change
    shares.rows[1][source.place[1]].held += change

cdef inline void add_bytes(Shares *shares, Source source, uint64_t change) noexcept nogil:
    shares.rows[0][source.place[0]].bytes += change
    shares.rows[1][source.place[1]].bytes += change
