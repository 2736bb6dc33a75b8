# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Memory pressure: which flows give way, and which ones wait, when the memory for streams is short.

Keeps invariant 6 (bounded): the work for one packet is bounded, as it ends only a few flows. Nothing is decided before
there is memory to keep it, so a packet that finds none can be dropped and decided when it is sent again. Does not know
how bytes are decided.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from nfmailguard.cext.core cimport DROP_MEMORY
from nfmailguard.cext.flow.lifecycle cimport end_flow, stop_following
from nfmailguard.cext.flow.sources cimport Source, bytes_of
from nfmailguard.cext.flow.table cimport FLOW_INSPECTED, flow_source
from nfmailguard.cext.memory.accounting cimport charge, streams_have, within_shares
from nfmailguard.cext.memory.pagebuffer cimport PageBuffer, pagebuffer_cost
from nfmailguard.cext.memory.pool cimport PAGE_BYTES, Pool, memory_cost, pool_is_short
from nfmailguard.cext.policy.actions cimport apply_condition
from nfmailguard.cext.policy.conditions cimport report_condition
from nfmailguard.cext.policy.numbers cimport ACTION_LOG, STREAM_MEMORY_LIMIT
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.grammar cimport INPUT_COMMANDS
from nfmailguard.cext.smtp.line cimport Line
from nfmailguard.cext.tcp.stream cimport Backlog, Held, OutOfOrder
from nfmailguard.cext.verdict cimport drop
from nfmailguard.cext.wire.packet cimport nm_seq_diff

cdef enum:
    MOST_EXAMINED = 16         # stalled flows that are examined for one packet, at most
    MOST_ENDED = 8             # stalled flows that are ended for one packet, at most
    SOONER = 5                 # a fifth of limits.stalled makes a flow give way when memory is nearly used up
    SHORTEST_COMMAND = 6       # bytes of the shortest command: four letters and CRLF
    A_SMALL_PART = 8           # a source that uses more than 1/8 of the streams' half cannot press others


cdef inline uint64_t cost_to_talk(const Flow *flow) noexcept nogil:
    return 0 if flow.dialogue != NULL else memory_cost(sizeof(Dialogue))


cdef uint64_t cost_to_keep(const Flow *flow, bint to_server, uint32_t length) noexcept nogil:
    cdef const Dialogue *dialogue = flow.dialogue
    cdef uint64_t cost = cost_to_talk(flow) + memory_cost(sizeof(Line)) + pagebuffer_cost(
        &flow.stream[to_server].unacked, length)
    cdef uint32_t few = sizeof(dialogue.exchange.few)
    cdef uint32_t room = dialogue.exchange.capacity if dialogue != NULL and dialogue.exchange.more != NULL else few
    cdef uint32_t outstanding = dialogue.exchange.count if dialogue != NULL else 0
    if to_server and outstanding + length // SHORTEST_COMMAND > room and (
            dialogue == NULL or dialogue.exchange.input == INPUT_COMMANDS):
        cost += memory_cost(room * 4)              # the size of the larger array that expect_reply would allocate
    return cost


cdef uint64_t cost_to_buffer(const Flow *flow, const Stream *stream, uint32_t length) noexcept nogil:
    cdef PageBuffer none
    cdef uint64_t cost = cost_to_talk(flow) + memory_cost(sizeof(OutOfOrder)) + memory_cost(PAGE_BYTES)
    memset(&none, 0, sizeof(PageBuffer))
    return cost + pagebuffer_cost(&none, length) + (memory_cost(sizeof(Backlog)) if stream.backlog == NULL else 0)


cdef uint64_t cost_to_hold(const Flow *flow, const Stream *stream, uint32_t length) noexcept nogil:
    return cost_to_talk(flow) + memory_cost(sizeof(Held) + length) + (
        memory_cost(sizeof(Backlog)) if stream.backlog == NULL else 0)


cdef void ends(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil:
    cdef uint8_t action = report_condition(core, flow, STREAM_MEMORY_LIMIT, True, now)
    core.counters.flows_stalled += 1
    if action <= ACTION_LOG:
        stop_following(core, flow, now, out)
    else:
        end_flow(core, flow, action, now, out)


cdef void stalled_give_way(Core *core, Flow *flow, uint64_t patience, uint64_t now, Operations *out) noexcept nogil:
    """Ends flows whose receivers have acknowledged too little for ``patience`` nanoseconds, the longest stalled first:
    flows of any source if memory is short, or only those of the same source if just that source has used up its share.
    """
    cdef bint short = pool_is_short(&core.pool)
    cdef Dialogue *dialogue = core.dialogue_pool.oldest
    cdef Dialogue *newer
    cdef Flow *other
    cdef int examined = 0, ended = 0
    charge(core, flow, now)
    while dialogue != NULL and examined < MOST_EXAMINED and ended < MOST_ENDED:
        if now - dialogue.account.since < patience:
            return
        newer = dialogue.newer
        other = <Flow *> dialogue.flow
        examined += 1
        if other != flow and other.mode == FLOW_INSPECTED and (short or same_source(core, flow, other)):
            ends(core, other, now, out)
            ended += 1
        dialogue = newer


cdef bint same_source(Core *core, Flow *one, Flow *other) noexcept nogil:
    cdef Source a = flow_source(&core.flows, one), b = flow_source(&core.flows, other)
    return a.place[0] == b.place[0] and a.place[1] == b.place[1]


cdef inline bint stands_still(Flow *flow, bint to_server, uint64_t patience, uint64_t now) noexcept nogil:
    # Bytes that wait for a gap to close do not count: their receiver cannot acknowledge them yet.
    return (flow.dialogue != NULL and flow.dialogue.account.listed and flow.stream[to_server].unacked.length != 0
            and now - flow.dialogue.account.since >= patience)


cdef inline bint is_nearly_used_up(const Pool *pool) noexcept nogil:
    return pool.limit // 2 - streams_have(pool) < pool.limit // 2 // A_SMALL_PART


cdef bint may_press(Core *core, Flow *flow, bint to_server, uint64_t now) noexcept nogil:
    """Whether other flows give way sooner for this one: its receiver makes progress, and its source uses little memory.

    Many sources can use up all memory together, however little each of them uses. Whoever comes then needs a page, and
    cannot wait for it as long as a stalled flow may stall.
    """
    return (not stands_still(flow, to_server, core.stalled_timeout // SOONER, now)
            and bytes_of(&core.flows.shares, flow_source(&core.flows, flow)) <= core.pool.limit // 2 // A_SMALL_PART)


cdef bint memory_for(Core *core, Flow *flow, bint to_server, uint64_t need, uint64_t now,
                     Operations *out) noexcept nogil:
    cdef bint fits = within_shares(core, flow, need)
    cdef bint short = pool_is_short(&core.pool)
    cdef uint64_t patience = core.stalled_timeout
    if fits and not short:
        return True
    # Stalled flows give way even where this flow finds memory: a sender whose packets are lost repeatedly makes hardly
    # any progress.
    if short and (not fits or is_nearly_used_up(&core.pool)) and may_press(core, flow, to_server, now):
        patience //= SOONER
    stalled_give_way(core, flow, patience, now, out)
    return fits or within_shares(core, flow, need)


cdef bint room_for(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                   Operations *out) noexcept nogil:
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t length = <uint32_t> nm_seq_diff(packet.seq + packet.payload_length, stream.next_seq)
    cdef uint64_t need = cost_to_keep(flow, to_server, length)
    if memory_for(core, flow, to_server, need, now, out) or not applies(flow.policy):
        return True  # monitor mode: no packet waits for memory; a flow that finds none is no longer followed
    if 2 * need > core.pool.limit // 2 or stands_still(flow, to_server, core.stalled_timeout, now):
        apply_condition(core, flow, to_server, STREAM_MEMORY_LIMIT, packet, now, out)
    else:
        drop(core, DROP_MEMORY, packet.queued.id, out)
    return False
