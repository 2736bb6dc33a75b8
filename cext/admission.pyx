# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Admission: what a segment's header is believed of.

Keeps invariant 2: octets are let go only by ACKs of octets that were emitted, in
segments their receiver would take (RFC 9293 3.10.7.4, RFC 5961 5), so that whoever
sees only one side cannot empty the store; and nothing is taken that the receiver
has made no room for. Does not know payloads.
"""

from libc.stdint cimport int32_t, uint16_t

from nfmailguard.cext.account cimport window_share
from nfmailguard.cext.core cimport DROP_FINDING, DROP_GAP, DROP_OPTION
from nfmailguard.cext.ending cimport answer_by, refuse, report_condition
from nfmailguard.cext.options cimport (
    OPTION_SACK,
    OPTION_SACK_PERMITTED,
    OPTION_SCALE,
    options_read,
)
from nfmailguard.cext.packet cimport TCP_URG, nm_put16, nm_seq_diff, packet_blank_ip_options, packet_fix_checksums
from nfmailguard.cext.pool cimport pool_is_short
from nfmailguard.cext.smtp cimport ACTION_LOG, STREAM_GAP, STREAM_URGENT
from nfmailguard.cext.stream cimport (
    Ahead,
    Stream,
    ahead_end,
    before_stream,
    stream_acknowledge,
    stream_ahead,
    stream_ended,
    stream_isn,
)
from nfmailguard.cext.verdict cimport accept, drop_if, replace

cdef enum:
    FARTHEST = 1 << 30         # octets ahead of the next one; no window is larger (RFC 7323 2.3)
    FEWEST_SHARES = 4          # flows may begin to send before the others' windows are lowered for them
    LEAST_SHARE = 4096         # octets: below two segments a sender waits for time-outs


cdef uint8_t refused_by_header(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    cdef bint apply = flow.ruling.hold
    cdef bint shaken = flow.stream[0].known and flow.stream[1].known
    if packet.extended and apply:
        if packet.family == 6:
            return DROP_OPTION                     # RFC 8200 4.2: some options a host must refuse, and mail needs none
        packet_blank_ip_options(packet)
    options_read(packet, OPTION_SACK if agreed(flow, OPTION_SACK_PERMITTED) else 0, apply and shaken)
    core.counters.options_blanked += packet.changed
    return DROP_OPTION if packet.options.refused else 0


cdef inline bint stale(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # RFC 5961 5.2: a segment whose ACK is older than a window is not taken, nor are its octets.
    cdef Stream *other = &flow.stream[not to_server]
    return (flow.answered and packet.flags & TCP_ACK
            and nm_seq_diff(other.kept_seq, packet.ack) > <int32_t> other.widest)


cdef Standing segment_standing(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t edge
    if not stream.known:
        return STANDING_IN
    edge = stream.window_end if stream.windowed else stream.next_seq + FARTHEST
    if nm_seq_diff(packet.seq, edge) > 0 or stale(flow, to_server, packet):
        return STANDING_BEYOND
    # A keep-alive begins one byte before (RFC 1122 4.2.3.6); nothing else lies, or acknowledges, before the beginning.
    if before_stream(stream, packet.seq + 1) or (
            packet.flags & TCP_ACK and flow.syn_ack and before_stream(&flow.stream[not to_server], packet.ack)):
        return STANDING_BEYOND
    if nm_seq_diff(packet.seq + packet.payload_length, stream.kept_seq) < 0:
        return STANDING_OLD
    return STANDING_IN


cdef inline uint32_t forwarded_to(Stream *stream) noexcept nogil:
    # The end of what the receiver can have in order, where packets go on before they are decided.
    cdef uint32_t end = stream.next_seq
    cdef Ahead *ahead = stream_ahead(stream)
    while ahead != NULL and nm_seq_diff(ahead.seq, end) <= 0:
        if nm_seq_diff(ahead_end(ahead), end) > 0:
            end = ahead_end(ahead)
        ahead = ahead.next
    return end


cdef inline uint32_t window_scale(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # RFC 7323 2.2: of a window's units, when both sides offered it, and never in a SYN.
    if packet.flags & TCP_SYN or not agreed(flow, OPTION_SCALE):
        return 0
    return flow.stream[to_server].scale


cdef inline void take_window(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # The right edge never moves left (RFC 9293 3.8.6): octets sent under a wider window are still taken.
    cdef Stream *stream = &flow.stream[not to_server]
    cdef uint32_t edge = packet.ack + (<uint32_t> packet.window << window_scale(flow, to_server, packet))
    if edge - packet.ack > stream.widest:
        stream.widest = edge - packet.ack
    if not stream.windowed or nm_seq_diff(edge, stream.window_end) > 0:
        stream.window_end = edge
        stream.windowed = 1


cdef bint take_acknowledgement(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                               Operations *out) noexcept nogil:
    cdef Stream *stream = &flow.stream[not to_server]
    cdef uint32_t end, last
    if not stream.known or not (flow.syn_ack or to_server):
        return True                                # an answer to a SYN that is none: a challenge (RFC 5961 4)
    if nm_seq_diff(packet.ack, stream.kept_seq) > 0:
        end = stream.next_seq if flow.ruling.hold or (to_server and flow.ruling.apply) else forwarded_to(stream)
        last = end + 1 if stream.fin and stream.fin_seq == end else end
        if nm_seq_diff(packet.ack, last) > 0:
            # Octets have been acknowledged that did not come through us. Who only guesses does not know
            # the very place; a true one says it again there.
            if packet.seq != flow.stream[to_server].next_seq:
                drop_if(core, flow.ruling.apply, DROP_GAP, packet.queued.id, out)
            else:
                refuse(core, flow, not to_server, STREAM_GAP, DROP_GAP, packet, now, out)
            return False
        stream_acknowledge(stream, &core.pool, packet.ack if nm_seq_diff(packet.ack, stream.next_seq) <= 0
                           else stream.next_seq)
    if to_server and flow.syn_ack:
        flow.answered = 1                          # it acknowledges the SYN at least, or had no place in the flow
    elif not to_server and packet.ack != stream_isn(stream) + 1:
        flow.confirmed = 1
    take_window(flow, to_server, packet)
    return True


cdef bint take_urgent(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, bint *cleared,
                      Operations *out) noexcept nogil:
    # Receivers disagree on where urgent data lies in the stream (RFC 6093 3.1).
    cdef uint8_t action
    cleared[0] = 0
    if not packet.flags & TCP_URG:
        return True
    action = report_condition(core, flow, STREAM_URGENT, to_server, now)
    if action > ACTION_LOG:
        answer_by(core, flow, action, DROP_FINDING, packet, now, out)
        return False
    if flow.ruling.apply:
        packet.flags &= ~TCP_URG
        packet.tcp[13] = packet.flags
        nm_put16(packet.tcp + 18, 0)
        cleared[0] = 1
    return True


cdef void take_fin(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # The latest one counts: one that no receiver took says nothing. What lies behind it, arrives nowhere.
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t place = packet.seq + packet.payload_length
    if packet.flags & TCP_FIN and not stream_ended(stream) and nm_seq_diff(place, stream.next_seq) >= 0:
        stream.fin = 1
        stream.fin_seq = place


cdef bint narrow_window(Core *core, Flow *flow, Packet *packet) noexcept nogil:
    """A server's window, lowered to the flow's share of the room there is for packets on their way to us, and, as
    memory runs short, of that: who sends more would only lose it. True when it was.

    Half of the room is shared: a packet takes more of the kernel's memory than its octets.
    """
    cdef uint32_t busy = core.lender.dialogues.lent
    cdef uint64_t most = FARTHEST, share
    if not flow.ruling.apply:
        return False
    if core.room:
        most = core.room // 2 // (busy if busy > FEWEST_SHARES else FEWEST_SHARES)
    if pool_is_short(&core.pool):
        share = window_share(core, flow)
        most = share if share < most else most
    if most == FARTHEST:
        return False
    if most < LEAST_SHARE:
        most = LEAST_SHARE
    most = most >> window_scale(flow, False, packet)
    most = most if most else 1
    if packet.window <= most:
        return False
    core.counters.windows_narrowed += 1
    packet.window = <uint16_t> most
    nm_put16(packet.tcp + 14, packet.window)
    return True


cdef void let_go(Core *core, Flow *flow, bint to_server, Packet *packet, bint changed, Operations *out) noexcept nogil:
    # What leaves may end its stream.
    take_fin(flow, to_server, packet)
    if not to_server and narrow_window(core, flow, packet):
        changed = True
    if changed or packet.changed:
        packet_fix_checksums(packet)
        replace(core, packet.queued.id, packet.ip, packet.length, out)
    else:
        accept(core, packet.queued.id, out)
