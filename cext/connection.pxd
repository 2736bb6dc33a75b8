# Connections: how a packet's flow begins, is pinned, and ends.
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.packet cimport Packet, ParseResult

# A packet that packet_parse did not take: answered.
cdef void unparsed(Core *core, ParseResult result, Packet *packet, uint64_t now, Operations *out) noexcept nogil
# A packet of no known flow: answered.
cdef void first_packet(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil
# A packet with SYN on a known flow: answered; False where the packet has no SYN.
cdef bint handshake(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil
# Where addresses are translated: whether the packet is of the connection that the flow is of, or may begin another.
cdef bint belongs(Flow *flow, bint to_server, Packet *packet) noexcept nogil
# The action for the packet, as far as the interface it came in on tells; a wrong one is reported.
cdef uint8_t pin_interface(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now) noexcept nogil
# The handshake of a flow is complete: over its source's share it ends.
cdef void opens(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil
# Reports the flow's end and takes it out of the table; held packets are dropped.
cdef void forget_flow(Core *core, Flow *flow, uint8_t end, uint64_t now, Operations *out) noexcept nogil

# While flows that were open before us are let through. A flow that was pushed out of the table
# could pass for one of them, so the first such ends this time.
cdef inline bint starting_up(Core *core, uint64_t now) noexcept nogil:
    return now - core.started < core.startup and not core.forgot

cdef inline bint inspected_port(Core *core, uint32_t port) noexcept nogil:
    return core.ports[port >> 3] >> (port & 7) & 1

cdef inline void count_packet(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    if flow.packets[to_server] != UINT32_MAX:
        flow.packets[to_server] += 1
    flow.octets[to_server] += packet.length
