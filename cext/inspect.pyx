# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Inspection of one flow.

Keeps invariant 2 (delivered is decided): octets are decided in order and once;
retransmissions carry what was decided; what cannot be decided yet is held, or, in
message text, let through ahead of the gap and decided before the gap closes.
Keeps invariant 5: where the policy does not apply, everything is accepted as it
came and only followed. Does not know how a flow is found, begun or aged.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint8_t

from nfmailguard.cext.core cimport (
    DROP_BEHIND_FIN, DROP_CLOSED, DROP_CLOSES_GAP, DROP_CONDITION, DROP_EARLY, DROP_END_KEPT, DROP_FINDING,
    DROP_INTERNAL, DROP_SUPER_PACKET, DROP_SYN_ACK, DROP_WINDOW,
)
from nfmailguard.cext.flow.lifecycle cimport end_flow, stop_following
from nfmailguard.cext.flow.table cimport FLOW_DROPPED, FLOW_INSPECTED, FLOW_RESET, flow_closed, flow_waiting
from nfmailguard.cext.memory.accounting cimport dialogue_of, free_if_idle, memory_is_ample
from nfmailguard.cext.memory.pagebuffer cimport pagebuffer_span
from nfmailguard.cext.memory.pressure cimport room_for
from nfmailguard.cext.operation cimport OP_ACCEPT, OP_DROP, OP_REPLACE
from nfmailguard.cext.policy.actions cimport apply_condition
from nfmailguard.cext.policy.conditions cimport conflicting, report_condition, set_context
from nfmailguard.cext.policy.findings cimport Context, out_of_memory
from nfmailguard.cext.policy.numbers cimport (
    ACTION_DROP, ACTION_LOG, ACTION_PASS, ACTION_RESET, BUG_DOT_CRLF, FLOW_ASYMMETRIC, STREAM_EDIT_TOO_LATE,
    STREAM_END_KEPT, STREAM_MEMORY_LIMIT,
)
from nfmailguard.cext.record cimport END_FIN
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.dispatch cimport client_bytes, note_reply_arrived
from nfmailguard.cext.smtp.grammar cimport INPUT_OPAQUE
from nfmailguard.cext.smtp.line cimport line_pool_trim
from nfmailguard.cext.smtp.message cimport chunk_waits, end_begun, end_is_cut
from nfmailguard.cext.smtp.reply cimport server_bytes
from nfmailguard.cext.smtp.text cimport note_end_held
from nfmailguard.cext.smtp.turns cimport Said, take_turns
from nfmailguard.cext.tcp.holdqueue cimport answered, next_held
from nfmailguard.cext.tcp.reorder cimport forward_out_of_order, handle_out_of_order
from nfmailguard.cext.tcp.stream cimport (
    FIN_TAKEN, Held, Stream, stream_acknowledge, stream_buffered, stream_consume, stream_ended, stream_held,
    stream_keep, stream_note_edit, stream_overwrite_with_buffered, stream_overwrite_with_first_copy,
)
from nfmailguard.cext.tcp.validate cimport (
    POSITION_BEYOND, POSITION_OLD, SegmentPosition, segment_position, take_acknowledgement, take_urgent,
    trim_early_talk,
)
from nfmailguard.cext.verdict cimport drop, drop_if, forward
from nfmailguard.cext.wire.packet cimport PACKET_GSO, PARSED, TCP_ACK, nm_seq_diff, packet_parse, packet_trim

cdef extern from "scan.h" nogil:
    bint nm_clear_eighth(uint8_t *p, size_t length) noexcept

cdef enum:
    MOST_HELD_ENDS = 3


cdef void carry_out(Core *core, Flow *flow, uint8_t verdict, uint64_t now, Operations *out) noexcept nogil:
    # A verdict other than ACTION_PASS; ACTION_LOG: not to be looked at any more.
    if verdict == ACTION_LOG:
        stop_following(core, flow, now, out)
    elif verdict != ACTION_DROP:                   # that packet alone
        end_flow(core, flow, verdict, now, out)


cdef void keep(Core *core, Flow *flow, bint to_server, const uint8_t *data, uint32_t length, uint64_t now,
               uint8_t *verdict) noexcept nogil:
    """Keeps octets that have been decided; ``verdict``: what is to become of the flow, where there is no memory."""
    cdef Stream *stream = &flow.stream[to_server]
    if stream_keep(stream, &core.pool, data, length) < 0:
        verdict[0] = report_condition(core, flow, STREAM_MEMORY_LIMIT, to_server, now)
        stream.next_seq += length
        stream.bytes += length
        stream_acknowledge(stream, &core.pool, stream.next_seq)


cdef uint32_t take_turns_ahead(Core *core, Flow *flow, Context *context, uint8_t *data, uint32_t length,
                               uint64_t offset) noexcept nogil:
    """Reads replies, and between them what went ahead of the client's, as far as both are simple: the replies' octets.

    Nothing is applied here, so nothing changes and no verdict ends the flow.
    """
    cdef Stream *stream = &flow.stream[1]
    cdef Said client, server
    if context.policy.apply or stream_buffered(stream).seq != stream.next_seq:
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
    keep(core, flow, True, client.data, client.read, context.now, &context.verdict)
    if client.read:
        stream_consume(stream, &core.pool, client.read)
    return server.read


cdef uint32_t decide_replies(Core *core, Flow *flow, Context *context, uint8_t *data, uint32_t length,
                             Operations *out) noexcept nogil:
    """Decides the server's next octets; where only followed, with what the client said before the next reply."""
    cdef uint64_t offset = flow.stream[0].bytes
    cdef uint32_t decided = 0
    while decided < length and context.verdict == ACTION_PASS and flow.mode == FLOW_INSPECTED:
        decided += server_bytes(context, flow.dialogue, data + decided, length - decided, offset + decided)
        if decided < length and stream_buffered(&flow.stream[1]) != NULL:
            decided += take_turns_ahead(core, flow, context, data + decided, length - decided, offset + decided)
            drain(core, flow, True, context.now, out)
    return decided


cdef uint32_t decide(Core *core, Flow *flow, bint to_server, uint8_t *data, uint32_t length, uint64_t now,
                     bint already_forwarded, uint32_t *changed, uint8_t *verdict, Operations *out) noexcept nogil:
    """Decides the next ``length`` octets of a stream, in place, and keeps them.

    Returns how many were decided: all, or, where they have left already (``already_forwarded``) or the
    ruling does not apply, those before the client has to wait. ``changed``: how many differ
    now; ``verdict``: the action that ends the flow, or ACTION_PASS.
    """
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t decided = 0
    cdef Context context
    set_context(core, flow, &context, now)
    context.data = data
    context.length = length
    context.original = core.original
    context.already_forwarded = already_forwarded
    if dialogue_of(core, flow) == NULL:
        out_of_memory(&context, to_server, stream.bytes)
    elif to_server:
        decided = client_bytes(&context, flow.dialogue, data, length, stream.bytes)
    else:
        decided = decide_replies(core, flow, &context, data, length, out)
    line_pool_trim(&core.dialogue_pool.line_pool)
    changed[0] = context.edits if flow.policy.apply else 0
    verdict[0] = context.verdict
    if context.verdict != ACTION_PASS or flow.mode != FLOW_INSPECTED:
        return decided
    if changed[0]:
        stream_note_edit(stream, &core.pool, core.original, data, decided)
    if context.not_smtp:
        verdict[0] = ACTION_LOG
    else:
        keep(core, flow, to_server, data, decided, now, verdict)
    return decided


cdef uint32_t decide_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, uint32_t *changed,
                            uint8_t *verdict, Operations *out) noexcept nogil:
    """Decides the payload of a packet that begins at or before the next octet, as ``decide`` does."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t old = stream.next_seq - packet.seq
    cdef uint32_t put = 0, ahead = 0, decided = 0
    cdef bint apply = flow.policy.apply
    cdef bint conflict = 0
    changed[0] = 0
    verdict[0] = ACTION_PASS
    if old > packet.payload_length:
        old = packet.payload_length
    if old:
        core.counters.retransmissions += 1
        put = stream_overwrite_with_first_copy(stream, packet.seq, packet.payload, old, apply, &conflict)
    if old < packet.payload_length:
        if stream_buffered(stream) != NULL:
            ahead = stream_overwrite_with_buffered(stream, packet.seq + old, packet.payload + old,
                                                   packet.payload_length - old, apply)
        decided = decide(core, flow, to_server, packet.payload + old, packet.payload_length - old, now,
                         False, changed, verdict, out)
    if apply:
        changed[0] += put + ahead
    if (conflict or ahead) and verdict[0] == ACTION_PASS and flow.mode == FLOW_INSPECTED:
        verdict[0] = conflicting(core, flow, to_server, now)
    return old + decided


cdef void edit_after_forward(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    # Octets that the receiver will read as soon as the gap closes would have to change: it must not close.
    report_condition(core, flow, STREAM_EDIT_TOO_LATE, to_server, now)
    end_flow(core, flow, ACTION_RESET, now, out)


cdef void note_pipelining_violation(Core *core, Flow *flow, uint64_t now) noexcept nogil:
    # Octets of the client's have come although it has to wait for a reply.
    cdef Context context
    if flow.dialogue.exchange.pipelining_violation:
        return                                     # it has been told
    set_context(core, flow, &context, now)
    note_reply_arrived(&context, flow.dialogue, flow.stream[1].bytes)


cdef bint process_buffered(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """Decides octets that went ahead and whose turn has come; False when no more can be decided now."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t known = stream.next_seq - stream_buffered(stream).seq
    cdef uint32_t length = stream_buffered(stream).data.length
    cdef uint32_t changed, decided
    cdef uint8_t verdict
    cdef uint8_t *data
    cdef bint apply = flow.policy.apply
    cdef bint conflict
    if length == 0 or known >= length:
        known = length
    if known or length == 0:
        # The packet that closed the gap brought them too, as they stand here; decided, they must be the same.
        data = pagebuffer_span(&stream_buffered(stream).data, 0, &known) if length else NULL
        if (apply and known
                and stream_overwrite_with_first_copy(
                    stream, stream_buffered(stream).seq, data, known, False, &conflict)):
            edit_after_forward(core, flow, to_server, now, out)
            return False
        stream_consume(stream, &core.pool, known)
        return True
    if to_server and flow_waiting(flow):
        note_pipelining_violation(core, flow, now)
        if flow.policy.hold and flow.mode == FLOW_INSPECTED:
            edit_after_forward(core, flow, to_server, now, out)
        return False
    data = pagebuffer_span(&stream_buffered(stream).data, 0, &length)
    decided = decide(core, flow, to_server, data, length, now, True, &changed, &verdict, out)
    if verdict != ACTION_PASS:
        carry_out(core, flow, verdict, now, out)
        return False
    if changed:
        edit_after_forward(core, flow, to_server, now, out)
        return False
    if flow.mode != FLOW_INSPECTED:
        return False
    stream_consume(stream, &core.pool, decided)
    return True


cdef inline bint needs_repetition(Flow *flow, const Packet *packet, uint32_t decided, uint8_t verdict) noexcept nogil:
    # A chunk in the packet has to wait: its sender says it once more.
    return (decided < packet.payload_length and flow.policy.hold and verdict == ACTION_PASS
            and flow.mode == FLOW_INSPECTED)


cdef void forward_part(Core *core, Flow *flow, Packet *packet, uint32_t decided, Operations *out) noexcept nogil:
    """The client's octets that are decided. A super-packet would, trimmed, be dropped by the kernel."""
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
    cdef uint32_t changed, decided
    cdef uint8_t verdict
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
    decided = decide_packet(core, flow, to_server, &packet, now, &changed, &verdict, out)
    if verdict > ACTION_LOG:
        drop(core, DROP_FINDING, held.queued.id, out)
    elif needs_repetition(flow, &packet, decided, verdict):
        forward_part(core, flow, &packet, decided, out)
    else:
        forward(core, flow, to_server, &packet, changed or held.cleared, out)
    answered(core, held)
    if verdict != ACTION_PASS:
        carry_out(core, flow, verdict, now, out)
        return False
    return flow.mode == FLOW_INSPECTED


cdef void drain(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """Decides what went ahead and what is held, as far as its turn has come."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef bint more = True
    cdef bint ahead, held
    while more and flow.mode == FLOW_INSPECTED:
        if (not to_server and not flow.policy.hold and stream_buffered(&flow.stream[1]) != NULL
                and not flow_waiting(flow)):
            drain(core, flow, True, now, out)       # what the client said before the server's next reply
            if flow.mode != FLOW_INSPECTED:
                break
        ahead = stream_buffered(stream) != NULL and nm_seq_diff(stream_buffered(stream).seq, stream.next_seq) <= 0
        held = stream_held(stream) != NULL and nm_seq_diff(stream_held(stream).seq, stream.next_seq) <= 0
        if ahead:                                  # first: what has left cannot be told otherwise any more
            more = process_buffered(core, flow, to_server, now, out)
        elif held:
            more = release_next(core, flow, to_server, now, out)
        else:
            break
    if flow.mode == FLOW_RESET or flow.mode == FLOW_DROPPED:
        withdraw(core, out)                       # what closes a gap too early must not arrive


cdef void withdraw(Core *core, Operations *out) noexcept nogil:
    # Every packet this call was about to let through is of the flow that has just ended.
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


cdef bint hold_end_of_data(Core *core, Flow *flow, Packet *packet, bint *cleared, uint64_t now,
                           Operations *out) noexcept nogil:
    """Holds back what begins an end of data at the packet's end: the sender repeats it with the rest.

    CSCds90792 loses one that is cut between packets, and a sender that sees a restored greeting does not see
    to it itself. Returns True when nothing is left of the packet. Three times a message: not every sender's
    repetition is longer.
    """
    cdef Dialogue *dialogue = flow.dialogue
    cdef uint32_t begun = end_begun(dialogue, packet.payload, packet.payload_length) if dialogue != NULL else 0
    if begun == 0 or dialogue.text.ends_held == MOST_HELD_ENDS or packet.queued.flags & PACKET_GSO:
        return False
    note_end_held(&dialogue.text)
    report_condition(core, flow, STREAM_END_KEPT, True, now)
    if begun == packet.payload_length:
        drop(core, DROP_END_KEPT, packet.queued.id, out)
        return True
    packet_trim(packet, packet.payload_length - begun)
    cleared[0] = True
    return False


cdef inline bint cut_end_stays(Core *core, Flow *flow, Packet *packet, bint *cleared, uint64_t now,
                               Operations *out) noexcept nogil:
    """Whether nothing is left of a client's packet, for an end of data that is cut by its beginning or its end."""
    if flow.policy.hold_end_of_data and hold_end_of_data(core, flow, packet, cleared, now, out):
        return True
    if not flow.policy.bug_dot_crlf or flow.dialogue == NULL or not end_is_cut(
            flow.dialogue, packet.payload, packet.payload_length):
        return False
    if report_condition(core, flow, BUG_DOT_CRLF, True, now) != ACTION_DROP:
        return False
    drop(core, DROP_FINDING, packet.queued.id, out)
    return True


cdef inline bint something_waits(const Flow *flow, bint to_server) noexcept nogil:
    cdef const Stream *stream = &flow.stream[to_server]
    return flow.mode == FLOW_INSPECTED and (stream_buffered(stream) != NULL or stream_held(stream) != NULL)


cdef bint goes_nowhere(Core *core, Flow *flow, bint to_server, Packet *packet, bint fresh, uint64_t now,
                       Operations *out) noexcept nogil:
    """Whether a segment says what nobody may read any more, or not yet; it is answered then."""
    cdef Stream *stream = &flow.stream[to_server]
    if (to_server and flow.policy.hold and stream_ended(&flow.stream[0])
            and nm_seq_diff(packet.seq + packet.payload_length, stream.last_ack) > 0):
        # A server that has closed resets (RFC 9293 3.10.7.4), or has forgotten the connection without a word
        # (FIN-WAIT-2) and would read this as another one's: nobody is left whom the client could say it to.
        drop(core, DROP_CLOSED, packet.queued.id, out)
        end_flow(core, flow, ACTION_RESET, now, out)
        return True
    if to_server and flow.policy.hold and flow.stream[0].bytes == 0 and trim_early_talk(flow, packet):
        drop(core, DROP_EARLY, packet.queued.id, out)
        return True
    if fresh and stream_ended(stream):
        if flow.policy.apply or stream.fin == FIN_TAKEN:
            # Behind a FIN there is nothing (RFC 9293 3.10.7.4); who has not seen that FIN must not see this.
            drop_if(core, flow.policy.apply, DROP_BEHIND_FIN, packet.queued.id, out)
            return True
        stream.fin = 0                             # it may have died on the way, and this may arrive
    return False


cdef void handle_segment(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                         Operations *out) noexcept nogil:
    """A segment with payload; ``cleared``: its header has been changed already."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef bint apply = flow.policy.apply
    cdef bint waiting = to_server and flow_waiting(flow)
    cdef int32_t ahead = nm_seq_diff(packet.seq, stream.next_seq)
    cdef bint fresh = nm_seq_diff(packet.seq + packet.payload_length, stream.next_seq) > 0
    cdef uint32_t changed, decided
    cdef uint8_t verdict
    cdef bint conflict
    if goes_nowhere(core, flow, to_server, packet, fresh, now, out):
        return
    if waiting and fresh and ahead <= 0:
        note_pipelining_violation(core, flow, now)
    if ahead > 0:
        core.counters.out_of_order += 1
        handle_out_of_order(core, flow, to_server, packet, cleared, now, out)
        return
    if waiting and fresh and (ahead == 0 or not flow.policy.hold):
        if apply and ahead < 0:
            core.counters.retransmissions += 1
            cleared |= stream_overwrite_with_first_copy(stream, packet.seq, packet.payload, <uint32_t> -ahead, True,
                                                        &conflict) != 0
        handle_out_of_order(core, flow, to_server, packet, cleared, now, out)
        return
    if waiting and fresh:
        # Only the old octets may go before the reply; the sender repeats the others. A super-packet
        # trimmed below its segment size would be dropped by the kernel.
        if packet.queued.flags & PACKET_GSO:
            drop(core, DROP_SUPER_PACKET, packet.queued.id, out)
            return
        packet_trim(packet, <uint32_t> -ahead)
        cleared = True
    if to_server and ahead == 0 and cut_end_stays(core, flow, packet, &cleared, now, out):
        return
    if fresh and not memory_is_ample(core, packet.payload_length) and not room_for(
            core, flow, to_server, packet, now, out):
        return
    decided = decide_packet(core, flow, to_server, packet, now, &changed, &verdict, out)
    if verdict > ACTION_LOG:
        drop(core, DROP_FINDING, packet.queued.id, out)
        carry_out(core, flow, verdict, now, out)
        return
    if verdict != ACTION_PASS:
        forward(core, flow, to_server, packet, changed != 0 or cleared, out)
        carry_out(core, flow, verdict, now, out)
        return
    if decided == 0 and needs_repetition(flow, packet, decided, verdict):
        handle_out_of_order(core, flow, to_server, packet, cleared, now, out)
    elif needs_repetition(flow, packet, decided, verdict):
        forward_part(core, flow, packet, decided, out)
    elif decided < packet.payload_length and flow.mode == FLOW_INSPECTED:
        # Followed only: the rest is read after the reply.
        forward_out_of_order(core, flow, to_server, packet, changed != 0 or cleared, now, out)
    else:
        forward(core, flow, to_server, packet, changed != 0 or cleared, out)
    if something_waits(flow, to_server):
        drain(core, flow, to_server, now, out)
    if not to_server and something_waits(flow, True) and not flow_waiting(flow) and (
            not flow.policy.hold or not stream_ended(stream)):
        drain(core, flow, True, now, out)           # the reply that was waited for


cdef void inspect_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                         Operations *out) noexcept nogil:
    cdef bint cleared
    cdef SegmentPosition standing = segment_position(flow, to_server, packet)
    if standing == POSITION_BEYOND:
        core.counters.beyond_window += 1
        drop_if(core, flow.policy.apply, DROP_WINDOW, packet.queued.id, out)
        return
    if (standing != POSITION_OLD and packet.flags & TCP_ACK
            and not take_acknowledgement(core, flow, to_server, packet, now, out)):
        return
    if packet.payload_length and not to_server and flow.syn_ack:
        flow.answered = flow.confirmed = 1         # a server that speaks has got the client's ACK
    if packet.payload_length and flow.policy.hold and not flow.syn_ack and (
            not to_server or packet.seq != flow.stream[1].next_seq):
        # Of the connection before, over the same ports, come late: no reason to end this one.
        drop(core, DROP_SYN_ACK, packet.queued.id, out)
        return
    if packet.payload_length and not flow.answered:
        if to_server and not flow.stream[0].known:
            flow.stream[0].next_seq = flow.stream[0].last_ack = packet.ack   # where the client expects a RST
        apply_condition(core, flow, to_server, FLOW_ASYMMETRIC, DROP_CONDITION, packet, now, out)
        return
    if not take_urgent(core, flow, to_server, packet, now, &cleared, out):
        return
    cleared |= packet.changed
    if packet.payload_length and to_server and flow.policy.seven_bits and flow.policy.apply and not (
            flow.dialogue != NULL and flow.dialogue.exchange.input == INPUT_OPAQUE):
        # The server does the same, before it looks for anything.
        cleared |= nm_clear_eighth(packet.payload, packet.payload_length)
    if packet.payload_length:
        handle_segment(core, flow, to_server, packet, cleared, now, out)
    else:
        forward(core, flow, to_server, packet, cleared, out)
    if (flow.mode == FLOW_INSPECTED and not flow_closed(flow)
            and stream_ended(&flow.stream[0]) and stream_ended(&flow.stream[1])):
        flow.end = END_FIN
    if flow.dialogue == NULL:
        return
    if (flow.dialogue.exchange.input == INPUT_OPAQUE and flow.dialogue.exchange.tls_checked
            and stream_buffered(&flow.stream[0]) == NULL and stream_buffered(&flow.stream[1]) == NULL
            and stream_held(&flow.stream[0]) == NULL and stream_held(&flow.stream[1]) == NULL):
        stop_following(core, flow, now, out)            # every octet of the plain dialogue has been delivered
    else:
        free_if_idle(core, flow)
