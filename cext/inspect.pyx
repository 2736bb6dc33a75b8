# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Inspects one flow.

Keeps invariant 2 (delivered is decided): bytes that cannot be decided yet are held or, in
message text, forwarded ahead of the gap and decided before the gap closes.
Keeps invariant 5: where the policy does not apply, every packet is accepted unchanged
and its bytes are only followed. Does not know how a flow is found, begun or timed out, nor
how its bytes are decided.

What becomes of a segment's payload, by its flow's Conduct (WATCH: monitor, EDIT: restore, GATE: enforce):

                                  WATCH             EDIT              GATE
    in order                      forwarded         decided, then     decided, then
                                  unchanged, read   forwarded         forwarded
    client, out of order          forwarded, read   forwarded, read   held; message text is
                                  when in order     when in order     forwarded, read in order
    server, out of order          forwarded, read   held              held
                                  when in order
    client, before a reply it     forwarded, read   forwarded, read   held
    has to wait for               after the reply   after the reply
    forwarded early, found to     reported          not changed       both ends are
    need a change when read                                           reset
    retransmission with other     forwarded         the first copy    the first copy
    bytes                         unchanged         is forwarded      is forwarded

The table in tcp.reorder handles out-of-order segments; tests/flows/test_conducts.py tests all cases.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint32_t, uint8_t

from nfmailguard.cext.core cimport (
    DROP_BEHIND_FIN, DROP_CLOSED, DROP_EARLY, DROP_END_KEPT, DROP_FINDING, DROP_SUPER_PACKET, DROP_SYN_ACK, DROP_WINDOW,
)
from nfmailguard.cext.decide cimport (
    Decision, carry_out, decide_packet, drain, forward_part, note_pipelining_violation,
)
from nfmailguard.cext.flow.lifecycle cimport end_flow, stop_following
from nfmailguard.cext.flow.table cimport (
    CLIENT_ANSWERED, CONFIRMED, FLOW_INSPECTED, SERVER_ANSWERED, flow_closed, flow_waiting,
)
from nfmailguard.cext.memory.accounting cimport free_if_idle, memory_is_ample
from nfmailguard.cext.memory.pressure cimport room_for
from nfmailguard.cext.policy.actions cimport apply_condition
from nfmailguard.cext.policy.conditions cimport report_condition
from nfmailguard.cext.policy.numbers cimport (
    ACTION_DROP, ACTION_LOG, ACTION_PASS, ACTION_RESET, BUG_DOT_CRLF, FLOW_ASYMMETRIC, STREAM_END_KEPT,
)
from nfmailguard.cext.policy.ruling cimport applies, gates
from nfmailguard.cext.record cimport END_FIN
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.grammar cimport INPUT_OPAQUE
from nfmailguard.cext.smtp.message cimport end_begun, end_is_cut
from nfmailguard.cext.smtp.text cimport note_end_held
from nfmailguard.cext.tcp.reorder cimport forward_out_of_order, handle_out_of_order
from nfmailguard.cext.tcp.stream cimport (
    FIN_TAKEN, SYN_SEEN, Stream, stream_buffered, stream_ended, stream_held, stream_overwrite_with_first_copy,
)
from nfmailguard.cext.tcp.validate cimport (
    POSITION_BEYOND, POSITION_OLD, SegmentPosition, segment_position, take_acknowledgement, take_urgent,
    trim_early_talk,
)
from nfmailguard.cext.verdict cimport drop, drop_if, forward
from nfmailguard.cext.wire.packet cimport PACKET_GSO, TCP_ACK, nm_seq_diff, packet_trim

cdef extern from "scan.h" nogil:
    bint nm_clear_eighth(uint8_t *p, size_t length) noexcept

cdef enum:
    MOST_HELD_ENDS = 3


cdef bint hold_end_of_data(Core *core, Flow *flow, Packet *packet, bint *cleared, uint64_t now,
                           Operations *out) noexcept nogil:
    """Does not forward the beginning of an end of data at a packet's end: the sender repeats it with the rest.

    CSCds90792 loses an end of data that is split between packets, and a sender that sees a restored greeting does
    not work around that. Returns True when nothing is left of the packet. At most three times a message: not every
    sender's retransmission is longer.
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
    """Whether nothing of a client's packet is forwarded because an end of data is split at its beginning or end."""
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
    """Whether a segment has bytes that no receiver may read, or not yet; such a segment is answered here."""
    cdef Stream *stream = &flow.stream[to_server]
    if (to_server and gates(flow.policy) and stream_ended(&flow.stream[0])
            and nm_seq_diff(packet.seq + packet.payload_length, stream.last_ack) > 0):
        # A server that has closed answers with a RST (RFC 9293 3.10.7.4), or has forgotten the connection (FIN-WAIT-2)
        # and would take this segment for another connection's: no receiver is left for the client's bytes.
        drop(core, DROP_CLOSED, packet.queued.id, out)
        end_flow(core, flow, ACTION_RESET, now, out)
        return True
    if to_server and gates(flow.policy) and flow.stream[0].bytes == 0 and trim_early_talk(flow, packet):
        drop(core, DROP_EARLY, packet.queued.id, out)
        return True
    if fresh and stream_ended(stream):
        if applies(flow.policy) or stream.fin == FIN_TAKEN:
            # No payload follows a FIN (RFC 9293 3.10.7.4); a receiver that has not seen the FIN must not see this.
            drop_if(core, applies(flow.policy), DROP_BEHIND_FIN, packet.queued.id, out)
            return True
        stream.fin = 0                             # the FIN may have been lost and this segment may arrive
    return False


cdef inline void handle_in_order(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                                 Operations *out) noexcept nogil:
    """Handles a segment whose new bytes, if any, are the next in order and may be decided now."""
    cdef Decision decision
    cdef bint changed
    decide_packet(core, flow, to_server, packet, &decision, now, out)
    changed = decision.changed != 0 or cleared
    if decision.verdict > ACTION_LOG:
        drop(core, DROP_FINDING, packet.queued.id, out)
        carry_out(core, flow, decision.verdict, now, out)
        return
    if decision.verdict != ACTION_PASS:
        forward(core, flow, to_server, packet, changed, out)
        carry_out(core, flow, decision.verdict, now, out)
        return
    if decision.decided >= packet.payload_length or flow.mode != FLOW_INSPECTED:
        forward(core, flow, to_server, packet, changed, out)
    elif not gates(flow.policy):
        # The dialogue is only followed: the rest of the segment is read after the reply.
        forward_out_of_order(core, flow, to_server, packet, changed, now, out)
    elif decision.decided == 0:
        handle_out_of_order(core, flow, to_server, packet, cleared, now, out)
    else:
        forward_part(core, flow, packet, decision.decided, out)
    if something_waits(flow, to_server):
        drain(core, flow, to_server, now, out)
    if not to_server and something_waits(flow, True) and not flow_waiting(flow) and (
            not gates(flow.policy) or not stream_ended(&flow.stream[0])):
        drain(core, flow, True, now, out)           # the reply that the client's waiting bytes needed has come


cdef void handle_segment(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                         Operations *out) noexcept nogil:
    """Handles a segment with payload; ``cleared``: its header has been changed already."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef bint waiting = to_server and flow_waiting(flow)
    cdef int32_t ahead = nm_seq_diff(packet.seq, stream.next_seq)
    cdef bint fresh = nm_seq_diff(packet.seq + packet.payload_length, stream.next_seq) > 0
    cdef bint conflict
    if goes_nowhere(core, flow, to_server, packet, fresh, now, out):
        return
    if waiting and fresh and ahead <= 0:
        note_pipelining_violation(core, flow, now)
    if ahead > 0:
        core.counters.out_of_order += 1
        handle_out_of_order(core, flow, to_server, packet, cleared, now, out)
        return
    if waiting and fresh and (ahead == 0 or not gates(flow.policy)):
        if ahead < 0 and applies(flow.policy):
            core.counters.retransmissions += 1
            cleared |= stream_overwrite_with_first_copy(stream, packet.seq, packet.payload, <uint32_t> -ahead, True,
                                                        &conflict) != 0
        handle_out_of_order(core, flow, to_server, packet, cleared, now, out)
        return
    if waiting and fresh:
        # Only the retransmitted bytes may pass before the reply; the sender repeats the others. A super-packet
        # cut to less than its segment size would be dropped by the kernel.
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
    handle_in_order(core, flow, to_server, packet, cleared, now, out)


cdef void inspect_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                         Operations *out) noexcept nogil:
    cdef bint cleared
    cdef SegmentPosition standing = segment_position(flow, to_server, packet)
    if standing == POSITION_BEYOND:
        core.counters.beyond_window += 1
        drop_if(core, applies(flow.policy), DROP_WINDOW, packet.queued.id, out)
        return
    if (standing != POSITION_OLD and packet.flags & TCP_ACK
            and not take_acknowledgement(core, flow, to_server, packet, now, out)):
        return
    if packet.payload_length and not to_server and flow.handshake & SERVER_ANSWERED:
        flow.handshake |= CLIENT_ANSWERED | CONFIRMED    # the server sends data, so it has the client's ACK
    if packet.payload_length and gates(flow.policy) and not flow.handshake & SERVER_ANSWERED and (
            not to_server or packet.seq != flow.stream[1].next_seq):
        # A late packet of an older connection over the same ports is no reason to end this flow.
        drop(core, DROP_SYN_ACK, packet.queued.id, out)
        return
    if packet.payload_length and not flow.handshake & CLIENT_ANSWERED:
        if to_server and not flow.stream[0].facts & SYN_SEEN:
            # The sequence number at which the client expects a RST.
            flow.stream[0].next_seq = flow.stream[0].last_ack = packet.ack
        apply_condition(core, flow, to_server, FLOW_ASYMMETRIC, packet, now, out)
        return
    if not take_urgent(core, flow, to_server, packet, now, &cleared, out):
        return
    cleared |= packet.changed
    if packet.payload_length and to_server and flow.policy.seven_bits and applies(flow.policy) and not (
            flow.dialogue != NULL and flow.dialogue.exchange.input == INPUT_OPAQUE):
        # The server clears the eighth bit too, before it looks at any byte.
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
        stop_following(core, flow, now, out)            # every byte sent before TLS began has been delivered
    else:
        free_if_idle(core, flow)
