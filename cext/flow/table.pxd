# Flows: both directions of a connection, found by their addresses and ports.
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.flow.sources cimport Shares, Source, source_of
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.policy.ruling cimport CompiledPolicy
from nfmailguard.cext.record cimport END_FIN, END_RST, Identity
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.session cimport Session
from nfmailguard.cext.tcp.stream cimport SYN_SEEN, Stream
from nfmailguard.cext.wire.packet cimport Packet

cdef extern from "bytes.h" nogil:
    uint64_t nm_siphash(const uint64_t *key, const uint8_t *p, size_t length) noexcept
    void nm_prefetch(const void *p) noexcept

cdef extern from "atomic.h":
    void nm_store_flows "nm_store_release"(uint32_t *p, uint32_t v) noexcept nogil

cdef enum:  # FlowState: which time-out a flow is under; each has its list, oldest first
    FLOW_EMBRYONIC = 0          # the client has not answered the server yet
    FLOW_UNCONFIRMED = 1        # it says so; of the server nothing shows that it has the connection
    FLOW_ONE_SIDED = 2          # its beginning was not seen, and nothing from the other side since
    FLOW_GREETED = 3            # it has; none of the client's commands has been accepted
    FLOW_ESTABLISHED = 4
    FLOW_CLOSING = 5
    FLOW_STATES = 6

cdef enum:  # FlowMode: what becomes of its packets
    FLOW_INSPECTED = 0
    FLOW_BYPASSED = 1            # not looked at any more
    FLOW_DROPPED = 2           # drop-connection
    FLOW_RESET = 3             # reset by us: whoever still sends is told again

cdef enum:  # Handshake: bits of Flow.handshake
    SERVER_ANSWERED = 1        # its SYN+ACK was seen
    CLIENT_ANSWERED = 2        # and the client acknowledged it
    CONFIRMED = 4              # the server has spoken, or acknowledged bytes of the client's: it has the connection
    OTHER_SYN_SEEN = 8         # a SYN has gone by since it is open, where nothing may be changed

# What every packet needs stands in front: a flow that has been idle costs a few cache lines to wake.
cdef struct Flow:
    Flow *bucket_next
    Identity identity
    uint8_t state              # FlowState
    uint8_t mode               # FlowMode
    uint8_t end                # FlowEnd, as it would be reported now: END_FIN and END_RST close
    uint8_t handshake          # Handshake
    uint32_t connection        # QueuedPacket.connection of its packets
    Stream stream[2]           # to the client, to the server
    CompiledPolicy *policy
    Dialogue *dialogue         # NULL while nothing is being said
    Session session
    uint64_t bytes[2]          # to the client, to the server
    uint32_t packets[2]        # 0xffffffff: so many or more
    uint32_t interface[2]
    uint32_t server_interface  # the interface the client's packets leave on, 0: not known
    uint32_t mix               # a keyed hash of its addresses and ports
    uint64_t started           # nanoseconds
    uint64_t seen
    Flow *older
    Flow *newer

cdef struct FlowTable:
    Flow **buckets
    Flow *oldest[FLOW_STATES]
    Flow *newest[FLOW_STATES]
    uint32_t state_counts[FLOW_STATES]        # how many of each
    Shares shares
    uint64_t key[2]
    uint64_t next_id
    uint32_t bucket_count      # a power of two
    uint32_t count
    uint32_t limit
    uint32_t opened            # those a source is counted for
    uint32_t source_limit      # of one source; 0: as many as it leaves free

# What both SYNs offered (RFC 7323 1.3, RFC 2018 2).
cdef inline bint agreed(const Flow *flow, uint8_t option) noexcept nogil:
    return flow.stream[0].offers & flow.stream[1].offers & option != 0

# Of a flow that has its policy, and of one that is to lose it: its generation has one more, one less.
cdef inline void flow_begins(Flow *flow) noexcept nogil:
    nm_store_flows(flow.policy.flows, flow.policy.flows[0] + 1)

cdef inline void flow_ends(Flow *flow) noexcept nogil:
    nm_store_flows(flow.policy.flows, flow.policy.flows[0] - 1)

cdef int flows_open(FlowTable *table, uint32_t limit, const uint8_t *key) noexcept nogil
cdef void flows_close(FlowTable *table) noexcept nogil
# Where the flow of `packet` is looked for when it goes to_server: never 0. Its line begins to be fetched.
cdef uint32_t flow_bucket(FlowTable *table, Packet *packet, bint to_server) noexcept nogil
# The flow at that place begins to be fetched.
cdef void flow_prefetch(FlowTable *table, uint32_t place) noexcept nogil
# The flow of `packet` when it goes to_server, or NULL.
cdef Flow *flow_find(FlowTable *table, Packet *packet, bint to_server) noexcept nogil
# A new flow, zeroed but for its identity, or NULL when the table is full or memory is out.
cdef Flow *flow_add(FlowTable *table, Pool *pool, Packet *packet, bint to_server, uint64_t now) noexcept nogil
cdef void flow_remove(FlowTable *table, Pool *pool, Flow *flow) noexcept nogil
# A flow that has been written down and read again, whole but for its place: in its table, and counted, as the youngest
# of its state. False where there is one of its addresses and ports.
cdef bint flow_restore(FlowTable *table, Flow *flow) noexcept nogil
# The flow with the addresses and ports of `identity`, or NULL.
cdef Flow *flow_named(FlowTable *table, const Identity *identity) noexcept nogil
cdef void flow_touch(FlowTable *table, Flow *flow, uint8_t state, uint64_t now) noexcept nogil
# Of a full table the flow that gives way to another, or NULL; `ended`: only one that has ended.
cdef Flow *flow_gives_way(FlowTable *table, bint ended) noexcept nogil
# Of a full table the flow that gives way to one that was open before us too, or NULL.
cdef Flow *unknown_flow_gives_way(FlowTable *table) noexcept nogil
# Whether one more flow of the client's source may open.
cdef bint flow_has_share(FlowTable *table, const Identity *identity) noexcept nogil
# The client of the packet's flow alone, as flow_has_share reads it.
cdef void flow_client(Packet *packet, bint to_server, Identity *identity) noexcept nogil

cdef inline Source flow_source(const FlowTable *table, const Flow *flow) noexcept nogil:
    return source_of(&table.shares, flow.identity.family, flow.identity.client)

# Both FINs have been seen, or a RST.
cdef inline bint flow_closed(const Flow *flow) noexcept nogil:
    return flow.end == END_FIN or flow.end == END_RST

# It comes under this rule of its generation.
cdef inline void flow_take_rule(Flow *flow, uint8_t rule) noexcept nogil:
    flow.identity.rule = rule

# A keyed hash of an address, of IPv6 of its /64.
cdef uint16_t source_at(FlowTable *table, const uint8_t *address, uint8_t family) noexcept nogil

# Whether the client has to wait for a reply.
cdef inline bint flow_waiting(const Flow *flow) noexcept nogil:
    return flow.dialogue != NULL and flow.dialogue.exchange.waiting
