# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Passed flows: what is still followed of a connection that is no longer inspected.

Promises: such a flow ends with its connection, and a packet with guessed sequence numbers changes nothing. Does not
know payloads.
"""

from libc.stdint cimport int32_t, uint32_t

from nfmailguard.cext.core cimport DROP_CLOSED
from nfmailguard.cext.flow.lifecycle cimport end_flow
from nfmailguard.cext.policy.numbers cimport ACTION_RESET
from nfmailguard.cext.policy.ruling cimport gates
from nfmailguard.cext.record cimport END_FIN
from nfmailguard.cext.flow.table cimport OTHER_SYN_SEEN
from nfmailguard.cext.tcp.stream cimport FIN_SENT, Stream
from nfmailguard.cext.verdict cimport accept, accept_offloadable, drop, forward
from nfmailguard.cext.wire.packet cimport TCP_ACK, TCP_FIN, nm_seq_diff


cdef void follow_passed(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    cdef Stream *stream = &flow.stream[to_server]
    cdef Stream *other = &flow.stream[not to_server]
    cdef uint32_t end = packet.seq + packet.payload_length
    cdef int32_t ahead = nm_seq_diff(packet.seq, stream.next_seq)
    if not -<int32_t> stream.max_window <= ahead <= <int32_t> stream.max_window:
        return                                     # a packet with guessed sequence numbers changes nothing
    if nm_seq_diff(end, stream.next_seq) > 0:
        stream.bytes += end - stream.next_seq
        stream.next_seq = end
    if packet.flags & TCP_ACK and 0 < nm_seq_diff(packet.ack, other.last_ack) <= <int32_t> other.max_window:
        other.last_ack = packet.ack
    if packet.flags & TCP_FIN and ahead <= 0 and end == stream.next_seq:
        stream.fin = FIN_SENT
        stream.fin_seq = end
        if other.fin:
            flow.end = END_FIN


cdef void pass_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                      Operations *out) noexcept nogil:
    """Handles a packet of a flow that is no longer inspected: only the end of the flow matters.

    A server that has closed may forget the connection without sending anything (RFC 9293 3.6, FIN-WAIT-2): what either
    side sends after the server's FIN does not belong to this connection.
    """
    cdef Stream *stream = &flow.stream[to_server]
    cdef Stream *other = &flow.stream[not to_server]
    cdef uint32_t end = packet.seq + packet.payload_length
    if packet.payload_length and gates(flow.policy) and flow.stream[0].fin and nm_seq_diff(
            end, stream.last_ack if to_server else stream.fin_seq) > 0:
        drop(core, DROP_CLOSED, packet.queued.id, out)
        if to_server:
            end_flow(core, flow, ACTION_RESET, now, out)
        return
    follow_passed(flow, to_server, packet)
    if packet.changed:
        forward(core, flow, to_server, packet, True, out)
    elif stream.fin or other.fin or flow.handshake & OTHER_SYN_SEEN or now - flow.started < core.cookie_life:
        # Not offloaded: the gateway has to see the rest of the connection, and an offload mark would take effect only
        # after the packets that follow.
        accept(core, packet.queued.id, out)
    else:
        accept_offloadable(core, packet.queued.id, out)
