# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""SYN cookies: a client's ACK must not open a connection that nobody has seen begin.

A server in want of room keeps nothing of a SYN (RFC 4987 3.6). Linux takes an ACK for the end of a
handshake when its number is right for the addresses, the ports and the minute, and adds the client's own
number to it (net/ipv4/syncookies.c, secure_tcp_syn_cookie): one cookie is right for every client's number
at once, up to 3 more or less for the segment size it stands for, and for two minutes. Once the server has
forgotten a connection, by a RST that got lost, or without a word, any ACK whose two numbers are as far
apart as the initial ones were opens the next one, in the middle of what this flow is taken for.

Promises: no such ACK reaches the server from an open flow in that time. One without payload has a number a
few bytes ahead, which lies in the server's window (RFC 9293 3.10.7.4) and says nothing else; one with payload,
whose number is its payload's, acknowledges a few bytes less until the next one. Does not know why a server
forgets.
"""

from nfmailguard.cext.packet cimport TCP_ACK, TCP_FIN, nm_put32
from nfmailguard.cext.stream cimport before_stream, stream_isn

cdef enum:
    SEGMENT_SIZES = 3          # the farthest two of a minute's cookies differ: msstab has four entries
    MOST_LESS = 32             # bytes; three ranges of 7 lie below


cdef inline uint32_t difference_of(const Flow *flow) noexcept nogil:
    return stream_isn(&flow.stream[0]) - stream_isn(&flow.stream[1])


cdef inline bint is_near(uint32_t difference, uint32_t cookie) noexcept nogil:
    return difference - cookie + SEGMENT_SIZES <= 2 * SEGMENT_SIZES


cdef inline bint is_cookie(const Flow *flow, uint32_t difference) noexcept nogil:
    return (is_near(difference, difference_of(flow))
            or (flow.stream[0].earlier and is_near(difference, flow.stream[0].earlier))
            or (flow.stream[1].earlier and is_near(difference, flow.stream[1].earlier)))


cdef void earlier_of(const Flow *flow, uint32_t *earlier) noexcept nogil:
    cdef uint32_t own = difference_of(flow) if flow.syn_ack else flow.stream[0].earlier
    earlier[0] = own
    earlier[1] = flow.stream[1].earlier if is_near(flow.stream[0].earlier, own) else flow.stream[0].earlier


cdef void note_earlier(Flow *flow, uint32_t latest, uint32_t other) noexcept nogil:
    flow.stream[0].earlier = latest
    flow.stream[1].earlier = other


cdef bint hide_cookie(Core *core, Flow *flow, Packet *packet, uint64_t now) noexcept nogil:
    cdef uint32_t less = 0
    cdef bint empty = packet.payload_length == 0 and not packet.flags & TCP_FIN
    if (not packet.flags & TCP_ACK or not flow.syn_ack or now - flow.started >= core.cookie_life
            or not is_cookie(flow, packet.ack - packet.seq)):
        return True
    if not flow.confirmed:
        # The end of its own handshake, and of no other one.
        return packet.seq == stream_isn(&flow.stream[1]) + 1 and packet.ack == stream_isn(&flow.stream[0]) + 1
    while less < MOST_LESS and is_cookie(flow, packet.ack - less - packet.seq):
        less += 1
    # A keep-alive is one by its number, which lies behind.
    if empty and packet.seq == flow.stream[1].next_seq:
        nm_put32(packet.tcp + 4, packet.seq + less)
    elif less == MOST_LESS or before_stream(&flow.stream[0], packet.ack - less):
        return False
    else:
        nm_put32(packet.tcp + 8, packet.ack - less)    # what it has acknowledged counts here all the same
    packet.changed = 1
    return True
