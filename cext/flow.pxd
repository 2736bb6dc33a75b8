# Flows: both directions of a connection, found by their addresses and ports.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from nfmailguard.cext.packet cimport Packet
from nfmailguard.cext.pool cimport Pool
from nfmailguard.cext.record cimport Identity
from nfmailguard.cext.smtp cimport Dialogue, Ruling, Session
from nfmailguard.cext.stream cimport Stream

cdef extern from "bytes.h" nogil:
    uint64_t nm_siphash(const uint64_t *key, const uint8_t *p, size_t length) noexcept
    void nm_prefetch(const void *p) noexcept

cdef enum:  # FlowAge: which time-out a flow is under; each has its list, oldest first
    AGE_EMBRYONIC = 0          # no data from either side yet
    AGE_OPEN = 1
    AGE_CLOSING = 2
    AGES = 3

cdef enum:  # FlowFate: what becomes of its packets
    FLOW_INSPECTED = 0
    FLOW_PASSED = 1            # not looked at any more
    FLOW_DROPPED = 2           # drop-connection
    FLOW_RESET = 3             # reset by us: whoever still sends is told again

# What every packet needs stands in front: a flow that has been idle costs a few cache lines to wake.
cdef struct Flow:
    Flow *bucket_next
    Identity identity
    uint8_t age                # FlowAge
    uint8_t fate               # FlowFate
    uint8_t end                # FlowEnd, as it would be reported now
    uint8_t closed             # both FINs seen, or a RST
    uint8_t syn_ack            # the server answered
    uint8_t answered           # and the client acknowledged that
    uint8_t other_syn_seen
    uint8_t fins               # of one that is passed: bits of the directions that have ended
    Stream stream[2]           # to the client, to the server
    Ruling *ruling
    Dialogue *dialogue         # NULL while nothing is being said
    Session session
    uint64_t octets[2]         # to the client, to the server
    uint32_t packets[2]        # 0xffffffff: so many or more
    uint32_t interface[2]
    uint32_t towards           # the interface the client's packets leave on, 0: not known
    uint32_t other_syn         # the sequence number of another SYN on an open flow
    uint64_t started           # nanoseconds
    uint64_t seen
    Flow *older
    Flow *newer

cdef enum:
    SOURCES = 4096             # counts of held packets, by the sender's address

cdef struct FlowTable:
    Flow **buckets
    Flow *oldest[AGES]
    Flow *newest[AGES]
    uint64_t key[2]
    uint64_t next_id
    uint32_t bucket_count      # a power of two
    uint32_t count
    uint32_t limit

cdef int flows_open(FlowTable *table, uint32_t limit, const uint8_t *key) noexcept nogil
cdef void flows_close(FlowTable *table) noexcept nogil
# Where the flow of `packet` is looked for when it goes to_server: never 0. Its line begins to be fetched.
cdef uint32_t flow_place(FlowTable *table, Packet *packet, bint to_server) noexcept nogil
# The flow at that place begins to be fetched.
cdef void flow_approach(FlowTable *table, uint32_t place) noexcept nogil
# The flow of `packet` when it goes to_server, or NULL.
cdef Flow *flow_find(FlowTable *table, Packet *packet, bint to_server) noexcept nogil
# A new flow, zeroed but for its identity, or NULL when the table is full or memory is out.
cdef Flow *flow_add(FlowTable *table, Pool *pool, Packet *packet, bint to_server, uint64_t now) noexcept nogil
cdef void flow_remove(FlowTable *table, Pool *pool, Flow *flow) noexcept nogil
cdef void flow_touch(FlowTable *table, Flow *flow, uint8_t age, uint64_t now) noexcept nogil
# A keyed hash of an address, of IPv6 of its /64.
cdef uint16_t source_at(FlowTable *table, const uint8_t *address, uint8_t family) noexcept nogil
# Where the held packets of the packet's sender are counted.
cdef uint16_t source_of(FlowTable *table, Packet *packet) noexcept nogil

# Whether the client has to wait for a reply.
cdef inline bint flow_waiting(const Flow *flow) noexcept nogil:
    return flow.dialogue != NULL and flow.dialogue.waiting
