# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Puts records of mails into an engine's ring as fast as they are read: measures the cost of writing events.

Promises: each mail has its own connection, with its own flow number, port and address, and ``open`` of them are under
way at once. Records that find no room are counted by the ring. Does not know who reads the records.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from nfmailguard.cext.engine cimport Engine
from nfmailguard.cext.events.writer cimport record_from_tuple
from nfmailguard.cext.record cimport RECORD_FLOW, Identity, Record, Ring, end_reserve, record_reserve, ring_push
from nfmailguard.cext.wire.packet cimport nm_put32

cdef enum:
    CLIENTS = 4096
    FIRST_CLIENT = 0x0b000000          # first client address: 11.0.0.0
    FIRST_PORT = 1024
    PORTS = 60000


cdef class Feed:
    """``records``: drained records of one IPv4 connection, in order; ``open``: number of connections at once."""

    cdef Engine engine
    cdef Record *records
    cdef uint32_t count
    cdef uint32_t open
    cdef uint64_t next_flow

    def __cinit__(self, Engine engine, list records, uint32_t open):
        self.engine = engine
        self.count = <uint32_t> len(records)
        self.open = open
        self.next_flow = 1
        self.records = <Record *> malloc(max(1, self.count) * sizeof(Record))
        if self.records == NULL:
            raise MemoryError
        for number, drained in enumerate(records):
            record_from_tuple(tuple(drained), &self.records[number])

    def __dealloc__(self):
        free(self.records)

    @property
    def lost(self):
        """Records that found no room in the ring."""
        cdef uint64_t lost = 0
        cdef int kind
        for kind in range(8):
            lost += self.engine.core.ring.lost[kind]
        return lost

    def push(self, uint64_t now):
        """Puts the records of ``open`` mails into the ring, in turns; returns their number. ``now``: nanoseconds."""
        cdef uint32_t step, flow
        cdef Ring *ring = &self.engine.core.ring
        with nogil:
            for step in range(self.count):
                for flow in range(self.open):
                    push_record(ring, &self.records[step], self.next_flow + flow, now + step)
            self.next_flow += self.open
        return self.open


cdef void push_record(Ring *ring, const Record *model, uint64_t flow, uint64_t now) noexcept nogil:
    cdef Identity identity = model.identity
    cdef Record *record
    identity.flow_id = flow
    identity.client_port = <unsigned short> (FIRST_PORT + flow % PORTS)
    identity.source = <unsigned short> (flow % CLIENTS)
    nm_put32(identity.client, <uint32_t> (FIRST_CLIENT + flow % CLIENTS))
    if model.kind == RECORD_FLOW:
        record = end_reserve(ring, &identity, True, now)
    else:
        record = record_reserve(ring, model.kind, &identity, now)
    if record == NULL:
        return
    # The fields that a core fills in; only as much of the text as is used.
    record.a, record.b, record.c, record.d, record.e = model.a, model.b, model.c, model.d, model.e
    if model.kind == RECORD_FLOW:
        record.a = now - 1000000000
    record.code, record.to_server, record.state, record.verb = model.code, model.to_server, model.state, model.verb
    record.finding, record.action, record.generation = model.finding, model.action, model.generation
    record.hypothetical, record.applied = model.hypothetical, model.applied
    record.before_length, record.after_length = model.before_length, model.after_length
    memcpy(record.text, model.text, <size_t> model.before_length + model.after_length)
    ring_push(ring)
