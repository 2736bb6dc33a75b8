# Receive windows: tracked, and a server's narrowed where memory is short.
from libc.stdint cimport uint32_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow, agreed
from nfmailguard.cext.tcp.stream cimport WINDOW_KNOWN, Stream
from nfmailguard.cext.wire.options cimport OPTION_SCALE
from nfmailguard.cext.wire.packet cimport TCP_SYN, Packet, nm_seq_diff

# Lowers a server's window where packets on their way have little room; True when the packet was changed.
cdef bint narrow_window(Core *core, Flow *flow, Packet *packet) noexcept nogil

# Raises a client's window in the midst of a text so that a reply has room; True when the packet was changed.
cdef bint widen_window(Core *core, Flow *flow, Packet *packet) noexcept nogil

cdef inline uint32_t window_scale(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # RFC 7323 2.2: of a window's units, when both sides offered it, and never in a SYN.
    if packet.flags & TCP_SYN or not agreed(flow, OPTION_SCALE):
        return 0
    return flow.stream[to_server].scale

cdef inline void take_window(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # The right edge never moves left (RFC 9293 3.8.6): octets sent under a wider window are still taken.
    cdef Stream *stream = &flow.stream[not to_server]
    cdef uint32_t edge = packet.ack + (<uint32_t> packet.window << window_scale(flow, to_server, packet))
    if edge - packet.ack > stream.max_window:
        stream.max_window = edge - packet.ack
    if not stream.facts & WINDOW_KNOWN or nm_seq_diff(edge, stream.window_end) > 0:
        stream.window_end = edge
        stream.facts |= WINDOW_KNOWN
