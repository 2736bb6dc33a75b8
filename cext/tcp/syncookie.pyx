# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""SYN cookies: a client's ACK must not open a connection that nobody has seen begin.

A server short of room keeps no state for a SYN (RFC 4987 3.6). Linux takes an ACK for the end of a handshake when its
ACK number is right for the addresses, the ports and the minute, plus the client's own initial sequence number
(net/ipv4/syncookies.c, secure_tcp_syn_cookie): one cookie is right for every initial number of the client at once, up
to 3 more or less for the segment size it encodes, and for two minutes. Once the server has forgotten a connection, by a
RST that got lost or without sending anything, any ACK whose SEQ and ACK numbers are as far apart as the initial ones
were opens a new connection, in the middle of what is taken for this flow.

The difference of a connection's initial numbers is noted for as long as a cookie lives, for all flows together and past
their ends: in a Bloom filter (Burton Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970) by
ports, addresses and difference, blocked by cache lines, with two halves by time. No connection's note pushes out
another's, and a false positive costs a shift of a byte or so; with a thousand answered SYNs a second, one number in 25
is a false positive. A half of which three quarters of the bits are set takes no more notes: a fuller one would take
every number for a cookie, and whoever makes the server answer SYNs would hold up everybody's mail.

Promises: no such ACK reaches the server from an open flow in that time. One without payload gets a sequence number a
few bytes ahead, which lies in the server's window (RFC 9293 3.10.7.4) and means nothing else; one with payload, whose
sequence number is its payload's, acknowledges a few bytes less until the next one. Does not know why a server forgets a
connection.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from nfmailguard.cext.core cimport LINE_BYTES, LINE_WORDS
from nfmailguard.cext.flow.table cimport CONFIRMED, SERVER_ANSWERED
from nfmailguard.cext.tcp.stream cimport before_stream, stream_isn
from nfmailguard.cext.wire.packet cimport TCP_ACK, TCP_FIN, nm_put32, packet_note_change

cdef enum:
    SEGMENT_SIZES = 3          # two cookies of a minute differ by 3 at most: Linux's msstab has four segment sizes
    MOST_LESS = 96             # bytes a number is shifted by at most, past the cookie ranges (7 each) of several flows
    PROBES = 2
    NOTES_A_LINE = 48          # notes a cache line takes: each sets 14 bits, so three quarters of its 512 bits are set


cdef int notes_open(CookieNotes *notes, uint32_t lines) noexcept nogil:
    notes.lines = lines
    notes.half[0] = <uint64_t *> calloc(lines, LINE_BYTES)
    notes.half[1] = <uint64_t *> calloc(lines, LINE_BYTES)
    return 0 if notes.half[0] != NULL and notes.half[1] != NULL else -1


cdef void notes_close(CookieNotes *notes) noexcept nogil:
    free(notes.half[0])
    free(notes.half[1])
    notes.half[0] = notes.half[1] = NULL


cdef inline uint64_t place_of(uint32_t mix, uint32_t difference) noexcept nogil:
    # The finalizer of MurmurHash3; `mix` is a keyed hash of addresses and ports, so peers cannot predict the result.
    cdef uint64_t hash = <uint64_t> mix << 32 | difference
    hash = (hash ^ hash >> 33) * <uint64_t> 0xff51afd7ed558ccd
    hash = (hash ^ hash >> 33) * <uint64_t> 0xc4ceb9fe1a85ec53
    return hash ^ hash >> 33


cdef void age_notes(CookieNotes *notes, uint64_t life, uint64_t now) noexcept nogil:
    """When the present half is as old as a cookie gets, the older half is forgotten, and the present one takes its
    place."""
    cdef uint64_t *older = notes.half[1]
    if notes.noted[0] == 0 and notes.noted[1] == 0:
        notes.since = now
    elif now - notes.since >= life:
        if notes.noted[1]:
            memset(older, 0, <size_t> notes.lines * LINE_BYTES)
        notes.half[1], notes.noted[1] = notes.half[0], notes.noted[0]
        notes.half[0], notes.noted[0] = older, 0
        if now - notes.since >= 2 * life and notes.noted[1]:
            memset(notes.half[1], 0, <size_t> notes.lines * LINE_BYTES)
            notes.noted[1] = 0
        notes.since = now if notes.noted[1] == 0 else notes.since + life


cdef inline uint64_t bit_of(uint64_t place, uint32_t probe) noexcept nogil:
    return <uint64_t> 1 << (place >> (20 + 6 * probe) & 63)


cdef inline uint32_t word_of(uint64_t place, uint32_t probe) noexcept nogil:
    return <uint32_t> (place >> (40 + 3 * probe) & (LINE_WORDS - 1))


cdef void note_cookie(Core *core, const Flow *flow, uint64_t now) noexcept nogil:
    cdef uint32_t least = stream_isn(&flow.stream[0]) - stream_isn(&flow.stream[1]) - SEGMENT_SIZES
    cdef uint64_t place
    cdef uint64_t *line
    cdef uint32_t more, probe
    if core.cookie_life == 0:
        return
    age_notes(&core.cookies, core.cookie_life, now)
    if core.cookies.noted[0] >= core.cookies.lines * NOTES_A_LINE:
        core.counters.cookies_unnoted += 1
        return
    for more in range(2 * SEGMENT_SIZES + 1):
        place = place_of(flow.mix, least + more)
        line = core.cookies.half[0] + (place & (core.cookies.lines - 1)) * LINE_WORDS
        for probe in range(PROBES):
            line[word_of(place, probe)] |= bit_of(place, probe)
    core.cookies.noted[0] += 1


cdef bint is_cookie(const Core *core, const Flow *flow, uint32_t difference) noexcept nogil:
    cdef const CookieNotes *notes = &core.cookies
    cdef uint64_t place = place_of(flow.mix, difference), at = (place & (notes.lines - 1)) * LINE_WORDS
    cdef bint now = notes.noted[0] != 0, before = notes.noted[1] != 0
    cdef uint32_t probe
    for probe in range(PROBES):
        now = now and notes.half[0][at + word_of(place, probe)] & bit_of(place, probe) != 0
        before = before and notes.half[1][at + word_of(place, probe)] & bit_of(place, probe) != 0
    return now or before


cdef uint32_t old_number(Core *core, const Flow *flow) noexcept nogil:
    cdef uint32_t seq = flow.stream[1].last_ack - 1
    cdef uint32_t less = 0
    while less < MOST_LESS and is_cookie(core, flow, flow.stream[0].last_ack - seq + less):
        less += 1
    return seq - less


cdef bint hide_cookie(Core *core, Flow *flow, Packet *packet, uint64_t now) noexcept nogil:
    cdef uint32_t less = 0
    cdef bint empty = packet.payload_length == 0 and not packet.flags & TCP_FIN
    if (not packet.flags & TCP_ACK or not flow.handshake & SERVER_ANSWERED or now - flow.started >= core.cookie_life
            or not is_cookie(core, flow, packet.ack - packet.seq)):
        return True
    if not flow.handshake & CONFIRMED:
        # Only the end of the flow's own handshake passes: an ACK for another cookie's handshake does not.
        return packet.seq == stream_isn(&flow.stream[1]) + 1 and packet.ack == stream_isn(&flow.stream[0]) + 1
    while less < MOST_LESS and is_cookie(core, flow, packet.ack - less - packet.seq):
        less += 1
    # A keep-alive is one by its old sequence number, which must not change: its ACK number is lowered instead.
    if empty and packet.seq == flow.stream[1].next_seq:
        nm_put32(packet.tcp + 4, packet.seq + less)
    elif less == MOST_LESS or before_stream(&flow.stream[0], packet.ack - less):
        return False
    else:
        nm_put32(packet.tcp + 8, packet.ack - less)    # the gateway itself goes by the client's own ACK (packet.ack)
    packet_note_change(packet)
    return True
