# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Endings: findings about whole flows, and the ways out of inspection.

Keeps invariant 1: whoever ends a flow answers the packets it still holds. Keeps
invariant 3 for what we send ourselves: a RST carries the sequence number its
receiver expects. Does not know segments or dialogues.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from nfmailguard.cext.account cimport close_dialogue, rest, settle
from nfmailguard.cext.core cimport DROP_FLOW_ENDED, DROP_HELD_TOO_LONG, MOST_EMITTED, Strangers
from nfmailguard.cext.flow cimport (
    AGE_CLOSING,
    FLOW_DROPPED,
    FLOW_INSPECTED,
    FLOW_PASSED,
    FLOW_RESET,
    flow_touch,
    source_at,
)
from nfmailguard.cext.operation cimport OP_EMIT, operation_append
from nfmailguard.cext.packet cimport TCP_ACK, TCP_RST, packet_build
from nfmailguard.cext.pool cimport memory_cost
from nfmailguard.cext.record cimport END_DROPPED, Identity
from nfmailguard.cext.rule cimport choose_rule
from nfmailguard.cext.share cimport add_held
from nfmailguard.cext.smtp cimport (
    ACTION_DROP,
    ACTION_LOG,
    ACTION_PASS,
    ACTION_RESET,
    STREAM_CONFLICTING_RETRANSMISSION,
    UNTOLD,
    Session,
    report,
)
from nfmailguard.cext.stream cimport held_free, stream_close, stream_held, stream_release
from nfmailguard.cext.tally cimport TALLY_UNTOLD
from nfmailguard.cext.verdict cimport accept, drop

cdef enum:
    SECOND = 1000000000                # ns


cdef void set_scene(Core *core, Flow *flow, Scene *scene, uint64_t now) noexcept nogil:
    memset(scene, 0, sizeof(Scene))
    scene.grammar = &core.grammar
    scene.ruling = flow.ruling
    scene.ring = &core.ring
    scene.lender = &core.lender
    scene.identity = &flow.identity
    scene.session = &flow.session
    scene.junk = &flow.junk
    scene.untold = UNTOLD if flow.junk > flow.ruling.junk_commands else 0
    scene.omitted = &core.counters.records_omitted
    scene.finding_counts = core.finding_counts
    scene.repeated = &core.counters.findings_repeated
    scene.now = now


cdef uint8_t report_condition(Core *core, Flow *flow, uint8_t finding, bint to_server, uint64_t now) noexcept nogil:
    cdef Scene scene
    set_scene(core, flow, &scene, now)
    return report(&scene, finding, to_server, 0, flow.stream[to_server].octets, NULL, 0, NULL, 0)


cdef uint8_t conflicting(Core *core, Flow *flow, bint to_server, uint64_t now) noexcept nogil:
    # The first octets stand in any case; the ruling says whether the flow goes on.
    cdef uint8_t action = report_condition(core, flow, STREAM_CONFLICTING_RETRANSMISSION, to_server, now)
    return ACTION_PASS if action <= ACTION_LOG else action


cdef uint32_t strangers_number(Strangers *strangers, uint32_t first, uint64_t now) noexcept nogil:
    # So many a second are told; the next one's number says how many it stands for.
    cdef uint32_t number
    if now // SECOND != strangers.second:
        strangers.second = now // SECOND
        strangers.count = 0
    if strangers.count >= first:
        strangers.untold += 1
        return TALLY_UNTOLD
    strangers.count += 1
    number = strangers.untold + 1
    strangers.untold = 0
    return number


cdef uint8_t report_stranger(Core *core, Packet *packet, uint8_t finding, bint to_server, uint64_t now) noexcept nogil:
    cdef Scene scene
    cdef Session session
    cdef Identity identity
    cdef uint32_t size = 4 if packet.family == 4 else 16
    memset(&scene, 0, sizeof(Scene))
    memset(&session, 0, sizeof(Session))
    memset(&identity, 0, sizeof(Identity))
    identity.family = packet.family
    memcpy(identity.client, packet.source if to_server else packet.destination, size)
    memcpy(identity.server, packet.destination if to_server else packet.source, size)
    identity.source = source_at(&core.flows, identity.client, identity.family)
    if packet.tcp != NULL:
        identity.client_port = packet.source_port if to_server else packet.destination_port
        identity.server_port = packet.destination_port if to_server else packet.source_port
    identity.rule = <uint8_t> choose_rule(
        core, &identity, packet.queued.in_interface if to_server else packet.queued.out_interface)
    scene.grammar = &core.grammar
    scene.ruling = &core.rules[identity.rule].ruling
    scene.ring = &core.ring
    scene.lender = &core.lender
    scene.identity = &identity
    scene.session = &session
    scene.finding_counts = core.finding_counts
    scene.repeated = &core.counters.findings_repeated
    scene.number = strangers_number(&core.strangers[finding], scene.ruling.findings_told, now)
    scene.now = now
    return report(&scene, finding, to_server, 0, 0, NULL, 0, NULL, 0)


cdef void emit_reset(Core *core, Flow *flow, bint to_server, Operations *out) noexcept nogil:
    cdef uint8_t *packet
    cdef uint32_t seq, ack, length
    if core.emitted_now == MOST_EMITTED:
        return
    packet = core.emitted[core.emitted_now]
    core.emitted_now += 1
    ack = flow.stream[not to_server].next_seq
    # The server expects our next octet; the client expects what it has last acknowledged.
    seq = flow.stream[1].next_seq if to_server else flow.stream[0].kept_seq
    if to_server:
        length = packet_build(packet, flow.identity.family, flow.identity.client, flow.identity.server,
                              flow.identity.client_port, flow.identity.server_port, seq, ack, TCP_RST | TCP_ACK)
    else:
        length = packet_build(packet, flow.identity.family, flow.identity.server, flow.identity.client,
                              flow.identity.server_port, flow.identity.client_port, seq, ack, TCP_RST | TCP_ACK)
    operation_append(out, OP_EMIT, 0, packet, length).to_server = to_server
    core.counters.emitted += 1


cdef void emit_refusal(Core *core, Packet *packet, bint to_server, Operations *out) noexcept nogil:
    # RFC 9293 3.5.2: what a host says to a packet of a connection that it does not have.
    cdef uint8_t *answer
    cdef uint32_t length
    if core.emitted_now == MOST_EMITTED or packet.flags & TCP_RST:
        return
    answer = core.emitted[core.emitted_now]
    core.emitted_now += 1
    if packet.flags & TCP_ACK:
        length = packet_build(answer, packet.family, packet.destination, packet.source, packet.destination_port,
                              packet.source_port, packet.ack, 0, TCP_RST)
    else:
        length = packet_build(answer, packet.family, packet.destination, packet.source, packet.destination_port,
                              packet.source_port, 0, packet.seq + packet.payload_length + 1, TCP_RST | TCP_ACK)
    operation_append(out, OP_EMIT, 0, answer, length).to_server = not to_server
    core.counters.emitted += 1


cdef void list_held(Core *core, Held *held) noexcept nogil:
    held.newer = NULL
    held.older = core.held_newest
    if held.older != NULL:
        held.older.newer = held
    else:
        core.held_oldest = held
    core.held_newest = held
    add_held(&core.flows.shares, held.source, 1)
    core.counters.held += 1
    core.counters.held_now += 1


cdef void unhold(Core *core, Stream *stream, Held *held) noexcept nogil:
    stream_release(stream, &core.pool, held)
    if held.older != NULL:
        held.older.newer = held.newer
    else:
        core.held_oldest = held.newer
    if held.newer != NULL:
        held.newer.older = held.older
    else:
        core.held_newest = held.older
    core.counters.held_now -= 1
    add_held(&core.flows.shares, held.source, <uint32_t> -1)


cdef Held *next_held(Core *core, Stream *stream) noexcept nogil:
    cdef Held *held = stream_held(stream)
    if held != NULL:
        unhold(core, stream, held)
    return held


cdef void drop_oldest_held(Core *core, uint64_t now, Operations *out) noexcept nogil:
    # What went ahead stays remembered: forgotten, it could be read undecided.
    cdef Held *held = core.held_oldest
    cdef Flow *flow = <Flow *> held.flow
    unhold(core, &flow.stream[held.to_server], held)
    drop(core, DROP_HELD_TOO_LONG, held.queued.id, out)
    held_free(&core.pool, held)
    settle(core, flow, now)
    if flow.dialogue != NULL:
        rest(core, flow)
        settle(core, flow, now)


cdef void answered(Core *core, Held *held) noexcept nogil:
    held.next = core.released
    core.released = held
    core.released_bytes += memory_cost(sizeof(Held) + held.size)


cdef void drop_held(Core *core, Flow *flow, Operations *out) noexcept nogil:
    cdef int direction
    cdef Held *held
    for direction in range(2):
        held = next_held(core, &flow.stream[direction])
        while held != NULL:
            drop(core, DROP_FLOW_ENDED, held.queued.id, out)
            held_free(&core.pool, held)
            held = next_held(core, &flow.stream[direction])


cdef void flow_let_go(Core *core, Flow *flow) noexcept nogil:
    stream_close(&flow.stream[0], &core.pool)
    stream_close(&flow.stream[1], &core.pool)
    close_dialogue(core, flow)


cdef void end_flow(Core *core, Flow *flow, uint8_t action, uint64_t now, Operations *out) noexcept nogil:
    drop_held(core, flow, out)
    flow.fate = FLOW_RESET if action == ACTION_RESET else FLOW_DROPPED
    flow.end = END_DROPPED
    if action == ACTION_RESET:
        core.counters.flows_reset += 1
        emit_reset(core, flow, True, out)
        emit_reset(core, flow, False, out)
    else:
        core.counters.flows_dropped += 1
    flow_let_go(core, flow)
    settle(core, flow, now)
    flow_touch(&core.flows, flow, AGE_CLOSING, now)


cdef void answer_by(Core *core, Flow *flow, uint8_t action, uint8_t reason, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil:
    if action <= ACTION_LOG:
        accept(core, packet.queued.id, out)
        return
    drop(core, reason, packet.queued.id, out)
    if action != ACTION_DROP and flow.fate == FLOW_INSPECTED:
        end_flow(core, flow, action, now, out)


cdef void refuse(Core *core, Flow *flow, bint to_server, uint8_t finding, uint8_t reason, Packet *packet, uint64_t now,
                 Operations *out) noexcept nogil:
    cdef uint8_t action = report_condition(core, flow, finding, to_server, now)
    answer_by(core, flow, action, reason, packet, now, out)
    if action <= ACTION_LOG:
        stop_following(core, flow, now, out)       # what went by unread leaves nothing to go on from


cdef void stop_following(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil:
    drop_held(core, flow, out)
    flow.fate = FLOW_PASSED
    core.counters.flows_passed += 1
    flow_let_go(core, flow)
    settle(core, flow, now)
