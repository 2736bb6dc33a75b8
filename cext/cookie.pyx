# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""SYN cookies: a client's ACK must not open a connection that nobody has seen begin.

A server in want of room keeps nothing of a SYN (RFC 4987 3.6). Linux takes an ACK for the end of a
handshake when its number is right for the addresses, the ports and the minute, and adds the client's own
number to it (net/ipv4/syncookies.c, secure_tcp_syn_cookie): one cookie is right for every client's number
at once, up to 3 more or less for the segment size it stands for, and for two minutes. Once the server has
forgotten a connection, by a RST that got lost, or without a word, any ACK whose two numbers are as far
apart as the initial ones were opens the next one, in the middle of what this flow is taken for.

What earlier connections over the same ports differed by is noted for as long as a cookie lives: of the latest
one, and of three whose servers agreed on neither window scale nor SACK. Linux' cookies without timestamps, which
we let nobody agree on, are all such (net/ipv4/tcp_input.c, tcp_conn_request). A fourth does not begin.

Promises: no such ACK reaches the server from an open flow in that time. One without payload has a number a
few bytes ahead, which lies in the server's window (RFC 9293 3.10.7.4) and says nothing else; one with payload,
whose number is its payload's, acknowledges a few bytes less until the next one. Does not know why a server
forgets.
"""

from libc.string cimport memset

from nfmailguard.cext.options cimport OPTION_SACK_PERMITTED, OPTION_SCALE
from nfmailguard.cext.packet cimport TCP_ACK, TCP_FIN, nm_put32
from nfmailguard.cext.stream cimport before_stream, stream_isn

cdef enum:
    SEGMENT_SIZES = 3          # the farthest two of a minute's cookies differ: msstab has four entries
    MOST_LESS = 96             # bytes; the ranges of a connection's own cookie and of four notes lie below
    MOST_AGE = 14              # of NOTE_SPAN; a date has 4 bits
    NOTE = 0xfff


cdef uint64_t NOTE_SPAN = 20000000000


cdef inline uint32_t difference_of(const Flow *flow) noexcept nogil:
    return stream_isn(&flow.stream[0]) - stream_isn(&flow.stream[1])


cdef inline bint is_near(uint32_t difference, uint32_t cookie) noexcept nogil:
    return difference - cookie + SEGMENT_SIZES <= 2 * SEGMENT_SIZES


cdef inline uint16_t note_of(uint32_t difference) noexcept nogil:
    # What a note keeps of a difference: 12 of its bits, never 0. Others have them too, which costs a few bytes' shift.
    cdef uint16_t note = <uint16_t> (difference >> 3 & NOTE)
    return note if note else NOTE


cdef inline bint is_noted(const Flow *flow, uint32_t difference) noexcept nogil:
    cdef uint16_t below = note_of(difference - SEGMENT_SIZES), above = note_of(difference + SEGMENT_SIZES), note
    cdef int i
    for i in range(NOTES):
        note = flow.stream[i & 1].notes[i >> 1]
        if note and (note & NOTE == below or note & NOTE == above):
            return True
    return False


cdef inline bint is_cookie(const Flow *flow, uint32_t difference) noexcept nogil:
    return is_near(difference, difference_of(flow)) or is_noted(flow, difference)


cdef inline uint16_t dated(uint32_t difference, uint64_t at) noexcept nogil:
    return <uint16_t> (note_of(difference) | (at // NOTE_SPAN & 15) << NOTE_BITS)


cdef bint notes_of(Core *core, const Flow *flow, uint64_t now, uint16_t *notes) noexcept nogil:
    cdef uint16_t own = dated(difference_of(flow), flow.started)
    cdef uint16_t today = dated(0, now) >> NOTE_BITS
    cdef uint64_t most = core.cookie_life // NOTE_SPAN
    cdef int i
    memset(notes, 0, NOTES * sizeof(notes[0]))
    if now - flow.started >= core.cookie_life:
        return True                                # what lies before its beginning is older still
    for i in range(NOTES):
        notes[i] = flow.stream[i & 1].notes[i >> 1]
        if today - (notes[i] >> NOTE_BITS) & 15 > min(most, MOST_AGE):
            notes[i] = 0
    if not flow.syn_ack:
        return True
    if flow.stream[0].offers & (OPTION_SCALE | OPTION_SACK_PERMITTED):
        notes[0] = own                             # Linux had its cookie agree on neither
        return True
    for i in range(1, NOTES):
        if notes[i] == 0 or notes[i] & NOTE == own & NOTE:
            notes[i] = own
            return True
    return not flow.ruling.hold


cdef void take_notes(Flow *flow, const uint16_t *notes) noexcept nogil:
    cdef int i
    for i in range(NOTES):
        flow.stream[i & 1].notes[i >> 1] = notes[i]


cdef uint32_t old_number(const Flow *flow) noexcept nogil:
    cdef uint32_t seq = flow.stream[1].kept_seq - 1
    cdef uint32_t less = 0
    while less < MOST_LESS and is_cookie(flow, flow.stream[0].kept_seq - seq + less):
        less += 1
    return seq - less


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
