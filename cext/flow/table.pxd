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

cdef enum:  # FlowState: which timeout a flow is under; each state has a list of its flows, oldest first
    FLOW_EMBRYONIC = 0          # the client has not answered the server's SYN+ACK yet
    FLOW_UNCONFIRMED = 1        # the client has answered; nothing from the server shows that it has the connection
    FLOW_ONE_SIDED = 2          # the flow's beginning was not seen, nor any packet from the other side since
    FLOW_GREETED = 3            # the server has the connection; none of the client's commands has been accepted
    FLOW_ESTABLISHED = 4
    FLOW_CLOSING = 5
    FLOW_STATES = 6

cdef enum:  # FlowMode: what happens to the flow's packets
    FLOW_INSPECTED = 0
    FLOW_BYPASSED = 1            # the flow's packets pass without inspection
    FLOW_DROPPED = 2           # the flow's packets are dropped (action drop-connection)
    FLOW_RESET = 3             # the gateway has reset the flow: a side that still sends gets another RST

cdef enum:  # Handshake: bits of Flow.handshake
    SERVER_ANSWERED = 1        # the server's SYN+ACK was seen
    CLIENT_ANSWERED = 2        # the client has acknowledged the server's SYN+ACK
    CONFIRMED = 4              # the server has sent data, or acknowledged the client's: it has the connection
    OTHER_SYN_SEEN = 8         # another SYN has passed while the flow was open, in a mode that may not drop it

# A flow. Fields that every packet needs come first: waking a flow that has been idle costs only a few cache lines.
cdef struct Flow:
    Flow *bucket_next
    Identity identity
    uint8_t state              # FlowState: how far the connection has come, and which timeout applies
    uint8_t mode               # FlowMode: what happens to the flow's packets
    uint8_t end                # FlowEnd to be reported if the flow ended now; END_FIN or END_RST: it is closed
    uint8_t handshake          # how far the TCP handshake has come, as Handshake bits
    uint32_t connection        # number of the flow's conntrack entry, as in QueuedPacket.connection
    Stream stream[2]           # the two directions of the flow: [0] to the client, [1] to the server
    CompiledPolicy *policy
    Dialogue *dialogue         # the SMTP dialogue; NULL while nothing of it is in progress
    Session session
    uint64_t bytes[2]          # bytes of the flow's packets: [0] to the client, [1] to the server
    uint32_t packets[2]        # packets of the flow in each direction; 0xffffffff: that many or more
    uint32_t interface[2]
    uint32_t server_interface  # interface on which the client's packets leave; 0: not known
    uint32_t mix               # a keyed hash of the flow's addresses and ports
    uint64_t started           # nanoseconds: time of the flow's first packet, or of the server's SYN+ACK
    uint64_t seen
    Flow *older
    Flow *newer

cdef struct FlowTable:
    Flow **buckets
    Flow *oldest[FLOW_STATES]
    Flow *newest[FLOW_STATES]
    uint32_t state_counts[FLOW_STATES]        # number of flows in each state
    Shares shares
    uint64_t key[2]
    uint64_t next_id
    uint32_t bucket_count      # number of hash buckets, a power of two
    uint32_t count
    uint32_t limit
    uint32_t opened            # flows that are counted for their source's share
    uint32_t source_limit      # flows a source may have; 0: as many as it leaves free for others

# Whether both sides' SYNs offered the option (RFC 7323 1.3, RFC 2018 2).
cdef inline bint agreed(const Flow *flow, uint8_t option) noexcept nogil:
    return flow.stream[0].offers & flow.stream[1].offers & option != 0

# Counts a flow in the generation of its policy; flow_ends takes a flow out of that count.
cdef inline void flow_begins(Flow *flow) noexcept nogil:
    nm_store_flows(flow.policy.flows, flow.policy.flows[0] + 1)

cdef inline void flow_ends(Flow *flow) noexcept nogil:
    nm_store_flows(flow.policy.flows, flow.policy.flows[0] - 1)

cdef int flows_open(FlowTable *table, uint32_t limit, const uint8_t *key) noexcept nogil
cdef void flows_close(FlowTable *table) noexcept nogil
# The bucket, plus 1, in which the packet's flow is looked up, given the packet's direction. Prefetches the bucket.
cdef uint32_t flow_bucket(FlowTable *table, Packet *packet, bint to_server) noexcept nogil
# Prefetches the first flow of the bucket that flow_bucket returned.
cdef void flow_prefetch(FlowTable *table, uint32_t place) noexcept nogil
# The flow that a packet belongs to, given the packet's direction, or NULL.
cdef Flow *flow_find(FlowTable *table, Packet *packet, bint to_server) noexcept nogil
# Adds a flow, zeroed except for its identity; NULL if the table is full or memory is used up.
cdef Flow *flow_add(FlowTable *table, Pool *pool, Packet *packet, bint to_server, uint64_t now) noexcept nogil
cdef void flow_remove(FlowTable *table, Pool *pool, Flow *flow) noexcept nogil
# Adds a flow that was saved and loaded again, complete except for its links: it is counted, and becomes the youngest of
# its state. False if the table has a flow with its addresses and ports.
cdef bint flow_restore(FlowTable *table, Flow *flow) noexcept nogil
# The flow with the addresses and ports of `identity`, or NULL.
cdef Flow *flow_named(FlowTable *table, const Identity *identity) noexcept nogil
cdef void flow_touch(FlowTable *table, Flow *flow, uint8_t state, uint64_t now) noexcept nogil
# The flow that gives way to a new one in a full table, or NULL; `ended`: only a flow that has ended may.
cdef Flow *flow_gives_way(FlowTable *table, bint ended) noexcept nogil
# The flow that gives way, in a full table, to one that was open before the gateway started, or NULL.
cdef Flow *unknown_flow_gives_way(FlowTable *table) noexcept nogil
# Whether the client's source may open one more flow.
cdef bint flow_has_share(FlowTable *table, const Identity *identity) noexcept nogil
# Fills in the identity of the packet's flow, as far as flow_has_share needs it.
cdef void flow_client(Packet *packet, bint to_server, Identity *identity) noexcept nogil

cdef inline Source flow_source(const FlowTable *table, const Flow *flow) noexcept nogil:
    return source_of(&table.shares, flow.identity.family, flow.identity.client)

# Whether both FINs, or a RST, have been seen.
cdef inline bint flow_closed(const Flow *flow) noexcept nogil:
    return flow.end == END_FIN or flow.end == END_RST

# Puts the flow under a rule of its generation, given by its index.
cdef inline void flow_take_rule(Flow *flow, uint8_t rule) noexcept nogil:
    flow.identity.rule = rule

# A keyed hash of an IPv4 address, or of the /64 network of an IPv6 address.
cdef uint16_t source_at(FlowTable *table, const uint8_t *address, uint8_t family) noexcept nogil

# Whether the flow's client has to wait for a reply.
cdef inline bint flow_waiting(const Flow *flow) noexcept nogil:
    return flow.dialogue != NULL and flow.dialogue.exchange.waiting
