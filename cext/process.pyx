# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The way of a packet through the core: its flow is found, and every packet is answered exactly once.

Keeps invariant 1 (one verdict): every path through ``core_process`` answers the
packet or gives it to a stream that holds it, and every held packet is answered with a
later packet, by ``core_expire`` or by ``core_finish``. Keeps invariant 7: no packet
raises an exception. No sockets, no clock, no Python object per packet.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint8_t

from nfmailguard.cext.core cimport (
    DROP_CHECKSUM, DROP_CONNECTION, DROP_COOKIE, DROP_FLAGS, DROP_FLOW_ENDED, DROP_INTERFACE, DROP_INTERNAL,
)
from nfmailguard.cext.flow.census cimport Census, census_fill, nm_load_census, nm_take_census
from nfmailguard.cext.flow.identity cimport belongs, pin_interface
from nfmailguard.cext.flow.lifecycle cimport count_packet, forget_flow, opens, starting_up
from nfmailguard.cext.flow.rules cimport inspected_port
from nfmailguard.cext.flow.table cimport (
    CLIENT_ANSWERED, CONFIRMED, FLOW_BYPASSED, FLOW_CLOSING, FLOW_EMBRYONIC, FLOW_ESTABLISHED, FLOW_GREETED,
    FLOW_ONE_SIDED, FLOW_RESET, FLOW_STATES, FLOW_UNCONFIRMED, Flow, flow_bucket, flow_closed, flow_find,
    flow_prefetch, flow_touch, nm_prefetch,
)
from nfmailguard.cext.generation cimport take_up_generation
from nfmailguard.cext.inspect cimport inspect_packet
from nfmailguard.cext.memory.accounting cimport charge, note_progress
from nfmailguard.cext.memory.pool cimport memory_cost, pool_forget_taken
from nfmailguard.cext.operation cimport operations_reserve
from nfmailguard.cext.policy.actions cimport answer_by
from nfmailguard.cext.policy.conditions cimport policy_without_flow, report_condition, report_without_flow
from nfmailguard.cext.policy.numbers cimport ACTION_DROP, ACTION_LOG, PACKET_ODD_FLAGS, PACKET_OTHER_CONNECTION
from nfmailguard.cext.policy.ruling cimport applies, gates
from nfmailguard.cext.record cimport END_FINISHED, END_TIMEOUT
from nfmailguard.cext.tcp.handshake cimport first_packet, handshake
from nfmailguard.cext.tcp.holdqueue cimport drop_oldest_held
from nfmailguard.cext.tcp.passed cimport pass_packet
from nfmailguard.cext.tcp.peer_reset cimport reset_packet
from nfmailguard.cext.tcp.reset cimport emit_reset
from nfmailguard.cext.tcp.stream cimport SYN_SEEN, Held, held_free
from nfmailguard.cext.tcp.syncookie cimport hide_cookie
from nfmailguard.cext.tcp.validate cimport handle_malformed, invalid_flags, refused
from nfmailguard.cext.verdict cimport accept, drop, drop_if
from nfmailguard.cext.wire.packet cimport (
    PACKET_CHECKSUM_PARTIAL, PARSED, TCP_ACK, TCP_RST, TCP_SYN, Packet, ParseResult, packet_checksum_ok,
    packet_parse,
)

cdef enum:
    MOST_HERE = 48             # most operations for one packet (verdicts, RSTs), besides those for held packets
    MANY_PACKETS = 1024        # packets of one side of a flow, beyond which an ended flow answers few with a RST
    ONE_IN = 64                # of the packets beyond MANY_PACKETS one in so many gets a RST
    WORTH_PREFETCHING = 8192    # flows; the state of fewer fits into the second-level cache


cdef void core_settle(Core *core) noexcept nogil:
    cdef Held *held
    while core.released != NULL:
        held = core.released
        core.released = held.next
        core.released_bytes -= memory_cost(sizeof(Held) + held.size)
        held_free(&core.pool, held)


cdef void begin_call(Core *core, uint64_t now, Operations *out) noexcept nogil:
    core_settle(core)
    core.emitted_now = 0
    core.first_of_call = out.count
    if core.started == 0:
        core.started = now


cdef inline uint8_t state_of(Core *core, Flow *flow) noexcept nogil:
    if flow_closed(flow) or flow.mode > FLOW_BYPASSED:
        return FLOW_CLOSING
    if flow.state == FLOW_ESTABLISHED or flow.session.state >= flow.policy.grammar.state_ready:
        return FLOW_ESTABLISHED                            # the server has accepted a command
    if flow.mode == FLOW_BYPASSED and not flow.stream[1].facts & SYN_SEEN and not (flow.packets[0] and flow.packets[1]):
        return FLOW_ONE_SIDED
    if flow.handshake & CONFIRMED or flow.mode == FLOW_BYPASSED:
        return FLOW_GREETED
    return FLOW_UNCONFIRMED if flow.handshake & CLIENT_ANSWERED else FLOW_EMBRYONIC


cdef void core_begin_batch(Core *core, uint64_t now) noexcept nogil:
    cdef Census *census
    take_up_generation(core, now)
    if nm_load_census(&core.census) != NULL:
        census = nm_take_census(&core.census)
        if census != NULL:
            census_fill(census, &core.flows)


cdef inline bint has_odd_flags(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                               Operations *out) noexcept nogil:
    """Whether a packet's TCP flags are invalid; if so it is answered here. ``flow`` NULL: the packet has no flow."""
    if not invalid_flags(packet.flags):
        return False
    core.counters.odd_flags += 1
    if flow != NULL:
        answer_by(core, flow, report_condition(core, flow, PACKET_ODD_FLAGS, to_server, now), DROP_FLAGS,
                  packet, now, out)
    else:
        drop_if(core, report_without_flow(core, packet, PACKET_ODD_FLAGS, to_server, now) > ACTION_LOG, DROP_FLAGS,
                packet.queued.id, out)
    return True


cdef inline bint is_of_another(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                               Operations *out) noexcept nogil:
    """Whether conntrack, or the interface, shows that a packet is not of this flow; if so it is answered here."""
    cdef uint8_t action
    if flow.connection != packet.queued.connection and not belongs(flow, to_server, packet):
        action = report_condition(core, flow, PACKET_OTHER_CONNECTION, to_server, now)
        if action > ACTION_LOG:
            answer_by(core, flow, action, DROP_CONNECTION, packet, now, out)
            return True
    action = pin_interface(core, flow, to_server, packet, now)
    if action > ACTION_LOG:
        answer_by(core, flow, action, DROP_INTERFACE, packet, now, out)
        return True
    return False


cdef inline void answer_late(Core *core, Flow *flow, bint to_server, Packet *packet, Operations *out) noexcept nogil:
    """Answers a packet of a flow that we have dropped or reset."""
    drop(core, DROP_FLOW_ENDED, packet.queued.id, out)
    if (flow.mode == FLOW_RESET and not packet.flags & TCP_RST and packet.flags & TCP_ACK
            and (flow.packets[to_server] < MANY_PACKETS or flow.packets[to_server] % ONE_IN == 0)):
        # A peer that still sends did not get the RST, or challenges it (RFC 5961 3.2): it is sent again with the
        # number the peer expects; in a flood only now and then, for each RST costs as much as a packet.
        flow.stream[not to_server].next_seq = flow.stream[not to_server].last_ack = packet.ack
        emit_reset(core, flow, not to_server, out)


cdef inline void next_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                             Operations *out) noexcept nogil:
    """Processes a packet of a known flow."""
    cdef uint8_t state, reason
    if is_of_another(core, flow, to_server, packet, now, out):
        return
    count_packet(flow, to_server, packet)
    if handshake(core, flow, to_server, packet, now, out):
        return
    reason = refused(core, flow, to_server, packet) if flow.mode <= FLOW_BYPASSED else 0
    if flow.mode > FLOW_BYPASSED:
        answer_late(core, flow, to_server, packet, out)
    elif reason:
        drop_if(core, gates(flow.policy), reason, packet.queued.id, out)
    elif packet.flags & TCP_RST:
        reset_packet(core, flow, to_server, packet, now, out)
    elif to_server and gates(flow.policy) and not hide_cookie(core, flow, packet, now):
        drop(core, DROP_COOKIE, packet.queued.id, out)
    elif flow.mode == FLOW_BYPASSED:
        pass_packet(core, flow, to_server, packet, now, out)
    else:
        inspect_packet(core, flow, to_server, packet, now, out)
        charge(core, flow, now)
        if core.pool.taken:
            if flow.dialogue != NULL and flow.dialogue.account.listed:
                note_progress(core, flow, now)
            pool_forget_taken(&core.pool)
    state = state_of(core, flow)
    if flow.state == FLOW_EMBRYONIC and FLOW_EMBRYONIC < state < FLOW_CLOSING:
        opens(core, flow, to_server, now, out)
        state = state_of(core, flow)
    flow_touch(&core.flows, flow, state, now)


cdef void core_process(Core *core, QueuedPacket *queued, uint64_t now, Operations *out) noexcept nogil:
    cdef Packet packet
    cdef Flow *flow
    cdef bint to_server, from_server
    cdef ParseResult result
    begin_call(core, now, out)
    core.counters.packets += 1
    if operations_reserve(out, <uint32_t> core.counters.held_now + MOST_HERE) < 0:
        core.counters.internal_errors += 1
        if out.count < out.capacity:               # room for one answer: every caller has reserved a first block
            drop_if(core, core.generation.rules[core.generation.rule_count - 1].policy.internal_error >= ACTION_DROP,
                    DROP_INTERNAL, queued.id, out)
        return
    result = packet_parse(&packet, queued)
    if result != PARSED:
        handle_malformed(core, result, &packet, now, out)
        return
    to_server = inspected_port(core, packet.destination_port)
    from_server = inspected_port(core, packet.source_port)
    if not to_server and not from_server:
        core.counters.not_inspected += 1
        accept(core, queued.id, out)
        return
    flow = flow_find(&core.flows, &packet, to_server)
    if flow == NULL and to_server and from_server and not (packet.flags & TCP_SYN and not packet.flags & TCP_ACK):
        flow = flow_find(&core.flows, &packet, False)
        to_server = flow == NULL
    if flow != NULL:
        # Prefetched during the checksum: the dialogue, and the unacknowledged bytes that an ACK may free.
        nm_prefetch(flow.dialogue)
        nm_prefetch(flow.stream[not to_server].unacked.memory)
    if not queued.flags & PACKET_CHECKSUM_PARTIAL and not packet_checksum_ok(&packet):
        # No receiver accepts a wrong checksum: the core must not read what the server never sees.
        core.counters.bad_checksum += 1
        drop_if(core, applies(flow.policy if flow != NULL else policy_without_flow(core, &packet)), DROP_CHECKSUM,
                queued.id, out)
        return
    if has_odd_flags(core, flow, to_server, &packet, now, out):
        return
    if flow == NULL:
        first_packet(core, &packet, to_server, now, out)
    else:
        next_packet(core, flow, to_server, &packet, now, out)


cdef void core_prefetch_bucket(Core *core, QueuedPacket *queued) noexcept nogil:
    cdef Packet packet
    cdef bint to_server
    if core.flows.count < WORTH_PREFETCHING or packet_parse(&packet, queued) != PARSED:
        return
    to_server = inspected_port(core, packet.destination_port)
    # if both ports are inspected, either direction is possible; if none is, no flow exists
    if to_server != inspected_port(core, packet.source_port):
        queued.place = flow_bucket(&core.flows, &packet, to_server)


cdef void core_prefetch_flow(Core *core, QueuedPacket *queued) noexcept nogil:
    if queued.place:
        flow_prefetch(&core.flows, queued.place)


cdef uint64_t time_out(Core *core, Flow *flow) noexcept nogil:
    # While connections opened before our start are let through, no flow of ours may time out and become unknown.
    cdef uint64_t at = flow.seen + core.timeout[flow.state]
    cdef uint64_t begun = core.started + core.startup
    return begun if at < begun and starting_up(core, at) else at


cdef void core_expire(Core *core, uint64_t now, Operations *out) noexcept nogil:
    cdef int state
    begin_call(core, now, out)
    if operations_reserve(out, <uint32_t> core.counters.held_now + MOST_HERE) < 0:
        return
    while core.held_oldest != NULL and now >= core.held_oldest.arrived + core.held_timeout:
        core.counters.held_expired += 1
        drop_oldest_held(core, now, out)
    for state in range(FLOW_STATES):
        while core.flows.oldest[state] != NULL and now >= time_out(core, core.flows.oldest[state]):
            forget_flow(core, core.flows.oldest[state], END_TIMEOUT, now, out)


cdef uint64_t core_next_deadline(Core *core) noexcept nogil:
    cdef uint64_t deadline = UINT64_MAX, at
    cdef int state
    if core.held_oldest != NULL:
        deadline = core.held_oldest.arrived + core.held_timeout
    for state in range(FLOW_STATES):
        if core.flows.oldest[state] != NULL:
            at = time_out(core, core.flows.oldest[state])
            if at < deadline:
                deadline = at
    return deadline


cdef bint core_finish(Core *core, uint64_t now, Operations *out, bint leave_room) noexcept nogil:
    cdef int state
    begin_call(core, now, out)
    if operations_reserve(out, <uint32_t> core.counters.held_now + MOST_HERE) < 0:
        return False
    for state in range(FLOW_STATES):
        while core.flows.oldest[state] != NULL:
            if leave_room and core_records_wait(core):
                return True
            forget_flow(core, core.flows.oldest[state], END_FINISHED, now, out)
    return False
