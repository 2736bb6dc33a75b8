# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The life of a flow: how it is admitted, and every way in which its inspection ends.

Keeps invariant 1 (one verdict a packet): whatever ends a flow gives its held packets their verdicts. Does not know
segments or dialogues.
"""

from nfmailguard.cext.core cimport DROP_FLOW_LIMIT
from nfmailguard.cext.flow.rules cimport choose_rule
from nfmailguard.cext.flow.table cimport (
    CLIENT_ANSWERED, CONFIRMED, FLOW_BYPASSED, FLOW_CLOSING, FLOW_DROPPED, FLOW_EMBRYONIC, FLOW_INSPECTED,
    FLOW_ONE_SIDED, FLOW_RESET, FLOW_UNCONFIRMED, SERVER_ANSWERED, flow_add, flow_begins, flow_client, flow_closed,
    flow_ends, flow_gives_way, flow_has_share, flow_remove, flow_take_rule, flow_touch, unknown_flow_gives_way,
)
from nfmailguard.cext.memory.accounting cimport charge, free_dialogue
from nfmailguard.cext.policy.conditions cimport report_condition, report_without_flow, set_context
from nfmailguard.cext.policy.findings cimport Context, report_repeated
from nfmailguard.cext.policy.numbers cimport ACTION_LOG, ACTION_RESET, FLOW_LIMIT
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.policy.tally cimport tally_close
from nfmailguard.cext.record cimport END_DROPPED, END_EVICTED, Identity, Record, end_reserve, ring_push
from nfmailguard.cext.smtp.session cimport session_open
from nfmailguard.cext.tcp.holdqueue cimport drop_held
from nfmailguard.cext.tcp.reset cimport emit_refusal, emit_reset
from nfmailguard.cext.tcp.stream cimport stream_close
from nfmailguard.cext.verdict cimport drop_if
from nfmailguard.cext.wire.packet cimport TCP_ACK, TCP_SYN

cdef enum:
    UNKNOWN_WINDOW = 1 << 20   # bytes: assumed for a receiver whose window, or window scale, has not been seen


cdef void forget_flow(Core *core, Flow *flow, uint8_t end, uint64_t now, Operations *out) noexcept nogil:
    """Reports the flow's end and removes it from the table; its held packets are dropped."""
    cdef Record *record
    cdef Context context
    drop_held(core, flow, out)
    if flow.session.tally.word:
        set_context(core, flow, &context, now)
        report_repeated(&context)
    record = end_reserve(&core.ring, &flow.identity, flow.handshake & CONFIRMED != 0, now)
    if record != NULL:
        record.generation = flow.policy.generation
        record.to_server = 1
        record.state = flow.session.state
        record.code = flow.end if flow.end else end
        record.a = flow.started
        record.b = flow.packets[1]
        record.c = flow.bytes[1]
        record.d = flow.packets[0]
        record.e = flow.bytes[0]
        ring_push(&core.ring)
    release_flow_memory(core, flow)
    tally_close(&flow.session.tally, &core.pool)
    charge(core, flow, now)
    flow_ends(flow)
    flow_remove(&core.flows, &core.pool, flow)


cdef void evict(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil:
    """Removes a flow from a full table; both sides of an open inspected connection get a RST."""
    core.counters.flows_evicted += 1
    if flow.state == FLOW_CLOSING:
        core.counters.flows_evicted_ended += 1
    elif flow.state == FLOW_EMBRYONIC:
        core.counters.flows_evicted_embryonic += 1
    elif flow.state == FLOW_UNCONFIRMED:
        core.counters.flows_evicted_unconfirmed += 1
    elif flow.state == FLOW_ONE_SIDED:
        core.counters.flows_evicted_one_sided += 1
    else:
        core.counters.flows_evicted_greeted += 1
    if flow.mode != FLOW_BYPASSED:                   # a flow that was passed may as well be let through again
        core.forgot = 1                            # its next packet must not pass for a flow's from before the start
    if (flow.mode == FLOW_INSPECTED and flow.handshake & SERVER_ANSWERED and flow.handshake & CLIENT_ANSWERED
            and not flow_closed(flow) and applies(flow.policy)):
        emit_reset(core, flow, True, out)
        emit_reset(core, flow, False, out)
    forget_flow(core, flow, END_EVICTED, now, out)


cdef void opens(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """A handshake is complete: if its source has not used up its share of flows the flow stays, else it ends.

    Only now is the source certain: a SYN's address may be forged, and must not use up anybody's share.
    """
    if flow_has_share(&core.flows, &flow.identity):
        return
    core.counters.flows_refused += 1
    core.counters.flows_refused_share += 1
    if report_condition(core, flow, FLOW_LIMIT, to_server, now) > ACTION_LOG:
        end_flow(core, flow, ACTION_RESET, now, out)


cdef Flow *open_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """Opens a flow with its policy; NULL if its source has its share, or if the table is full and no flow gives way."""
    cdef bint begins = packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    cdef Flow *flow
    cdef Flow *least
    cdef Identity client
    flow_client(packet, to_server, &client)
    if begins and not flow_has_share(&core.flows, &client):
        core.counters.flows_refused_share += 1
        return NULL
    flow = flow_add(&core.flows, &core.pool, packet, to_server, now)
    if flow == NULL:
        # No open flow gives way to a packet that only seems to continue one. To a flow that was open before the gateway
        # started, another such flow gives way.
        least = flow_gives_way(&core.flows, not begins)
        if least == NULL and starting_up(core, now):
            least = unknown_flow_gives_way(&core.flows)
        if least == NULL:
            return NULL
        evict(core, least, now, out)
        flow = flow_add(&core.flows, &core.pool, packet, to_server, now)
    if flow == NULL:
        return NULL
    core.counters.flows_opened += 1
    # The rule depends on the interface where the client's packets come in, which is where a server's packet leaves.
    flow_take_rule(flow, <uint8_t> choose_rule(
        core, &flow.identity, packet.queued.in_interface if to_server else packet.queued.out_interface))
    flow.policy = &core.generation.rules[flow.identity.rule].policy
    flow_begins(flow)
    flow.connection = packet.queued.connection
    session_open(&flow.session, flow.policy.grammar)
    return flow


cdef void refuse_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    cdef uint8_t action = report_without_flow(core, packet, FLOW_LIMIT, to_server, now)
    core.counters.flows_refused += 1
    drop_if(core, action > ACTION_LOG, DROP_FLOW_LIMIT, packet.queued.id, out)
    if action == ACTION_RESET:
        emit_refusal(core, packet, to_server, now, out)


cdef void release_flow_memory(Core *core, Flow *flow) noexcept nogil:
    stream_close(&flow.stream[0], &core.pool)
    stream_close(&flow.stream[1], &core.pool)
    free_dialogue(core, flow)


cdef void end_flow(Core *core, Flow *flow, uint8_t action, uint64_t now, Operations *out) noexcept nogil:
    drop_held(core, flow, out)
    flow.mode = FLOW_RESET if action == ACTION_RESET else FLOW_DROPPED
    flow.end = END_DROPPED
    if action == ACTION_RESET:
        core.counters.flows_reset += 1
        emit_reset(core, flow, True, out)
        emit_reset(core, flow, False, out)
    else:
        core.counters.flows_dropped += 1
    release_flow_memory(core, flow)
    charge(core, flow, now)
    flow_touch(&core.flows, flow, FLOW_CLOSING, now)


cdef void stop_following(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil:
    cdef bint to_server
    drop_held(core, flow, out)
    for to_server in range(2):
        if flow.stream[to_server].max_window == 0:
            flow.stream[to_server].max_window = UNKNOWN_WINDOW
    flow.mode = FLOW_BYPASSED
    core.counters.flows_passed += 1
    release_flow_memory(core, flow)
    charge(core, flow, now)
