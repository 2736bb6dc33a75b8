# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""RSTs of the peers: whether one ends the connection, and what becomes of the flow then.

Promises: a RST ends the flow or, where something may be refused, goes nowhere. Does not build any.
"""

from libc.stdint cimport int32_t

from nfmailguard.cext.account cimport settle
from nfmailguard.cext.core cimport DROP_RST
from nfmailguard.cext.ending cimport drop_held, flow_let_go
from nfmailguard.cext.flow cimport FLOW_INSPECTED, FLOW_RESET
from nfmailguard.cext.packet cimport TCP_ACK, nm_seq_diff, packet_fix_checksums, packet_trim
from nfmailguard.cext.record cimport END_RST
from nfmailguard.cext.stream cimport Stream, ahead_end, stream_ahead, stream_isn
from nfmailguard.cext.verdict cimport accept, drop, replace


cdef bint ends_connection(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """Whether a RST's receiver may take it: at a number it may expect (RFC 9293 3.10.7.4, RFC 5961 3.2)."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef int32_t behind = nm_seq_diff(stream.next_seq, packet.seq)
    cdef int32_t widest = <int32_t> stream.widest
    if not flow.syn_ack and flow.fate == FLOW_INSPECTED:
        # A refusal acknowledges the SYN; and the client may end what it has only begun.
        return behind == 0 if to_server else packet.flags & TCP_ACK and packet.ack == stream_isn(&flow.stream[1]) + 1
    if behind == 0 or packet.seq == stream.kept_seq:
        return True
    if stream.fin and packet.seq == stream.fin_seq + 1:
        return True                                # a FIN counts (RFC 9293 3.4)
    if stream_ahead(stream) != NULL and packet.seq == ahead_end(stream.aside.farthest):
        return True                                # what its sender has sent farthest
    # A server without the connection answers with the number that it was asked for, one that gives it up with
    # the end of a window that has shrunk since, maybe.
    return not to_server and -widest <= nm_seq_diff(packet.seq, stream.kept_seq) <= widest + 1


cdef void reset_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                       Operations *out) noexcept nogil:
    """A RST: the flow ends with it, or it goes nowhere.

    Whoever does not get it is told again by what becomes of the flow: nothing passes any more but another SYN.
    Let through without an end, it would end the connection at its receiver alone, and the next one over the
    same ports, with the same numbers maybe, would be taken for this one.
    """
    cdef bint refuse = flow.ruling.hold            # restoring, we refuse nothing
    cdef bint ends = ends_connection(core, flow, to_server, packet)
    if not ends:
        # Before the server's answer there is no connection: a RST ends an older one at the server (RFC 9293 3.5.1).
        # Where packets go by unseen, its receiver knows the number, and we do not.
        if flow.fate == FLOW_INSPECTED:
            refuse = refuse and flow.syn_ack
        elif core.offload:
            refuse = False
        if refuse:
            drop(core, DROP_RST, packet.queued.id, out)
            return
    if packet.payload_length and flow.ruling.apply:
        packet_trim(packet, 0)                     # RFC 9293 3.5.3 allows text; it is no part of a stream
        packet.changed = 1
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
        flow_let_go(core, flow)
        settle(core, flow, now)
        flow.fate = FLOW_RESET
