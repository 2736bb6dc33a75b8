# Admission: which segments are believed, and what their headers tell.
from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Packet, ParseResult

cdef enum SegmentPosition:            # of a segment, by the receiver's window
    POSITION_IN = 0
    POSITION_OLD = 1           # all of it acknowledged before
    POSITION_BEYOND = 2        # the receiver has made no room for it, or its ACK is too old

cdef uint8_t refused_by_header(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil
cdef SegmentPosition segment_position(Flow *flow, bint to_server, Packet *packet) noexcept nogil
# Takes the ACK and the window for the other direction's stream; False when the packet has been answered.
cdef bint take_acknowledgement(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                               Operations *out) noexcept nogil
# Makes urgent data plain data; `cleared`: the header was changed. False when the packet has been answered.
cdef bint take_urgent(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, bint *cleared,
                      Operations *out) noexcept nogil

# Whether the segment's receiver may drop it unread for what its header says: the reason, a DropReason, or 0.
# Where the policy applies, options that were not agreed become NOPs.
cdef inline uint8_t refused(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    if packet.payload == packet.tcp + 20 and not packet.extended:
        return 0                                   # a bare header
    return refused_by_header(core, flow, to_server, packet)

cdef inline bint invalid_flags(uint8_t flags) noexcept nogil:
    # No TCP sends them, and receivers differ: SYN with FIN or RST; neither SYN nor ACK nor RST.
    if flags & TCP_SYN:
        return flags & (TCP_FIN | TCP_RST) != 0
    return not flags & (TCP_ACK | TCP_RST)

# A packet that packet_parse did not take: answered.
cdef void handle_malformed(Core *core, ParseResult result, Packet *packet, uint64_t now, Operations *out) noexcept nogil
# Cuts off what a client says before the greeting, but for the beginning; True when nothing is left.
cdef bint trim_early_talk(Flow *flow, Packet *packet) noexcept nogil
