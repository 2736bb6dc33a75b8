# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""RSTs that the peers send: whether a RST ends the connection, and what becomes of its flow then.

Promises: a RST ends the flow or, where packets may be refused (enforce), is dropped. Does not build RSTs.
"""

from libc.stdint cimport int32_t

from nfmailguard.cext.core cimport DROP_RST
from nfmailguard.cext.flow.lifecycle cimport release_flow_memory
from nfmailguard.cext.flow.table cimport FLOW_INSPECTED, FLOW_RESET, SERVER_ANSWERED
from nfmailguard.cext.memory.accounting cimport charge
from nfmailguard.cext.policy.ruling cimport applies, gates
from nfmailguard.cext.record cimport END_RST
from nfmailguard.cext.tcp.holdqueue cimport drop_held
from nfmailguard.cext.tcp.stream cimport Stream, buffered_end, stream_buffered, stream_isn
from nfmailguard.cext.verdict cimport accept, drop, replace
from nfmailguard.cext.wire.packet cimport TCP_ACK, nm_seq_diff, packet_fix_checksums, packet_note_change, packet_trim


cdef bint ends_connection(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """Whether a RST's receiver may accept it: its sequence number is an expected one (RFC 9293 3.10.7.4, RFC 5961 3.2).
    """
    cdef Stream *stream = &flow.stream[to_server]
    cdef int32_t behind = nm_seq_diff(stream.next_seq, packet.seq)
    cdef int32_t max_window = <int32_t> stream.max_window
    if not flow.handshake & SERVER_ANSWERED and flow.mode == FLOW_INSPECTED:
        # A server refuses a connection by a RST that acknowledges the SYN; the client may end a connection just begun.
        return behind == 0 if to_server else packet.flags & TCP_ACK and packet.ack == stream_isn(&flow.stream[1]) + 1
    if behind == 0 or packet.seq == stream.last_ack:
        return True
    if stream.fin and packet.seq == stream.fin_seq + 1:
        return True                                # a FIN takes up a sequence number (RFC 9293 3.4)
    if stream_buffered(stream) != NULL and packet.seq == buffered_end(stream.backlog.farthest):
        return True                                # right after the out-of-order data its sender has already sent
    # A server without the connection takes its RST's number from the ACK it answers; a server that gives a connection
    # up may use the end of a window that has shrunk since. So a server's RST may have any number within a window.
    return not to_server and -max_window <= nm_seq_diff(packet.seq, stream.last_ack) <= max_window + 1


cdef void reset_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                       Operations *out) noexcept nogil:
    """Handles a RST: the flow ends with it, or the RST is dropped.

    If the RST is lost after the gateway, its receiver is reset when it sends again: on an ended flow nothing passes but
    another SYN. A RST that passed without ending the flow would end the connection at its receiver alone, and the next
    connection over the same ports, perhaps with the same sequence numbers, would be taken for this one.
    """
    cdef bint refuse = gates(flow.policy)            # in restore mode no RST is dropped
    cdef bint ends = ends_connection(core, flow, to_server, packet)
    if not ends:
        # Before the server's answer there is no connection yet: the RST ends an older one at the server (RFC 9293
        # 3.5.1). With offload, packets pass unseen, so the receiver knows the right number and the gateway does not.
        if flow.mode == FLOW_INSPECTED:
            refuse = refuse and flow.handshake & SERVER_ANSWERED
        elif core.offload:
            refuse = False
        if refuse:
            drop(core, DROP_RST, packet.queued.id, out)
            return
    if packet.payload_length and applies(flow.policy):
        packet_trim(packet, 0)                     # RFC 9293 3.5.3 allows text in a RST; it is no part of a stream
        packet_note_change(packet)
    if packet.changed:
        packet_fix_checksums(packet)
        replace(core, packet.queued.id, packet.ip, packet.length, out)
    else:
        accept(core, packet.queued.id, out)
    if not ends:
        return
    flow.end = END_RST
    if refuse:
        drop_held(core, flow, out)
        release_flow_memory(core, flow)
        charge(core, flow, now)
        flow.mode = FLOW_RESET
