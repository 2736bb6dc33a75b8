# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The flow table: a keyed hash, a list of flows for each state, a cap, and a share for each source.

Keeps invariant 6 (bounded): there are no more flows than the limit, no peer can fill one bucket (the hash is keyed),
the work for a packet does not grow with the table, and no few sources leave no room for others (Choudhury and Hahne
1998, as in the memory pool). Does not know what a flow's streams or dialogue mean.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from nfmailguard.cext.flow.sources cimport add_flows, flows_of, shares_close, shares_open
from nfmailguard.cext.memory.pool cimport pool_give_flow, pool_take_flow

cdef enum:
    LISTED_LATE = 1000000000   # nanoseconds: a flow moves to the young end of its list at most once a second
    LEFT_TO_THE_YOUNG = 8      # 1/8 of the table is kept for each early flow state: embryonic, unconfirmed, one-sided
    MOST_CROWDED = 4096        # a source is never refused 1/4096 of the table


cdef int flows_open(FlowTable *table, uint32_t limit, const uint8_t *key) noexcept nogil:
    """``key``: 16 random bytes. Returns -1 without memory."""
    cdef uint32_t buckets = 1024
    while buckets < limit:
        buckets *= 2
    memset(table, 0, sizeof(FlowTable))
    memcpy(table.key, key, 16)
    table.buckets = <Flow **> calloc(buckets, sizeof(Flow *))
    table.bucket_count = buckets
    table.limit = limit
    return 0 if table.buckets != NULL and shares_open(&table.shares, key) == 0 else -1


cdef void flows_close(FlowTable *table) noexcept nogil:
    """Frees the table; its flows must have been removed before."""
    free(table.buckets)
    table.buckets = NULL
    shares_close(&table.shares)


cdef inline void identify(Packet *packet, bint to_server, Identity *identity) noexcept nogil:
    cdef uint32_t size = 4 if packet.family == 4 else 16
    memset(identity, 0, sizeof(Identity))
    identity.family = packet.family
    memcpy(identity.client, packet.source if to_server else packet.destination, size)
    memcpy(identity.server, packet.destination if to_server else packet.source, size)
    identity.client_port = packet.source_port if to_server else packet.destination_port
    identity.server_port = packet.destination_port if to_server else packet.source_port


cdef inline uint64_t hash_of(FlowTable *table, const Identity *identity) noexcept nogil:
    cdef uint8_t data[40]
    if identity.family == 4:   # no more than it has: two words in place of five; the length tells the families apart
        memcpy(data, identity.client, 4)
        memcpy(data + 4, identity.server, 4)
        memcpy(data + 8, &identity.client_port, 2)
        memcpy(data + 10, &identity.server_port, 2)
        memset(data + 12, 0, 4)
        return nm_siphash(table.key, data, 16)
    memcpy(data, identity.client, 16)
    memcpy(data + 16, identity.server, 16)
    memcpy(data + 32, &identity.client_port, 2)
    memcpy(data + 34, &identity.server_port, 2)
    memset(data + 36, 0, 4)
    return nm_siphash(table.key, data, 40)


cdef inline uint32_t bucket_of(FlowTable *table, const Identity *identity) noexcept nogil:
    return <uint32_t> (hash_of(table, identity) & (table.bucket_count - 1))


cdef inline bint same(const Identity *a, const Identity *b) noexcept nogil:
    return (a.client_port == b.client_port and a.server_port == b.server_port and a.family == b.family
            and memcmp(a.client, b.client, 16) == 0 and memcmp(a.server, b.server, 16) == 0)


cdef uint32_t flow_bucket(FlowTable *table, Packet *packet, bint to_server) noexcept nogil:
    cdef Identity identity
    cdef uint32_t bucket
    identify(packet, to_server, &identity)
    bucket = bucket_of(table, &identity)
    nm_prefetch(&table.buckets[bucket])
    return bucket + 1


cdef void flow_prefetch(FlowTable *table, uint32_t place) noexcept nogil:
    cdef const uint8_t *flow = <const uint8_t *> table.buckets[place - 1]
    cdef uint32_t at
    if flow != NULL:
        for at in range(0, sizeof(Flow), 64):
            nm_prefetch(flow + at)


cdef Flow *flow_find(FlowTable *table, Packet *packet, bint to_server) noexcept nogil:
    cdef Identity identity
    cdef Flow *flow
    identify(packet, to_server, &identity)
    flow = table.buckets[packet.queued.place - 1 if packet.queued.place else bucket_of(table, &identity)]
    while flow != NULL and not same(&flow.identity, &identity):
        flow = flow.bucket_next
    return flow


cdef inline void unlist(FlowTable *table, Flow *flow) noexcept nogil:
    if flow.older != NULL:
        flow.older.newer = flow.newer
    else:
        table.oldest[flow.state] = flow.newer
    if flow.newer != NULL:
        flow.newer.older = flow.older
    else:
        table.newest[flow.state] = flow.older
    flow.older = flow.newer = NULL
    table.state_counts[flow.state] -= 1


cdef inline void enlist(FlowTable *table, Flow *flow) noexcept nogil:
    flow.older = table.newest[flow.state]
    flow.newer = NULL
    if flow.older != NULL:
        flow.older.newer = flow
    else:
        table.oldest[flow.state] = flow
    table.newest[flow.state] = flow
    table.state_counts[flow.state] += 1


cdef inline bint counts(const Flow *flow, uint8_t state) noexcept nogil:
    # A client that has answered a server really has its address; the address in a SYN, or in a packet of a flow that
    # was open before the gateway started, may be forged.
    return FLOW_EMBRYONIC < state < FLOW_CLOSING and flow.stream[1].facts & SYN_SEEN


cdef void count_flow(FlowTable *table, Flow *flow, uint8_t state) noexcept nogil:
    """Counts the flow for its source, or no longer counts it, as the flow changes to ``state``."""
    cdef bint before = counts(flow, flow.state), after = counts(flow, state)
    if before != after:
        table.opened += 1 if after else <uint32_t> -1
        add_flows(&table.shares, flow_source(table, flow), 1 if after else <uint32_t> -1)


cdef Flow *flow_add(FlowTable *table, Pool *pool, Packet *packet, bint to_server, uint64_t now) noexcept nogil:
    cdef Flow *flow
    cdef uint64_t hash
    cdef uint32_t bucket
    if table.count >= table.limit:
        return NULL
    flow = <Flow *> pool_take_flow(pool, sizeof(Flow))
    if flow == NULL:
        return NULL
    memset(flow, 0, sizeof(Flow))
    identify(packet, to_server, &flow.identity)
    hash = hash_of(table, &flow.identity)
    bucket = <uint32_t> (hash & (table.bucket_count - 1))
    flow.mix = <uint32_t> (hash >> 32)
    table.next_id += 1
    flow.identity.flow_id = table.next_id
    flow.identity.source = source_at(table, flow.identity.client, flow.identity.family)
    flow.started = flow.seen = now
    flow.bucket_next = table.buckets[bucket]
    table.buckets[bucket] = flow
    table.count += 1
    enlist(table, flow)
    return flow


cdef void flow_remove(FlowTable *table, Pool *pool, Flow *flow) noexcept nogil:
    """Removes the flow from the table and frees it; its streams and dialogue must be closed."""
    cdef Flow **place = &table.buckets[bucket_of(table, &flow.identity)]
    while place[0] != flow:
        place = &place[0].bucket_next
    place[0] = flow.bucket_next
    count_flow(table, flow, FLOW_CLOSING)
    unlist(table, flow)
    table.count -= 1
    pool_give_flow(pool, flow, sizeof(Flow))


cdef Flow *flow_named(FlowTable *table, const Identity *identity) noexcept nogil:
    cdef Flow *flow = table.buckets[bucket_of(table, identity)]
    while flow != NULL and not same(&flow.identity, identity):
        flow = flow.bucket_next
    return flow


cdef bint flow_restore(FlowTable *table, Flow *flow) noexcept nogil:
    cdef uint64_t hash = hash_of(table, &flow.identity)
    cdef uint32_t bucket = <uint32_t> (hash & (table.bucket_count - 1))
    if flow_named(table, &flow.identity) != NULL:
        return False
    flow.mix = <uint32_t> (hash >> 32)
    flow.identity.source = source_at(table, flow.identity.client, flow.identity.family)
    flow.bucket_next = table.buckets[bucket]
    table.buckets[bucket] = flow
    table.count += 1
    enlist(table, flow)
    if counts(flow, flow.state):
        table.opened += 1
        add_flows(&table.shares, flow_source(table, flow), 1)
    return True


cdef void flow_touch(FlowTable *table, Flow *flow, uint8_t state, uint64_t now) noexcept nogil:
    """The flow was seen at the time ``now``, and is in ``state``."""
    # While a flow waits for its server to confirm the connection, the client's packets do not make it younger.
    if state != flow.state or (now - flow.seen > LISTED_LATE and state != FLOW_UNCONFIRMED):
        unlist(table, flow)
        if state != flow.state:
            count_flow(table, flow, state)
        flow.state = state
        enlist(table, flow)
        flow.seen = now


cdef Flow *flow_gives_way(FlowTable *table, bint ended) noexcept nogil:
    """The flow that gives way, the oldest of the first kind there is: one that has ended; one of an early state
    (embryonic, unconfirmed, one-sided) with more flows than its part of the table; one without an accepted command; any
    of an early state.

    Each early state keeps a part of the table: with the rest of the table full, each newcomer would otherwise evict the
    one before it, and none would live to be greeted.
    """
    cdef uint32_t left = table.limit // LEFT_TO_THE_YOUNG
    cdef int state
    if ended or table.oldest[FLOW_CLOSING] != NULL:
        return table.oldest[FLOW_CLOSING]
    for state in range(FLOW_EMBRYONIC, FLOW_GREETED):
        if table.state_counts[state] > left:
            return table.oldest[state]
    if table.oldest[FLOW_GREETED] != NULL:
        return table.oldest[FLOW_GREETED]
    for state in range(FLOW_EMBRYONIC, FLOW_GREETED):
        if table.oldest[state] != NULL:
            return table.oldest[state]
    return NULL


cdef Flow *unknown_flow_gives_way(FlowTable *table) noexcept nogil:
    """The flow that gives way to one that was open before the gateway started: another such flow. If flows whose other
    side was never seen have more than their part of the table, the oldest of them, else one with both sides seen.

    Anybody can forge a packet, which proves nothing of a flow; an honest flow is answered within a round trip. To give
    it that time, a part of the table is left to flows whose other side was not seen yet.
    """
    cdef Flow *least = table.oldest[FLOW_GREETED]
    if (table.state_counts[FLOW_ONE_SIDED] > table.limit // LEFT_TO_THE_YOUNG or least == NULL
            or least.mode != FLOW_BYPASSED):
        return table.oldest[FLOW_ONE_SIDED]
    return least


cdef bint flow_has_share(FlowTable *table, const Identity *identity) noexcept nogil:
    """Whether the source has fewer flows than it leaves free: one source alone gets half of the table, each of n
    sources one part in n + 1."""
    cdef uint32_t have
    if not table.source_limit and table.opened < table.limit - table.opened:
        return True                                # even if all open flows were this source's
    have = flows_of(&table.shares, source_of(&table.shares, identity.family, identity.client))
    if table.source_limit:
        return have < table.source_limit
    return have < table.limit - table.opened or have <= table.limit // MOST_CROWDED


cdef void flow_client(Packet *packet, bint to_server, Identity *identity) noexcept nogil:
    identify(packet, to_server, identity)


cdef uint16_t source_at(FlowTable *table, const uint8_t *address, uint8_t family) noexcept nogil:
    # An IPv6 host has 2^64 addresses, so its /64 network counts (RFC 4291 2.5.1).
    cdef uint8_t data[8]
    memset(data, 0, 8)
    memcpy(data, address, 4 if family == 4 else 8)
    return <uint16_t> nm_siphash(table.key, data, 8)
