# cython: language_level=3, cdivision=True
"""Segments before their turn, given to the room that has them wait: a flow of its own, and no packet path before it.

Does not know what is right.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from nfmailguard.cext.account cimport dialogue_of, settle
from nfmailguard.cext.core cimport Core
from nfmailguard.cext.early cimport too_early
from nfmailguard.cext.engine cimport Engine, Operation, Operations, operations_free, operations_reserve
from nfmailguard.cext.flow cimport Flow, flow_add
from nfmailguard.cext.packet cimport PARSED, Packet, QueuedPacket, packet_parse
from nfmailguard.cext.smtp cimport INPUT_DATA, session_open
from nfmailguard.cext.store cimport store_span
from nfmailguard.cext.stream cimport Ahead, Held, stream_ahead, stream_held

cdef enum:
    ROOM = 2048                # of operations
    SECOND = 1000000000


cdef class Waiting:
    """A flow whose next octet is behind that of the packet ``syn``; in message text, or before a command."""
    cdef readonly Engine engine
    cdef Core *core
    cdef Flow *flow
    cdef Operations out
    cdef list packets          # the queue's, until the engine is gone

    def __cinit__(self, Engine engine, bytes syn, bint text):
        cdef Packet packet
        cdef QueuedPacket queued
        cdef bytearray copy = bytearray(syn)
        self.engine = engine
        self.core = engine.core
        self.packets = []
        self.core.started = 1
        if operations_reserve(&self.out, ROOM) < 0:
            raise MemoryError
        self.read(copy, 0, &queued, &packet)
        self.flow = flow_add(&self.core.flows, &self.core.pool, &packet, True, SECOND)
        if self.flow == NULL:
            raise MemoryError
        self.flow.ruling = &self.core.rules[0].ruling
        session_open(&self.flow.session, &self.core.grammar)
        self.flow.syn_ack = self.flow.answered = self.flow.confirmed = 1
        self.flow.stream[1].next_seq = self.flow.stream[1].kept_seq = packet.seq + 1
        self.flow.stream[0].next_seq = self.flow.stream[0].kept_seq = packet.ack
        if text:
            dialogue_of(self.core, self.flow).input = INPUT_DATA
        settle(self.core, self.flow, SECOND)

    def __dealloc__(self):
        operations_free(&self.out)

    cdef void read(self, bytearray octets, uint64_t number, QueuedPacket *queued, Packet *packet) except *:
        memset(queued, 0, sizeof(QueuedPacket))
        queued.data = octets
        queued.captured = queued.length = <uint32_t> len(octets)
        queued.id = number
        assert packet_parse(packet, queued) == PARSED

    def give(self, bytes octets, uint64_t number, bint to_server=True):
        """(kind, id, octets) of each answer."""
        cdef QueuedPacket queued
        cdef Packet packet
        cdef bytearray copy = bytearray(octets)
        cdef Operation *operation
        cdef list told = []
        cdef uint32_t i
        self.packets.append(copy)
        self.read(copy, number, &queued, &packet)
        self.out.count = 0
        self.core.emitted_now = self.core.first_operation = 0
        too_early(self.core, self.flow, to_server, &packet, False, SECOND, &self.out)
        settle(self.core, self.flow, SECOND)
        for i in range(self.out.count):
            operation = &self.out.items[i]
            told.append((operation.kind, operation.id,
                         None if operation.data == NULL else (<const char *> operation.data)[:operation.length]))
        return told

    @property
    def fate(self):
        return self.flow.fate

    def ahead(self, bint to_server=True):
        """The octets that went ahead, by their place behind the SYN."""
        cdef Ahead *piece = stream_ahead(&self.flow.stream[to_server])
        cdef uint32_t at, one
        cdef dict found = {}
        while piece != NULL:
            for at in range(piece.octets.length):
                one = 1
                found[piece.seq + at - self.flow.stream[to_server].next_seq] = store_span(&piece.octets, at, &one)[0]
            piece = piece.next
        return found

    def held(self, bint to_server=True):
        """The ids of what is held, in its order."""
        cdef Held *held = stream_held(&self.flow.stream[to_server])
        cdef list found = []
        while held != NULL:
            found.append(held.queued.id)
            held = held.next
        return found
