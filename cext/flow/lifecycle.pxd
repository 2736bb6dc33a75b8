# The life of a flow: admitted, refused, evicted, no longer inspected, ended, removed from the table.
from libc.stdint cimport UINT32_MAX, uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# The flow's handshake is complete: if its source already has its share of flows, the flow ends.
cdef void opens(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil
# Reports the flow's end and removes it from the table; its held packets are dropped.
cdef void forget_flow(Core *core, Flow *flow, uint8_t end, uint64_t now, Operations *out) noexcept nogil

# Whether flows that were open before the gateway started are still let through. A flow that was evicted from the table
# could pass for one of them, so the first such eviction ends this time.
cdef inline bint starting_up(Core *core, uint64_t now) noexcept nogil:
    return now - core.started < core.startup and not core.forgot

cdef inline void count_packet(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    if flow.packets[to_server] != UINT32_MAX:
        flow.packets[to_server] += 1
    flow.bytes[to_server] += packet.length

# Drops or resets the flow from here on; its held packets are dropped.
cdef void end_flow(Core *core, Flow *flow, uint8_t action, uint64_t now, Operations *out) noexcept nogil
# Ends the inspection of the flow: its packets pass from here on.
cdef void stop_following(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil
# Frees the memory that the flow's streams and dialogue use.
cdef void release_flow_memory(Core *core, Flow *flow) noexcept nogil
cdef Flow *open_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil
cdef void refuse_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil
