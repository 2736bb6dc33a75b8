# Receive windows: tracked for both sides, lowered for a server, raised for a client.
from libc.stdint cimport uint32_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow, agreed
from nfmailguard.cext.tcp.stream cimport WINDOW_KNOWN, Stream
from nfmailguard.cext.wire.options cimport OPTION_SCALE
from nfmailguard.cext.wire.packet cimport TCP_SYN, Packet, nm_seq_diff

# Lowers a server's window where there is little room for packets in flight; True if the packet was changed.
cdef bint narrow_window(Core *core, Flow *flow, Packet *packet) noexcept nogil

# Raises a client's window while it sends message text, so that a reply has room; True if the packet was changed.
cdef bint widen_window(Core *core, Flow *flow, Packet *packet) noexcept nogil

cdef inline uint32_t window_scale(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # The shift count of a window: 0 in a SYN, and unless both sides offered window scaling (RFC 7323 2.2).
    if packet.flags & TCP_SYN or not agreed(flow, OPTION_SCALE):
        return 0
    return flow.stream[to_server].scale

cdef inline void take_window(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # A window's right edge never moves left (RFC 9293 3.8.6): bytes sent under a wider window are still accepted.
    cdef Stream *stream = &flow.stream[not to_server]
    cdef uint32_t edge = packet.ack + (<uint32_t> packet.window << window_scale(flow, to_server, packet))
    if edge - packet.ack > stream.max_window:
        stream.max_window = edge - packet.ack
    if not stream.facts & WINDOW_KNOWN or nm_seq_diff(edge, stream.window_end) > 0:
        stream.window_end = edge
        stream.facts |= WINDOW_KNOWN
