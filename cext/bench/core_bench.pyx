# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Runs packets from memory through a core and times it: the cost of deciding, without kernel, file or Python object.

Promises: each packet is copied to memory that the core may edit, as a queue does; the time
reported is that of the whole loop, copies included. Does not know what the packets say.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.engine cimport Engine
from nfmailguard.cext.operation cimport OP_DROP, OP_EMIT, OP_REPLACE, Operations, operations_clear, operations_free
from nfmailguard.cext.process cimport (
    core_expire, core_next_deadline, core_prefetch_bucket, core_prefetch_flow, core_process,
)
from nfmailguard.cext.wire.packet cimport QueuedPacket, nm_get16, nm_put16, nm_put32

cdef enum:
    SLOTS = 64                         # packets in a batch: as many as one receive from a queue returns
    SLOT = 66624
    FORESIGHT = 8                      # packets ahead that memory is prefetched for, as in the driver's loop
    PORTS = 50000                      # ports used for one client address
    FIRST_PORT = 1024
    FIRST_CLIENT = 0x0b000000          # first client address: 11.0.0.0

cdef struct Stored:
    uint8_t *data
    uint32_t length
    uint32_t to_server


cdef inline uint64_t monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1000000000 + <uint64_t> now.tv_nsec


cdef inline void add_to_sum(uint8_t *sum_at, uint32_t value) noexcept nogil:
    # Adds a value to a checksum whose field for the value held zeros (RFC 1624 3).
    cdef uint32_t sum = (~nm_get16(sum_at) & 0xffff) + (value >> 16) + (value & 0xffff)
    sum = (sum & 0xffff) + (sum >> 16)
    sum = (sum & 0xffff) + (sum >> 16)
    nm_put16(sum_at, <unsigned short> ~sum)


cdef class Drill:
    """``packets``: tuples (bytes from the IP header on, goes to the server), in order; ``engine`` None: only copies.

    ``counts`` has the core's results: packets, replaced, dropped, emitted.
    """

    cdef Engine engine
    cdef Core *core
    cdef Stored *stored
    cdef uint8_t *data
    cdef uint8_t *slots
    cdef uint32_t count
    cdef Operations operations
    cdef QueuedPacket batch[SLOTS]
    cdef uint32_t waiting
    cdef uint64_t now
    cdef uint64_t packets
    cdef uint64_t replaced
    cdef uint64_t dropped
    cdef uint64_t emitted

    def __cinit__(self, Engine engine, list packets):
        cdef uint64_t size = sum([len(packet) for packet, _ in packets]), at = 0
        cdef bytes packet
        self.engine = engine
        self.core = NULL if engine is None else engine.core
        self.count = <uint32_t> len(packets)
        self.stored = <Stored *> malloc(max(1, self.count) * sizeof(Stored))
        self.data = <uint8_t *> malloc(max(1, size))
        self.slots = <uint8_t *> malloc(SLOTS * SLOT)
        self.now = 1000000000
        if self.stored == NULL or self.data == NULL or self.slots == NULL:
            raise MemoryError
        for i, (packet, to_server) in enumerate(packets):
            if len(packet) > SLOT:
                raise ValueError("a packet is longer than any queue hands over")
            self.stored[i].data = self.data + at
            self.stored[i].length = <uint32_t> len(packet)
            self.stored[i].to_server = bool(to_server)
            memcpy(self.data + at, <const uint8_t *> packet, len(packet))
            at += len(packet)

    def __dealloc__(self):
        free(self.stored)
        free(self.data)
        free(self.slots)
        operations_free(&self.operations)

    @property
    def counts(self):
        return {"packets": self.packets, "replaced": self.replaced, "dropped": self.dropped, "emitted": self.emitted}

    def run(self, uint32_t first, uint32_t last):
        """Runs the packets from ``first`` up to, not including, ``last``; returns the nanoseconds it took."""
        cdef uint64_t begun
        cdef uint32_t i
        with nogil:
            begun = monotonic()
            for i in range(first, min(last, self.count)):
                self.receive(&self.stored[i])
            self.work()
            begun = monotonic() - begun
        return begun

    def spread(self, uint32_t flows, uint32_t block):
        """Runs each packet on each of ``flows`` flows, in an order without neighbouring flows; returns the nanoseconds.

        ``block`` flows at a time go through all packets, so that many are in the same dialogue at once. The
        packets are IPv4 with client address 0.0.0.0 and port 0, which are replaced by each flow's own.
        """
        cdef uint64_t begun
        cdef uint32_t i, turn, flow, last, first = 0, mask = 1
        while mask < flows:
            mask *= 2
        mask -= 1
        block = max(1, block)
        with nogil:
            begun = monotonic()
            while first <= mask:
                last = min(first + block, mask + 1)
                for i in range(self.count):
                    for turn in range(first, last):
                        flow = (turn * 0x9e3779b1u + 12345) & mask     # the factor is odd: each flow comes up once
                        if flow >= flows:
                            continue
                        self.address(self.receive(&self.stored[i]), self.stored[i].to_server, flow)
                first = last
            self.work()
            begun = monotonic() - begun
        return begun

    cdef void address(self, uint8_t *packet, bint to_server, uint32_t flow) noexcept nogil:
        cdef uint32_t client = FIRST_CLIENT + flow // PORTS, port = FIRST_PORT + flow % PORTS
        nm_put32(packet + (12 if to_server else 16), client)
        nm_put16(packet + (20 if to_server else 22), <unsigned short> port)
        add_to_sum(packet + 10, client)
        add_to_sum(packet + 36, client)
        add_to_sum(packet + 36, port)

    cdef uint8_t *receive(self, Stored *stored) noexcept nogil:
        """Copies a packet into the batch; a full batch is processed first."""
        cdef QueuedPacket *packet
        if self.waiting == SLOTS:
            self.work()
        packet = &self.batch[self.waiting]
        packet.data = self.slots + self.waiting * SLOT
        self.waiting += 1
        self.packets += 1
        memcpy(packet.data, stored.data, stored.length)
        packet.id = self.packets
        packet.captured = packet.length = stored.length
        packet.in_interface = 1 if stored.to_server else 2
        packet.out_interface = 2 if stored.to_server else 1
        packet.place = packet.connection = 0
        return packet.data

    cdef void work(self) noexcept nogil:
        """Processes the batch as the driver's loop does."""
        cdef uint32_t i
        if self.core != NULL:
            for i in range(min(self.waiting, FORESIGHT)):
                core_prefetch_bucket(self.core, &self.batch[i])
            for i in range(self.waiting):
                if i + FORESIGHT < self.waiting:
                    core_prefetch_bucket(self.core, &self.batch[i + FORESIGHT])
                if i + FORESIGHT // 2 < self.waiting:
                    core_prefetch_flow(self.core, &self.batch[i + FORESIGHT // 2])
                self.decide(&self.batch[i])
        self.waiting = 0

    cdef void decide(self, QueuedPacket *packet) noexcept nogil:
        cdef uint32_t i
        self.now += 1000
        operations_clear(&self.operations)
        if core_next_deadline(self.core) <= self.now:
            core_expire(self.core, self.now, &self.operations)
        core_process(self.core, packet, self.now, &self.operations)
        for i in range(self.operations.count):
            self.replaced += self.operations.items[i].kind == OP_REPLACE
            self.dropped += self.operations.items[i].kind == OP_DROP
            self.emitted += self.operations.items[i].kind == OP_EMIT
