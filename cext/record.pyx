# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The records ring: one writer (the packet thread), one reader (Python), no lock.

Promises: a full ring loses the newest record, counts it and never waits. Does not
know what a record means to anybody; ``events.records`` does.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #define nm_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define nm_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t nm_load_acquire(uint64_t *p) noexcept nogil
    void nm_store_release(uint64_t *p, uint64_t v) noexcept nogil


cdef int ring_open(Ring *ring, uint32_t size) noexcept nogil:
    memset(ring, 0, sizeof(Ring))
    ring.records = <Record *> calloc(size, sizeof(Record))
    ring.size = size
    return 0 if ring.records != NULL else -1


cdef void ring_close(Ring *ring) noexcept nogil:
    free(ring.records)
    ring.records = NULL


cdef Record *ring_reserve(Ring *ring, uint8_t kind, const Identity *identity, uint64_t now) noexcept nogil:
    cdef Record *record
    if not ring.kinds >> kind & 1:
        return NULL
    if ring.head - nm_load_acquire(&ring.tail) >= ring.size:
        ring.lost += 1
        return NULL
    record = &ring.records[ring.head & (ring.size - 1)]
    memset(record, 0, sizeof(Record) - RECORD_TEXT)
    record.kind = kind
    record.identity = identity[0]
    record.now = now
    return record


cdef void record_text(Record *record, const uint8_t *octets, uint32_t length, bint after) noexcept nogil:
    cdef uint32_t at = record.before_length + record.after_length
    if length > RECORD_TEXT - at:
        length = RECORD_TEXT - at
    if length == 0:
        return
    memcpy(record.text + at, octets, length)
    if after:
        record.after_length += <uint16_t> length
    else:
        record.before_length += <uint16_t> length


cdef void ring_push(Ring *ring) noexcept nogil:
    nm_store_release(&ring.head, ring.head + 1)


cdef list ring_drain(Ring *ring, int most):
    """Up to ``most`` records, oldest first, as tuples in the order of ``events.records.Record``."""
    cdef list out = []
    cdef uint64_t head = nm_load_acquire(&ring.head)
    cdef Record *r
    cdef int size
    while ring.tail < head and len(out) < most:
        r = &ring.records[ring.tail & (ring.size - 1)]
        size = 4 if r.identity.family == 4 else 16
        out.append((
            r.kind, r.now, r.identity.flow_id, r.identity.rule, r.identity.family,
            (<const char *> r.identity.client)[:size], r.identity.client_port,
            (<const char *> r.identity.server)[:size], r.identity.server_port,
            bool(r.to_server), r.state, r.verb, r.finding, r.action,
            bool(r.hypothetical), bool(r.applied), r.code, (r.a, r.b, r.c, r.d, r.e),
            (<const char *> r.text)[:r.before_length],
            (<const char *> r.text)[r.before_length:r.before_length + r.after_length],
        ))
        nm_store_release(&ring.tail, ring.tail + 1)
    return out
