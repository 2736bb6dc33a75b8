# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Out-of-order segments: forwarded ahead of a gap, or held in the kernel's queue.

Keeps invariant 2 (delivered is decided): bytes that are forwarded ahead of a gap are remembered, for the receiver
cannot read them before the gap closes. Keeps invariant 6 (bounded): a sender with too many held packets is refused.
Does not know how bytes are decided.
"""

from libc.stdint cimport int32_t, uint32_t, uint8_t

from nfmailguard.cext.core cimport DROP_CONDITION, DROP_REPEATED
from nfmailguard.cext.flow.lifecycle cimport end_flow
from nfmailguard.cext.flow.sources cimport Source, source_of
from nfmailguard.cext.memory.accounting cimport dialogue_of, memory_is_ample
from nfmailguard.cext.memory.pool cimport pool_is_short
from nfmailguard.cext.memory.pressure cimport cost_to_buffer, cost_to_hold, memory_for
from nfmailguard.cext.policy.actions cimport apply_condition
from nfmailguard.cext.policy.conditions cimport conflicting
from nfmailguard.cext.policy.numbers cimport ACTION_DROP, ACTION_PASS, STREAM_MEMORY_LIMIT, STREAM_PENDING_LIMIT
from nfmailguard.cext.policy.ruling cimport CONDUCTS, CONDUCT_EDIT, CONDUCT_GATE, CONDUCT_WATCH, applies
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.grammar cimport INPUT_CHUNK, INPUT_DATA
from nfmailguard.cext.tcp.holdqueue cimport list_held, may_hold
from nfmailguard.cext.tcp.stream cimport (
    Held, Stream, held_of_flow, stream_buffer, stream_buffered, stream_buffered_count, stream_hold, stream_holding,
    stream_overwrite_with_buffered,
)
from nfmailguard.cext.verdict cimport drop, forward
from nfmailguard.cext.wire.packet cimport nm_seq_diff


cdef enum Course:              # what is done with a segment that cannot be decided yet
    COURSE_GOES_ON = 0         # the segment is forwarded at once, and read when the bytes before it have been decided
    COURSE_TEXT_GOES_ON = 1    # the segment is forwarded at once if it is message text; anything else waits
    COURSE_WAITS = 2

cdef uint8_t courses[CONDUCTS][2]      # Course of a segment, by Conduct and direction (0 to client, 1 to server)

courses[CONDUCT_WATCH][0], courses[CONDUCT_WATCH][1] = COURSE_GOES_ON, COURSE_GOES_ON
courses[CONDUCT_EDIT][0], courses[CONDUCT_EDIT][1] = COURSE_WAITS, COURSE_GOES_ON
courses[CONDUCT_GATE][0], courses[CONDUCT_GATE][1] = COURSE_WAITS, COURSE_TEXT_GOES_ON


cdef void forward_out_of_order(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                               Operations *out) noexcept nogil:
    """Forwards a segment ahead of a gap: its receiver cannot read it before the gateway closes the gap."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t changed = 0
    cdef uint8_t action
    cdef int32_t behind = nm_seq_diff(stream.next_seq, packet.seq)
    cdef uint32_t old = <uint32_t> behind if behind > 0 else 0     # decided before, and overwritten with the first copy
    cdef uint32_t length = packet.payload_length - old
    if stream_buffered(stream) != NULL:
        changed = stream_overwrite_with_buffered(stream, packet.seq + old, packet.payload + old, length,
                                                 applies(flow.policy))
    if changed:
        action = conflicting(core, flow, to_server, now)
        if action != ACTION_PASS:
            drop(core, DROP_CONDITION, packet.queued.id, out)
            if action != ACTION_DROP:
                end_flow(core, flow, action, now, out)
            return
    if dialogue_of(core, flow) == NULL or not (memory_is_ample(core, length) or memory_for(
            core, flow, to_server, cost_to_buffer(flow, stream, length), now, out)):
        apply_condition(core, flow, to_server, STREAM_PENDING_LIMIT, packet, now, out)
        return
    if stream_buffered_count(stream) >= core.pending_limit or pool_is_short(&core.pool):
        apply_condition(core, flow, to_server, STREAM_PENDING_LIMIT, packet, now, out)
    elif stream_buffer(stream, &core.pool, packet.seq + old, packet.payload + old, length) < 0:
        apply_condition(core, flow, to_server, STREAM_MEMORY_LIMIT, packet, now, out)
    else:
        forward(core, flow, to_server, packet, (changed != 0 or cleared) and applies(flow.policy), out)


cdef void hold(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
               Operations *out) noexcept nogil:
    """Holds a packet in the kernel's queue until it can be decided."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef Source source = source_of(&core.flows.shares, packet.family, packet.source)
    cdef Held *held
    if not core.can_hold or stream_holding(stream, packet.seq, packet.payload_length) != NULL:
        # Nothing can be held, or a held packet has some of these bytes: if they differ, the first copy wins, and a
        # retransmission in order will be corrected.
        drop(core, DROP_REPEATED, packet.queued.id, out)
        return
    if dialogue_of(core, flow) == NULL or not (memory_is_ample(core, packet.length) or memory_for(
            core, flow, to_server, cost_to_hold(flow, stream, packet.length), now, out)):
        apply_condition(core, flow, to_server, STREAM_PENDING_LIMIT, packet, now, out)
        return
    if pool_is_short(&core.pool) or not may_hold(core, flow, source):
        apply_condition(core, flow, to_server, STREAM_PENDING_LIMIT, packet, now, out)
        return
    held = stream_hold(stream, &core.pool, packet, now)
    if held == NULL:
        apply_condition(core, flow, to_server, STREAM_MEMORY_LIMIT, packet, now, out)
        return
    held_of_flow(held, flow, to_server, source, cleared)
    list_held(core, held)


cdef inline bint within_chunk(Stream *stream, Dialogue *dialogue, Packet *packet) noexcept nogil:
    # The bytes after the chunk are commands again.
    return packet.seq + packet.payload_length - stream.next_seq <= dialogue.text.chunk_left


cdef void handle_out_of_order(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                              Operations *out) noexcept nogil:
    """Handles a segment that cannot be decided yet: forwards it ahead of its turn, or holds it."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef Dialogue *dialogue = flow.dialogue
    cdef bint text = to_server and dialogue != NULL and not dialogue.exchange.waiting and (
        dialogue.exchange.input == INPUT_DATA or (
            dialogue.exchange.input == INPUT_CHUNK and within_chunk(stream, dialogue, packet)))
    cdef uint8_t course = courses[flow.policy.conduct][to_server]
    if course == COURSE_TEXT_GOES_ON and text and stream_holding(stream, packet.seq, packet.payload_length) == NULL:
        course = COURSE_GOES_ON
    if course == COURSE_GOES_ON:
        forward_out_of_order(core, flow, to_server, packet, cleared, now, out)
    else:
        hold(core, flow, to_server, packet, cleared, now, out)
