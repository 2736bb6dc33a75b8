# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The ring buffer of records: one writer (the packet thread), one reader (Python), no lock.

Promises: a full ring loses the newest record, counts it and never waits. Half of the ring is reserved for
sources with few records in it; of the other half a source may use as much as it leaves free, and
a flow half as much (Choudhury and Hahne 1998): however many records some make, others find room.
An eighth is reserved for the ends of flows, since a reader forgets what it keeps about a flow at its
end. Ends of flows whose server never answered, which anybody can cause, may use half of the ring.
Does not know what a record means; ``events.records`` does.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef extern from "atomic.h":
    uint64_t nm_load_acquire(uint64_t *p) noexcept nogil
    void nm_store_release(uint64_t *p, uint64_t v) noexcept nogil
    uint32_t nm_load_relaxed(uint32_t *p) noexcept nogil
    void nm_store_relaxed(uint32_t *p, uint32_t v) noexcept nogil


cdef int ring_open(Ring *ring, uint32_t size) noexcept nogil:
    memset(ring, 0, sizeof(Ring))
    ring.records = <Record *> calloc(size, sizeof(Record))
    ring.size = size
    return 0 if ring.records != NULL else -1


cdef void ring_close(Ring *ring) noexcept nogil:
    free(ring.records)
    ring.records = NULL


cdef enum:
    LEFT_TO_ENDS = 8                   # the part of the ring reserved for the ends of flows: an eighth
    QUIET = 32                         # sources with fewer records in the ring use the half reserved for them


cdef inline uint32_t flow_share(const Identity *identity) noexcept nogil:
    return <uint32_t> identity.flow_id & (RING_FLOWS - 1)


cdef inline uint32_t second_share(const Identity *identity) noexcept nogil:
    # A second, unkeyed hash: an address that collides with another here does not in the keyed hash.
    cdef uint64_t network
    memcpy(&network, identity.client, 8)           # the address's first 8 bytes; after an IPv4 address come zeros
    return <uint32_t> ((network * 0x9e3779b97f4a7c15ULL) >> 48)


cdef inline uint32_t waiting_of_source(Ring *ring, const Identity *identity) noexcept nogil:
    cdef uint32_t first = identity.source, second = second_share(identity)
    first = ring.pushed_by_source[0][first] - nm_load_relaxed(&ring.read_by_source[0][first])
    second = ring.pushed_by_source[1][second] - nm_load_relaxed(&ring.read_by_source[1][second])
    return first if first < second else second


cdef inline void count_read(uint32_t *count) noexcept nogil:
    nm_store_relaxed(count, count[0] + 1)


cdef inline bint has_room(Ring *ring, const Identity *identity) noexcept nogil:
    cdef uint32_t used = <uint32_t> (ring.head - nm_load_acquire(&ring.tail))
    if used < ring.size >> 3 or ring.unshared:     # the ring is so empty that no source can have used up its share
        return used < ring.size
    return has_share(ring, identity, used)


cdef bint has_share(Ring *ring, const Identity *identity, uint32_t used) noexcept nogil:
    cdef uint32_t source, flow
    source = waiting_of_source(ring, identity)
    if source < QUIET:
        return used < ring.size - ring.size // LEFT_TO_ENDS
    flow = flow_share(identity)
    flow = ring.pushed_by_flow[flow] - nm_load_relaxed(&ring.read_by_flow[flow])
    used += ring.size // 2
    return used + source < ring.size and used + 2 * flow < ring.size


cdef inline Record *next_record(Ring *ring, uint8_t kind, const Identity *identity, uint64_t now) noexcept nogil:
    cdef Record *record = &ring.records[ring.head & (ring.size - 1)]
    record.now = now
    record.a = record.b = record.c = record.d = record.e = 0
    record.identity = identity[0]
    record.code = record.before_length = record.after_length = 0
    record.kind = kind
    record.to_server = record.state = record.verb = record.finding = 0
    record.action = record.hypothetical = record.applied = 0
    return record


cdef inline bint end_has_room(Ring *ring, bint kept) noexcept nogil:
    cdef uint32_t used = <uint32_t> (ring.head - nm_load_acquire(&ring.tail))
    return used < (ring.size if kept or ring.unshared else ring.size // 2)


cdef Record *end_reserve(Ring *ring, const Identity *identity, bint kept, uint64_t now) noexcept nogil:
    if not ring.kinds >> RECORD_FLOW & 1:
        return NULL
    if not end_has_room(ring, kept):
        ring.lost[RECORD_FLOW] += 1
        return NULL
    return next_record(ring, RECORD_FLOW, identity, now)


cdef Record *record_reserve(Ring *ring, uint8_t kind, const Identity *identity, uint64_t now) noexcept nogil:
    if not ring.kinds >> kind & 1:
        return NULL
    if not has_room(ring, identity):
        ring.lost[kind] += 1
        return NULL
    return next_record(ring, kind, identity, now)


cdef void record_text(Record *record, const uint8_t *data, uint32_t length, bint after) noexcept nogil:
    cdef uint32_t at = record.before_length + record.after_length
    if length > RECORD_TEXT - at:
        length = RECORD_TEXT - at
    if length == 0:
        return
    memcpy(record.text + at, data, length)
    if after:
        record.after_length += <uint16_t> length
    else:
        record.before_length += <uint16_t> length


cdef void ring_push(Ring *ring) noexcept nogil:
    cdef const Record *record = &ring.records[ring.head & (ring.size - 1)]
    cdef const Identity *identity = &record.identity
    if record.kind != RECORD_FLOW:                 # the ends of flows count for no source and no flow
        ring.pushed_by_source[0][identity.source] += 1
        ring.pushed_by_source[1][second_share(identity)] += 1
        ring.pushed_by_flow[flow_share(identity)] += 1
    nm_store_release(&ring.head, ring.head + 1)


cdef const Record *ring_next(Ring *ring) noexcept nogil:
    return &ring.records[ring.tail & (ring.size - 1)] if ring.tail < nm_load_acquire(&ring.head) else NULL


cdef void ring_read(Ring *ring) noexcept nogil:
    cdef const Record *record = &ring.records[ring.tail & (ring.size - 1)]
    if record.kind != RECORD_FLOW:
        count_read(&ring.read_by_source[0][record.identity.source])
        count_read(&ring.read_by_source[1][second_share(&record.identity)])
        count_read(&ring.read_by_flow[flow_share(&record.identity)])
    nm_store_release(&ring.tail, ring.tail + 1)


cdef list ring_drain(Ring *ring, int most):
    """Up to ``most`` records, oldest first, as tuples in the order of ``events.records.Record``."""
    cdef list out = []
    cdef const Record *r = ring_next(ring)
    cdef int size
    while r != NULL and len(out) < most:
        size = 4 if r.identity.family == 4 else 16
        out.append((
            r.kind, r.now, r.identity.flow_id, r.generation * MOST_RULES + r.identity.rule, r.identity.family,
            (<const char *> r.identity.client)[:size], r.identity.client_port,
            (<const char *> r.identity.server)[:size], r.identity.server_port,
            bool(r.to_server), r.state, r.verb, r.finding, r.action,
            bool(r.hypothetical), bool(r.applied), r.code, (r.a, r.b, r.c, r.d, r.e),
            (<const char *> r.text)[:r.before_length],
            (<const char *> r.text)[r.before_length:r.before_length + r.after_length],
        ))
        ring_read(ring)
        r = ring_next(ring)
    return out
