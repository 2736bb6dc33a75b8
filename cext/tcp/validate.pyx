# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Admission: which segments are believed, and what their headers say.

Keeps invariant 2 (delivered is decided): kept bytes are freed only by ACKs of bytes that were forwarded, in segments
their receiver would accept (RFC 9293 3.10.7.4, RFC 5961 5), so that whoever sees only one side cannot empty the store;
and no byte passes that the receiver's window has no room for. Does not know payloads.
"""

from libc.stdint cimport int32_t, uint32_t

from nfmailguard.cext.core cimport (
    DROP_FINDING, DROP_FLOW_ENDED, DROP_FRAGMENT, DROP_GAP, DROP_MALFORMED, DROP_OPTION, DROP_TRUNCATED,
)
from nfmailguard.cext.flow.rules cimport inspected_port
from nfmailguard.cext.flow.table cimport (
    CLIENT_ANSWERED, CONFIRMED, FLOW_BYPASSED, FLOW_INSPECTED, SERVER_ANSWERED, agreed, flow_find,
)
from nfmailguard.cext.policy.actions cimport answer_by, apply_condition, bypass
from nfmailguard.cext.policy.conditions cimport (
    is_to_server, policy_without_flow, report_condition, report_without_flow,
)
from nfmailguard.cext.policy.numbers cimport ACTION_LOG, PACKET_FRAGMENT, PACKET_TRUNCATED, STREAM_GAP, STREAM_URGENT
from nfmailguard.cext.policy.ruling cimport CompiledPolicy, applies, gates
from nfmailguard.cext.tcp.stream cimport (
    FIN_TAKEN, SYN_SEEN, WINDOW_KNOWN, OutOfOrder, Stream, before_stream, buffered_end, stream_acknowledge,
    stream_buffered, stream_isn,
)
from nfmailguard.cext.tcp.window cimport take_window
from nfmailguard.cext.verdict cimport accept, drop, drop_if
from nfmailguard.cext.wire.options cimport OPTION_SACK, OPTION_SACK_PERMITTED, options_read
from nfmailguard.cext.wire.packet cimport (
    FRAGMENT, NOT_TCP, PACKET_GSO, TCP_URG, TRUNCATED, nm_seq_diff, packet_blank_ip_options, packet_clear_urgent,
    packet_note_change, packet_trim,
)

cdef enum:
    MOST_EARLY = 3             # bytes of a client that pass before the greeting; every verb is longer
    FARTHEST = 1 << 30         # bytes a segment may be ahead of the next byte; no window is larger (RFC 7323 2.3)


cdef uint8_t refused_by_header(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    cdef bint apply = gates(flow.policy)
    cdef bint shaken = flow.stream[0].facts & flow.stream[1].facts & SYN_SEEN
    if packet.extended and apply:
        if packet.family == 6:
            return DROP_OPTION                     # RFC 8200 4.2: a host must refuse some options; mail needs none
        packet_blank_ip_options(packet)
    options_read(packet, OPTION_SACK if agreed(flow, OPTION_SACK_PERMITTED) else 0, apply and shaken)
    core.counters.options_blanked += packet.changed
    return DROP_OPTION if packet.options.refused else 0


cdef inline bint stale(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # A segment whose ACK is older than a window is not accepted, nor are its bytes (RFC 5961 5.2).
    cdef Stream *other = &flow.stream[not to_server]
    return (flow.handshake & CLIENT_ANSWERED and packet.flags & TCP_ACK
            and nm_seq_diff(other.last_ack, packet.ack) > <int32_t> other.max_window)


cdef SegmentPosition segment_position(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t edge
    if not stream.facts & SYN_SEEN:
        return POSITION_IN
    edge = stream.window_end if stream.facts & WINDOW_KNOWN else stream.next_seq + FARTHEST
    if nm_seq_diff(packet.seq, edge) > 0 or stale(flow, to_server, packet):
        return POSITION_BEYOND
    # A keep-alive begins one byte before the next byte (RFC 1122 4.2.3.6); no other segment begins before its stream's
    # first byte, or acknowledges less than the other stream's first byte.
    if before_stream(stream, packet.seq + 1) or (
            packet.flags & TCP_ACK and flow.handshake & SERVER_ANSWERED
            and before_stream(&flow.stream[not to_server], packet.ack)):
        return POSITION_BEYOND
    if nm_seq_diff(packet.seq + packet.payload_length, stream.last_ack) < 0:
        return POSITION_OLD
    return POSITION_IN


cdef inline uint32_t forwarded_to(Stream *stream) noexcept nogil:
    # The end of what the receiver can have in order, in modes that forward segments before they are decided.
    cdef uint32_t end = stream.next_seq
    cdef OutOfOrder *ahead = stream_buffered(stream)
    while ahead != NULL and nm_seq_diff(ahead.seq, end) <= 0:
        if nm_seq_diff(buffered_end(ahead), end) > 0:
            end = buffered_end(ahead)
        ahead = ahead.next
    return end


cdef bint take_acknowledgement(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                               Operations *out) noexcept nogil:
    cdef Stream *stream = &flow.stream[not to_server]
    cdef uint32_t end, last
    if not stream.facts & SYN_SEEN or not (flow.handshake & SERVER_ANSWERED or to_server):
        return True                                # the server's ACK to a SYN, not a SYN+ACK: a challenge (RFC 5961 4)
    if nm_seq_diff(packet.ack, stream.last_ack) > 0:
        end = stream.next_seq if gates(flow.policy) or (to_server and applies(flow.policy)) else forwarded_to(stream)
        last = end + 1 if stream.fin and stream.fin_seq == end else end
        if nm_seq_diff(packet.ack, last) > 0:
            # Bytes were acknowledged that did not pass the gateway. Only a segment that begins exactly at the next
            # sequence number is believed: an attacker who guesses does not know it, an honest peer sends such a one.
            if packet.seq != flow.stream[to_server].next_seq:
                drop_if(core, applies(flow.policy), DROP_GAP, packet.queued.id, out)
            else:
                action = report_condition(core, flow, STREAM_GAP, not to_server, now)
                answer_by(core, flow, action, DROP_GAP, packet, now, out)
                if action <= ACTION_LOG:
                    bypass(core, flow, to_server, packet, now, out)
            return False
        if stream.fin and nm_seq_diff(packet.ack, stream.fin_seq) > 0:
            stream.fin = FIN_TAKEN
        stream_acknowledge(stream, &core.pool, packet.ack if nm_seq_diff(packet.ack, stream.next_seq) <= 0
                           else stream.next_seq)
    if to_server and flow.handshake & SERVER_ANSWERED:
        flow.handshake |= CLIENT_ANSWERED        # the client's ACK covers the server's SYN: older ACKs are refused
    elif not to_server and packet.ack != stream_isn(stream) + 1:
        flow.handshake |= CONFIRMED
    take_window(flow, to_server, packet)
    return True


cdef bint take_urgent(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, bint *cleared,
                      Operations *out) noexcept nogil:
    # Receivers disagree on the place of urgent data in the stream (RFC 6093 3.1).
    cdef uint8_t action
    cleared[0] = 0
    if not packet.flags & TCP_URG:
        return True
    action = report_condition(core, flow, STREAM_URGENT, to_server, now)
    if action > ACTION_LOG:
        answer_by(core, flow, action, DROP_FINDING, packet, now, out)
        return False
    if applies(flow.policy):
        packet_clear_urgent(packet)
        cleared[0] = 1
    return True


cdef void handle_malformed(Core *core, ParseResult result, Packet *packet, uint64_t now,
                           Operations *out) noexcept nogil:
    """Handles a packet that is no TCP, is a fragment, is malformed, or is not wholly here."""
    cdef CompiledPolicy *policy
    cdef bint to_server
    cdef Flow *flow
    if result == NOT_TCP:
        core.counters.not_tcp += 1
        accept(core, packet.queued.id, out)
        return
    if result == FRAGMENT:
        # Where conntrack runs it reassembles fragments, and the gateway's own nftables table makes conntrack run.
        core.counters.fragments += 1
        to_server = is_to_server(core, packet)
        drop_if(core, report_without_flow(core, packet, PACKET_FRAGMENT, to_server, now) > ACTION_LOG, DROP_FRAGMENT,
                packet.queued.id, out)
        return
    if result != TRUNCATED:
        core.counters.malformed += 1
        drop_if(core, applies(policy_without_flow(core, packet)), DROP_MALFORMED, packet.queued.id, out)
        return
    core.counters.truncated += 1
    if packet.tcp == NULL:
        policy = policy_without_flow(core, packet)
        core.finding_counts[PACKET_TRUNCATED] += 1
        drop_if(core, applies(policy) and policy.action[PACKET_TRUNCATED] > ACTION_LOG, DROP_TRUNCATED,
                packet.queued.id, out)
        return
    to_server = inspected_port(core, packet.destination_port)
    flow = flow_find(&core.flows, packet, to_server)
    if flow == NULL:
        drop_if(core, report_without_flow(core, packet, PACKET_TRUNCATED, to_server, now) > ACTION_LOG, DROP_TRUNCATED,
                packet.queued.id, out)
    elif flow.mode == FLOW_BYPASSED:
        accept(core, packet.queued.id, out)
    elif flow.mode == FLOW_INSPECTED:
        apply_condition(core, flow, to_server, PACKET_TRUNCATED, packet, now, out)
    else:
        drop(core, DROP_FLOW_ENDED, packet.queued.id, out)


cdef bint trim_early_talk(Flow *flow, Packet *packet) noexcept nogil:
    """Cuts off what a client sends before the greeting, except its first bytes; True if nothing is left.

    A server whose connection began with other numbers (those of another SYN cookie) would read these bytes from their
    middle. The first bytes pass: no denied command fits in them, and servers look for clients that talk too early
    (Postfix's postscreen).
    """
    cdef Stream *stream = &flow.stream[1]
    cdef uint32_t most = stream_isn(stream) + 1 + MOST_EARLY - packet.seq
    if packet.payload_length == 0 or nm_seq_diff(packet.seq + packet.payload_length, packet.seq + most) <= 0:
        return False
    if nm_seq_diff(packet.seq, stream.next_seq) > 0 or <int32_t> most <= 0 or packet.queued.flags & PACKET_GSO:
        return True
    packet_trim(packet, most)
    packet_note_change(packet)
    return False
