# Admission: which segments are believed, and what their headers tell.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.packet cimport TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Packet

cdef enum Standing:            # of a segment, by the receiver's window
    STANDING_IN = 0
    STANDING_OLD = 1           # all of it acknowledged before
    STANDING_BEYOND = 2        # the receiver has made no room for it, or its ACK is too old

cdef uint8_t refused_by_header(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil
cdef Standing segment_standing(Flow *flow, bint to_server, Packet *packet) noexcept nogil
# Takes the ACK and the window for the other direction's stream; False when the packet has been answered.
cdef bint take_acknowledgement(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                               Operations *out) noexcept nogil
# Makes urgent data plain data; `cleared`: the header was changed. False when the packet has been answered.
cdef bint take_urgent(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, bint *cleared,
                      Operations *out) noexcept nogil
cdef void take_fin(Flow *flow, bint to_server, Packet *packet) noexcept nogil
# Lowers a server's window where packets on their way have little room; True when the packet was changed.
cdef bint narrow_window(Core *core, Flow *flow, Packet *packet) noexcept nogil
# Lets a packet go on, `changed` or as it came.
cdef void let_go(Core *core, Flow *flow, bint to_server, Packet *packet, bint changed, Operations *out) noexcept nogil

# What both SYNs offered (RFC 7323 1.3, RFC 2018 2).
cdef inline bint agreed(const Flow *flow, uint8_t option) noexcept nogil:
    return flow.stream[0].offers & flow.stream[1].offers & option != 0

# Whether the segment's receiver may drop it unread for what its header says: the reason, a DropReason, or 0.
# Where the ruling applies, options that were not agreed become NOPs.
cdef inline uint8_t refused(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    if packet.payload == packet.tcp + 20 and not packet.extended:
        return 0                                   # a bare header
    return refused_by_header(core, flow, to_server, packet)

cdef inline bint odd_flags(uint8_t flags) noexcept nogil:
    # No TCP sends them, and receivers differ: SYN with FIN or RST; neither SYN nor ACK nor RST.
    if flags & TCP_SYN:
        return flags & (TCP_FIN | TCP_RST) != 0
    return not flags & (TCP_ACK | TCP_RST)
