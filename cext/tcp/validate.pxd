# Admission: which segments are believed, and what their headers say.
from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Packet, ParseResult

cdef enum SegmentPosition:            # where a segment lies relative to its receiver's window
    POSITION_IN = 0
    POSITION_OLD = 1           # all bytes of the segment were acknowledged before
    POSITION_BEYOND = 2        # the segment is beyond the receiver's window or before the stream, or its ACK is too old

cdef uint8_t refused_by_header(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil
cdef SegmentPosition segment_position(Flow *flow, bint to_server, Packet *packet) noexcept nogil
# Takes the ACK number and the window of a packet over into the stream of the opposite direction; False if the packet
# has been given a verdict.
cdef bint take_acknowledgement(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                               Operations *out) noexcept nogil
# Turns urgent data into plain data; `cleared`: the header was changed. False if the packet has been given a verdict.
cdef bint take_urgent(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, bint *cleared,
                      Operations *out) noexcept nogil

# Whether a segment's receiver may drop it unread because of its header: the reason, a DropReason, or 0. Where the
# policy applies, options that were not agreed on are overwritten with NOPs.
cdef inline uint8_t refused(Core *core, Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    if packet.payload == packet.tcp + 20 and not packet.extended:
        return 0                                   # no TCP options, no IPv4 options or IPv6 extension headers
    return refused_by_header(core, flow, to_server, packet)

cdef inline bint invalid_flags(uint8_t flags) noexcept nogil:
    # Flags that no TCP sends, and that receivers treat differently: SYN with FIN or RST; none of SYN, ACK and RST.
    if flags & TCP_SYN:
        return flags & (TCP_FIN | TCP_RST) != 0
    return not flags & (TCP_ACK | TCP_RST)

# Gives the verdict for a packet that packet_parse refused.
cdef void handle_malformed(Core *core, ParseResult result, Packet *packet, uint64_t now, Operations *out) noexcept nogil
# Cuts off what a client sends before the greeting, except its first bytes; True if nothing is left of the payload.
cdef bint trim_early_talk(Flow *flow, Packet *packet) noexcept nogil
