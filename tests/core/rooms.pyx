# cython: language_level=3, cdivision=True
"""Rooms of the core as objects of Python, one by one, without an engine around them.

Promises: nothing of its own is decided here; what a room is given is a copy of the very length, so that a sanitizer
sees what it reads or writes beyond. Does not know what is right.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from nfmailguard.cext.drivers.netlink cimport (
    MESSAGE_BAD, MESSAGE_ERROR, MESSAGE_OTHER, MESSAGE_PACKET, VERDICT_FULL, VERDICT_PUT, VERDICT_TOO_LONG, Message,
    Verdicts, message_parse, verdict_put,
)
from nfmailguard.cext.wire.packet cimport PARSED, Packet, QueuedPacket, packet_parse
from nfmailguard.cext.memory.freelist cimport (
    FreeList as FreeListOfCore, freelist_alloc, freelist_close, freelist_free, freelist_open,
)
from nfmailguard.cext.memory.pool cimport PAGE_BYTES, Pool, memory_cost, pool_close, pool_give_flow, pool_take_flow
from nfmailguard.cext.memory.pagebuffer cimport (
    PageBuffer as BufferOfCore, pagebuffer_append, pagebuffer_compare, pagebuffer_drop, pagebuffer_span,
)
from nfmailguard.cext.tcp.stream cimport (
    MOST_EDITS, Held, OutOfOrder, Stream, held_free, stream_acknowledge, stream_buffer, stream_buffered,
    stream_close, stream_consume, stream_held, stream_hold, stream_holding, stream_is_empty, stream_keep,
    stream_note_edit, stream_overwrite_with_buffered, stream_overwrite_with_first_copy, stream_release,
)

PAGE = <int> PAGE_BYTES
EDITS = <int> MOST_EDITS


def cost(uint64_t size):
    return memory_cost(size)


cdef class Octets:
    """A copy in an allocation of the very length."""
    cdef uint8_t *at
    cdef uint32_t length

    def __cinit__(self, bytes data):
        self.length = <uint32_t> len(data)
        self.at = <uint8_t *> malloc(max(self.length, 1))
        if self.at == NULL:
            raise MemoryError
        memcpy(self.at, <const char *> data, self.length)

    def __dealloc__(self):
        free(self.at)

    cdef bytes now(self):
        return (<const char *> self.at)[:self.length]


cdef class Memory:
    """A pool of ``limit`` bytes, half of which may be the streams'."""
    cdef Pool pool

    def __cinit__(self, uint64_t limit):
        memset(&self.pool, 0, sizeof(Pool))
        self.pool.limit = limit

    def __dealloc__(self):
        pool_close(&self.pool)

    @property
    def used(self):
        return self.pool.used

    @property
    def spare(self):
        return self.pool.spare

    @property
    def acknowledged(self):
        return self.pool.taken

    def take_flow(self, uint64_t size):
        """The address of so much of the flows' memory, or None."""
        cdef void *memory = pool_take_flow(&self.pool, size)
        return None if memory == NULL else <uint64_t> memory

    def give_flow(self, uint64_t address, uint64_t size):
        pool_give_flow(&self.pool, <void *> address, size)

    def close(self):
        pool_close(&self.pool)


cdef class PageBuffer:
    cdef BufferOfCore buffer
    cdef readonly Memory memory

    def __cinit__(self, Memory memory):
        memset(&self.buffer, 0, sizeof(BufferOfCore))
        self.memory = memory

    def __len__(self):
        return self.buffer.length

    def append(self, bytes data, uint64_t have=0):
        cdef Octets copy = Octets(data)
        return pagebuffer_append(&self.buffer, &self.memory.pool, copy.at, copy.length, have) == 0

    def drop(self, uint32_t length):
        pagebuffer_drop(&self.buffer, &self.memory.pool, length)

    def span(self, uint32_t at, uint32_t length):
        cdef uint8_t *data = pagebuffer_span(&self.buffer, at, &length)
        return (<const char *> data)[:length]

    def compare(self, uint32_t at, bytes data, bint write):
        """What it said, and what became of the octets."""
        cdef Octets copy = Octets(data)
        cdef uint32_t differ = pagebuffer_compare(&self.buffer, at, copy.at, copy.length, write)
        return differ, copy.now()


cdef class FreeList:
    """Things of one size; each is known by its number."""
    cdef FreeListOfCore freelist
    cdef readonly Memory memory
    cdef readonly int size
    cdef dict things
    cdef int next_number

    def __cinit__(self, Memory memory, int size):
        self.memory = memory
        self.size = size
        self.things = {}
        freelist_open(&self.freelist, &memory.pool, size)

    def allocate(self):
        """A number, or None."""
        cdef void *thing = freelist_alloc(&self.freelist)
        if thing == NULL:
            return None
        self.next_number += 1
        self.things[self.next_number] = <uint64_t> thing
        return self.next_number

    def write(self, int number, bytes data):
        assert len(data) == self.size
        memcpy(<void *> <uint64_t> self.things[number], <const char *> data, self.size)

    def read(self, int number):
        return (<const char *> <uint64_t> self.things[number])[:self.size]

    def free(self, int number):
        freelist_free(&self.freelist, <void *> <uint64_t> self.things.pop(number))

    @property
    def spare(self):
        return self.freelist.count

    @property
    def allocated(self):
        return self.freelist.allocated

    def close(self):
        freelist_close(&self.freelist)


cdef class OneWay:
    """A stream of one direction."""
    cdef Stream stream
    cdef readonly Memory memory
    cdef dict waiting
    cdef int next_number

    def __cinit__(self, Memory memory, uint32_t seq):
        memset(&self.stream, 0, sizeof(Stream))
        self.stream.next_seq = self.stream.last_ack = seq
        self.memory = memory
        self.waiting = {}

    def close(self):
        for number in list(self.waiting):
            self.release(number)
        stream_close(&self.stream, &self.memory.pool)

    @property
    def next_seq(self):
        return self.stream.next_seq

    @property
    def last_ack(self):
        return self.stream.last_ack

    @property
    def decided(self):
        return self.stream.bytes

    @property
    def kept(self):
        return self.stream.unacked.length

    @property
    def is_empty(self):
        return bool(stream_is_empty(&self.stream))

    @property
    def edits(self):
        return self.stream.backlog.edit_count if self.stream.backlog != NULL else 0

    def keep(self, bytes original, bytes data):
        """What came is let through as ``octets``; whether there was memory to keep them."""
        cdef Octets before = Octets(original), after = Octets(data)
        stream_note_edit(&self.stream, &self.memory.pool, before.at, after.at, after.length)
        return stream_keep(&self.stream, &self.memory.pool, after.at, after.length) == 0

    def acknowledge(self, uint32_t ack):
        stream_acknowledge(&self.stream, &self.memory.pool, ack)

    def overwrite_with_first_copy(self, uint32_t seq, bytes data, bint write):
        """How many differed, whether they are a conflict, and what became of them."""
        cdef Octets copy = Octets(data)
        cdef bint conflict = False
        cdef uint32_t differ = stream_overwrite_with_first_copy(&self.stream, seq, copy.at, copy.length, write,
                                                                &conflict)
        return differ, bool(conflict), copy.now()

    def forward_out_of_order(self, uint32_t seq, bytes data):
        cdef Octets copy = Octets(data)
        return stream_buffer(&self.stream, &self.memory.pool, seq, copy.at, copy.length) == 0

    def overwrite_with_buffered(self, uint32_t seq, bytes data, bint write):
        cdef Octets copy = Octets(data)
        cdef uint32_t differ = stream_overwrite_with_buffered(&self.stream, seq, copy.at, copy.length, write)
        return differ, copy.now()

    def consume(self, uint32_t length):
        stream_consume(&self.stream, &self.memory.pool, length)

    def ahead(self):
        """What went ahead: (seq, octets) of each piece."""
        cdef OutOfOrder *piece = stream_buffered(&self.stream)
        cdef uint32_t at, part
        cdef uint8_t *data
        cdef list pieces = []
        cdef bytes whole
        while piece != NULL:
            whole = b""
            at = 0
            while at < piece.data.length:
                part = piece.data.length - at
                data = pagebuffer_span(&piece.data, at, &part)
                whole += (<const char *> data)[:part]
                at += part
            pieces.append((piece.seq, whole))
            piece = piece.next
        assert len(pieces) == (self.stream.backlog.buffered_count if self.stream.backlog != NULL else 0)
        return pieces

    def hold(self, bytes packet, uint64_t now=0):
        """The number of what waits, or None without memory."""
        cdef Octets copy = Octets(packet)
        cdef QueuedPacket queued
        cdef Packet parsed
        cdef Held *held
        memset(&queued, 0, sizeof(QueuedPacket))
        queued.data = copy.at
        queued.captured = queued.length = copy.length
        assert packet_parse(&parsed, &queued) == PARSED
        held = stream_hold(&self.stream, &self.memory.pool, &parsed, now)
        if held == NULL:
            return None
        self.next_number += 1
        self.waiting[self.next_number] = <uint64_t> held
        return self.next_number

    cdef int number_of(self, Held *held):
        for number, address in self.waiting.items():
            if address == <uint64_t> held:
                return number
        raise AssertionError("it was never held, or is released")

    def holding(self, uint32_t seq, uint32_t length):
        cdef Held *held = stream_holding(&self.stream, seq, length)
        return None if held == NULL else self.number_of(held)

    def held(self):
        """What waits, in its order: (number, seq, packet)."""
        cdef Held *held = stream_held(&self.stream)
        cdef list found = []
        while held != NULL:
            found.append((self.number_of(held), held.seq, (<const char *> held.queued.data)[:held.size]))
            held = held.next
        assert len(found) == (self.stream.backlog.held_count if self.stream.backlog != NULL else 0)
        return found

    def release(self, int number):
        cdef Held *held = <Held *> <uint64_t> self.waiting.pop(number)
        stream_release(&self.stream, &self.memory.pool, held)
        held_free(&self.memory.pool, held)


KINDS = {MESSAGE_PACKET: "packet", MESSAGE_ERROR: "error", MESSAGE_OTHER: "other", MESSAGE_BAD: "bad"}


def read_message(bytes datagram):
    """The first message: how many octets it took, its kind, and its fields."""
    cdef Octets copy = Octets(datagram)
    cdef Message message
    cdef uint32_t taken = message_parse(copy.at, copy.length, &message)
    fields = {}
    if message.kind == MESSAGE_PACKET:
        assert copy.at <= message.packet.data <= copy.at + copy.length
        assert message.packet.captured <= <uint64_t> (copy.at + copy.length - message.packet.data)
        fields = {
            "id": message.packet.id,
            "queue": message.queue,
            "in": message.packet.in_interface,
            "out": message.packet.out_interface,
            "flags": message.packet.flags,
            "mark": message.mark,
            "length": message.packet.length,
            "payload": (<const char *> message.packet.data)[:message.packet.captured],
        }
    elif message.kind == MESSAGE_ERROR:
        fields = {"error": message.error}
    return taken, KINDS[message.kind], fields


PUTS = {VERDICT_PUT: "put", VERDICT_FULL: "full", VERDICT_TOO_LONG: "too long"}


def write_verdicts(uint32_t room, list wanted, uint16_t queue=0):
    """What became of each (id, verdict, payload or None, mark), and what stands in a buffer of ``room`` octets."""
    cdef Octets buffer = Octets(b"\xee" * room)
    cdef Octets copy
    cdef Verdicts verdicts
    cdef uint32_t value
    verdicts.data = buffer.at
    verdicts.used = verdicts.count = 0
    verdicts.size = room
    verdicts.queue = queue
    recorded = []
    for number, verdict, payload, mark in wanted:
        copy = Octets(payload or b"")
        value = mark or 0
        recorded.append(PUTS[verdict_put(&verdicts, number, verdict, NULL if payload is None else copy.at, copy.length,
                                         &value if value else NULL)])
    assert verdicts.count == recorded.count("put")
    assert buffer.now()[verdicts.used:] == b"\xee" * (room - verdicts.used)
    return recorded, buffer.now()[:verdicts.used]
