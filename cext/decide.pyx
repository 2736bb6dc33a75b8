# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Decides which bytes of a stream pass and which are changed, in order, and keeps the result.

Keeps invariant 2 (delivered is decided): bytes are decided in order and once;
retransmissions carry the decided bytes. Does not know whether a segment is in the
window, or which commands are allowed.
"""

from libc.stdint cimport uint32_t, uint8_t

from nfmailguard.cext.core cimport DROP_BEHIND_FIN, DROP_CLOSES_GAP, DROP_FINDING, DROP_INTERNAL, DROP_SUPER_PACKET
from nfmailguard.cext.flow.lifecycle cimport end_flow, stop_following
from nfmailguard.cext.flow.table cimport FLOW_DROPPED, FLOW_INSPECTED, FLOW_RESET, flow_waiting
from nfmailguard.cext.memory.accounting cimport dialogue_of
from nfmailguard.cext.memory.pagebuffer cimport pagebuffer_span
from nfmailguard.cext.operation cimport OP_ACCEPT, OP_DROP, OP_REPLACE
from nfmailguard.cext.policy.conditions cimport conflicting, report_condition, set_context
from nfmailguard.cext.policy.findings cimport Context, decide_flow, out_of_memory
from nfmailguard.cext.policy.numbers cimport (
    ACTION_DROP, ACTION_LOG, ACTION_PASS, ACTION_RESET, STREAM_EDIT_TOO_LATE, STREAM_MEMORY_LIMIT,
)
from nfmailguard.cext.policy.ruling cimport applies, gates
from nfmailguard.cext.smtp.dispatch cimport client_bytes, note_reply_arrived
from nfmailguard.cext.smtp.line cimport line_pool_trim
from nfmailguard.cext.smtp.message cimport chunk_waits
from nfmailguard.cext.smtp.reply cimport server_bytes
from nfmailguard.cext.smtp.turns cimport Said, take_turns
from nfmailguard.cext.tcp.holdqueue cimport answered, next_held
from nfmailguard.cext.tcp.stream cimport (
    Held, Stream, stream_acknowledge, stream_buffered, stream_consume, stream_ended, stream_held, stream_keep,
    stream_note_edit, stream_overwrite_with_buffered, stream_overwrite_with_first_copy,
)
from nfmailguard.cext.verdict cimport drop, forward
from nfmailguard.cext.wire.packet cimport PACKET_GSO, PARSED, nm_seq_diff, packet_parse, packet_trim


cdef void carry_out(Core *core, Flow *flow, uint8_t verdict, uint64_t now, Operations *out) noexcept nogil:
    if verdict == ACTION_LOG:
        stop_following(core, flow, now, out)
    # ACTION_DROP concerns only the packet, which is dropped by the caller
    elif verdict != ACTION_DROP:
        end_flow(core, flow, verdict, now, out)


cdef inline void keep(Core *core, Flow *flow, bint to_server, const uint8_t *data, uint32_t length, uint64_t now,
                      uint8_t *verdict) noexcept nogil:
    """Keeps decided bytes; where there is no memory, ``verdict`` becomes the action for the flow."""
    cdef Stream *stream = &flow.stream[to_server]
    if stream_keep(stream, &core.pool, data, length) < 0:
        verdict[0] = report_condition(core, flow, STREAM_MEMORY_LIMIT, to_server, now)
        stream.next_seq += length
        stream.bytes += length
        stream_acknowledge(stream, &core.pool, stream.next_seq)


cdef uint32_t take_turns_ahead(Core *core, Flow *flow, Context *context, uint8_t *data, uint32_t length,
                               uint64_t offset) noexcept nogil:
    """Reads the server's replies and the client's bytes forwarded ahead in turns; returns the bytes of replies read.

    Only for policies that apply nothing: no byte changes and no verdict ends the flow. Stops at a line not simple.
    """
    cdef Stream *stream = &flow.stream[1]
    cdef Said client, server
    cdef uint8_t verdict = ACTION_PASS
    if applies(context.policy) or stream_buffered(stream).seq != stream.next_seq:
        return 0
    client.length = stream_buffered(stream).data.length
    if client.length == 0:
        return 0
    client.data = pagebuffer_span(&stream_buffered(stream).data, 0, &client.length)
    client.offset = stream.bytes
    server.data = data
    server.length = length
    server.offset = offset
    client.read = server.read = 0
    take_turns(context, flow.dialogue, &client, &server)
    keep(core, flow, True, client.data, client.read, context.now, &verdict)
    if verdict != ACTION_PASS:
        decide_flow(context, verdict)
    if client.read:
        stream_consume(stream, &core.pool, client.read)
    return server.read


cdef uint32_t decide_replies(Core *core, Flow *flow, Context *context, uint8_t *data, uint32_t length,
                             Operations *out) noexcept nogil:
    """Decides the server's next bytes; in a flow that is only followed, also the client's up to each next reply."""
    cdef uint64_t offset = flow.stream[0].bytes
    cdef uint32_t decided = 0
    while decided < length and context.verdict == ACTION_PASS and flow.mode == FLOW_INSPECTED:
        decided += server_bytes(context, flow.dialogue, data + decided, length - decided, offset + decided)
        if decided < length and stream_buffered(&flow.stream[1]) != NULL:
            decided += take_turns_ahead(core, flow, context, data + decided, length - decided, offset + decided)
            drain(core, flow, True, context.now, out)
    return decided


cdef void decide(Core *core, Flow *flow, bint to_server, Decision *decision, uint64_t now,
                 Operations *out) noexcept nogil:
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint8_t *data = decision.data
    cdef uint32_t length = decision.length, decided = 0, changed
    cdef Context context
    set_context(core, flow, &context, now)
    context.data = data
    context.length = length
    context.original = core.original
    context.already_forwarded = decision.already_forwarded
    if dialogue_of(core, flow) == NULL:
        out_of_memory(&context, to_server, stream.bytes)
    elif to_server:
        decided = client_bytes(&context, flow.dialogue, data, length, stream.bytes)
    else:
        decided = decide_replies(core, flow, &context, data, length, out)
    line_pool_trim(&core.dialogue_pool.line_pool)
    changed = context.edits if applies(flow.policy) else 0
    decision.decided = decided
    decision.changed = changed
    decision.verdict = context.verdict
    if context.verdict != ACTION_PASS or flow.mode != FLOW_INSPECTED:
        return
    if changed:
        stream_note_edit(stream, &core.pool, core.original, data, decided)
    if context.not_smtp:
        decision.verdict = ACTION_LOG
    else:
        keep(core, flow, to_server, data, decided, now, &decision.verdict)


cdef void decide_packet(Core *core, Flow *flow, bint to_server, Packet *packet, Decision *decision, uint64_t now,
                        Operations *out) noexcept nogil:
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t old = stream.next_seq - packet.seq
    cdef uint32_t put = 0, ahead = 0
    cdef bint conflict = 0
    decision.decided = decision.changed = 0
    decision.verdict = ACTION_PASS
    if old > packet.payload_length:
        old = packet.payload_length
    if old:
        core.counters.retransmissions += 1
        put = stream_overwrite_with_first_copy(stream, packet.seq, packet.payload, old,
                                               applies(flow.policy), &conflict)
    if old < packet.payload_length:
        decision.data = packet.payload + old
        decision.length = packet.payload_length - old
        decision.already_forwarded = 0
        if stream_buffered(stream) != NULL:
            ahead = stream_overwrite_with_buffered(stream, packet.seq + old, decision.data, decision.length,
                                                   applies(flow.policy))
        decide(core, flow, to_server, decision, now, out)
    if put + ahead and applies(flow.policy):
        decision.changed += put + ahead
    if (conflict or ahead) and decision.verdict == ACTION_PASS and flow.mode == FLOW_INSPECTED:
        decision.verdict = conflicting(core, flow, to_server, now)
    decision.decided += old


cdef void edit_after_forward(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    # The receiver would read bytes that should be changed as soon as the gap closes: the gap must stay open.
    report_condition(core, flow, STREAM_EDIT_TOO_LATE, to_server, now)
    end_flow(core, flow, ACTION_RESET, now, out)


cdef void note_pipelining_violation(Core *core, Flow *flow, uint64_t now) noexcept nogil:
    # Reports that the client has sent bytes although it has to wait for a reply.
    cdef Context context
    if flow.dialogue.exchange.pipelining_violation:
        return                                     # the violation has been reported already
    set_context(core, flow, &context, now)
    note_reply_arrived(&context, flow.dialogue, flow.stream[1].bytes)


cdef bint process_buffered(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """Decides bytes forwarded ahead of a gap whose turn has come; False when no more can be decided now."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t known = stream.next_seq - stream_buffered(stream).seq
    cdef uint32_t length = stream_buffered(stream).data.length
    cdef uint8_t *data
    cdef bint conflict
    cdef Decision decision
    if length == 0 or known >= length:
        known = length
    if known or length == 0:
        # The packet that closed the gap repeats these bytes; if they were changed in it, the ones forwarded were wrong.
        data = pagebuffer_span(&stream_buffered(stream).data, 0, &known) if length else NULL
        if (known and applies(flow.policy)
                and stream_overwrite_with_first_copy(
                    stream, stream_buffered(stream).seq, data, known, False, &conflict)):
            edit_after_forward(core, flow, to_server, now, out)
            return False
        stream_consume(stream, &core.pool, known)
        return True
    if to_server and flow_waiting(flow):
        note_pipelining_violation(core, flow, now)
        if gates(flow.policy) and flow.mode == FLOW_INSPECTED:
            edit_after_forward(core, flow, to_server, now, out)
        return False
    decision.data = pagebuffer_span(&stream_buffered(stream).data, 0, &length)
    decision.length = length
    decision.already_forwarded = 1
    decide(core, flow, to_server, &decision, now, out)
    if decision.verdict != ACTION_PASS:
        carry_out(core, flow, decision.verdict, now, out)
        return False
    if decision.changed:
        edit_after_forward(core, flow, to_server, now, out)
        return False
    if flow.mode != FLOW_INSPECTED:
        return False
    stream_consume(stream, &core.pool, decision.decided)
    return True


cdef inline bint needs_repetition(const Flow *flow, const Packet *packet, const Decision *decision) noexcept nogil:
    # A part of the packet must wait for a reply: only the bytes before it are forwarded; the sender repeats the rest.
    return (decision.decided < packet.payload_length and gates(flow.policy) and decision.verdict == ACTION_PASS
            and flow.mode == FLOW_INSPECTED)


cdef void forward_part(Core *core, Flow *flow, Packet *packet, uint32_t decided, Operations *out) noexcept nogil:
    """Forwards the decided part of a client's packet. A super-packet is dropped: the kernel would drop it if cut."""
    if packet.queued.flags & PACKET_GSO:
        drop(core, DROP_SUPER_PACKET, packet.queued.id, out)
        return
    packet_trim(packet, decided)
    forward(core, flow, True, packet, True, out)


cdef bint release_next(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """Decides the first held packet, whose turn has come; False when no more can be decided now."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef Held *held = stream_held(stream)
    cdef Packet packet
    cdef Decision decision
    if to_server and flow_waiting(flow) and nm_seq_diff(held.seq + held.payload_length, stream.next_seq) > 0:
        note_pipelining_violation(core, flow, now)
        return False
    if packet_parse(&packet, &held.queued) != PARSED:
        next_held(core, stream)
        core.counters.internal_errors += 1
        drop(core, DROP_INTERNAL, held.queued.id, out)
        answered(core, held)
        end_flow(core, flow, ACTION_RESET, now, out)
        return False
    if to_server and packet.seq == stream.next_seq and not stream_ended(stream) and flow.dialogue != NULL and (
            chunk_waits(flow.policy, &flow.session, flow.dialogue, packet.payload, packet.payload_length)):
        return False
    next_held(core, stream)
    if stream_ended(stream):
        drop(core, DROP_BEHIND_FIN, held.queued.id, out)
        answered(core, held)
        return True
    decide_packet(core, flow, to_server, &packet, &decision, now, out)
    if decision.verdict > ACTION_LOG:
        drop(core, DROP_FINDING, held.queued.id, out)
    elif needs_repetition(flow, &packet, &decision):
        forward_part(core, flow, &packet, decision.decided, out)
    else:
        forward(core, flow, to_server, &packet, decision.changed or held.cleared, out)
    answered(core, held)
    if decision.verdict != ACTION_PASS:
        carry_out(core, flow, decision.verdict, now, out)
        return False
    return flow.mode == FLOW_INSPECTED


cdef void drain(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """Decides bytes forwarded ahead and held packets, as far as all bytes before them are decided."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef bint more = True
    cdef bint ahead, held
    while more and flow.mode == FLOW_INSPECTED:
        if (not to_server and not gates(flow.policy) and stream_buffered(&flow.stream[1]) != NULL
                and not flow_waiting(flow)):
            drain(core, flow, True, now, out)       # first, bytes that the client sent before the server's next reply
            if flow.mode != FLOW_INSPECTED:
                break
        ahead = stream_buffered(stream) != NULL and nm_seq_diff(stream_buffered(stream).seq, stream.next_seq) <= 0
        held = stream_held(stream) != NULL and nm_seq_diff(stream_held(stream).seq, stream.next_seq) <= 0
        if ahead:                                  # bytes forwarded ahead come first, for they can no longer be changed
            more = process_buffered(core, flow, to_server, now, out)
        elif held:
            more = release_next(core, flow, to_server, now, out)
        else:
            break
    if flow.mode == FLOW_RESET or flow.mode == FLOW_DROPPED:
        withdraw(core, out)                       # a packet that closes the gap too early must not be delivered


cdef void withdraw(Core *core, Operations *out) noexcept nogil:
    # Turns into drops the packets this call was about to let pass; all are of the flow that has just ended.
    cdef uint32_t i
    for i in range(core.first_of_call, out.count):
        if out.items[i].kind == OP_ACCEPT or out.items[i].kind == OP_REPLACE:
            if out.items[i].kind == OP_ACCEPT:
                core.counters.accepted -= 1
            else:
                core.counters.replaced -= 1
            core.counters.dropped += 1
            core.drops[DROP_CLOSES_GAP] += 1
            out.items[i].kind = OP_DROP
