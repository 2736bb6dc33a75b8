# cython: language_level=3, cdivision=True
"""Segments before their turn, given to the room that has them wait: a flow of its own, and no packet path before it.

Does not know what is right.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from nfmailguard.cext.memory.accounting cimport charge, dialogue_of
from nfmailguard.cext.core cimport Core
from nfmailguard.cext.tcp.reorder cimport handle_out_of_order
from nfmailguard.cext.engine cimport Engine
from nfmailguard.cext.operation cimport Operation, Operations, operations_free, operations_reserve
from nfmailguard.cext.flow.table cimport (
    CLIENT_ANSWERED, CONFIRMED, SERVER_ANSWERED, Flow, flow_add, flow_begins,
)
from nfmailguard.cext.wire.packet cimport PARSED, Packet, QueuedPacket, packet_parse
from nfmailguard.cext.smtp.session cimport session_open
from nfmailguard.cext.smtp.grammar cimport INPUT_DATA
from nfmailguard.cext.memory.pagebuffer cimport pagebuffer_span
from nfmailguard.cext.tcp.stream cimport Held, OutOfOrder, stream_buffered, stream_held

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
        self.flow.policy = &self.core.generation.rules[0].policy
        flow_begins(self.flow)
        session_open(&self.flow.session, self.flow.policy.grammar)
        self.flow.handshake = SERVER_ANSWERED | CLIENT_ANSWERED | CONFIRMED
        self.flow.stream[1].next_seq = self.flow.stream[1].last_ack = packet.seq + 1
        self.flow.stream[0].next_seq = self.flow.stream[0].last_ack = packet.ack
        if text:
            dialogue_of(self.core, self.flow).exchange.input = INPUT_DATA
        charge(self.core, self.flow, SECOND)

    def __dealloc__(self):
        operations_free(&self.out)

    cdef void read(self, bytearray data, uint64_t number, QueuedPacket *queued, Packet *packet) except *:
        memset(queued, 0, sizeof(QueuedPacket))
        queued.data = data
        queued.captured = queued.length = <uint32_t> len(data)
        queued.id = number
        assert packet_parse(packet, queued) == PARSED

    def give(self, bytes data, uint64_t number, bint to_server=True):
        """(kind, id, octets) of each answer."""
        cdef QueuedPacket queued
        cdef Packet packet
        cdef bytearray copy = bytearray(data)
        cdef Operation *operation
        cdef list recorded = []
        cdef uint32_t i
        self.packets.append(copy)
        self.read(copy, number, &queued, &packet)
        self.out.count = 0
        self.core.emitted_now = self.core.first_of_call = 0
        handle_out_of_order(self.core, self.flow, to_server, &packet, False, SECOND, &self.out)
        charge(self.core, self.flow, SECOND)
        for i in range(self.out.count):
            operation = &self.out.items[i]
            recorded.append((operation.kind, operation.id,
                             None if operation.data == NULL else (<const char *> operation.data)[:operation.length]))
        return recorded

    @property
    def mode(self):
        return self.flow.mode

    def ahead(self, bint to_server=True):
        """The octets that went ahead, by their place behind the SYN."""
        cdef OutOfOrder *piece = stream_buffered(&self.flow.stream[to_server])
        cdef uint32_t at, one
        cdef dict found = {}
        while piece != NULL:
            for at in range(piece.data.length):
                one = 1
                found[piece.seq + at - self.flow.stream[to_server].next_seq] = pagebuffer_span(&piece.data, at, &one)[0]
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
