# The life of a flow: admitted, refused, evicted, no longer inspected, ended, forgotten.
from libc.stdint cimport UINT32_MAX, uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# The handshake of a flow is complete: over its source's share it ends.
cdef void opens(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil
# Reports the flow's end and takes it out of the table; held packets are dropped.
cdef void forget_flow(Core *core, Flow *flow, uint8_t end, uint64_t now, Operations *out) noexcept nogil

# While flows that were open before us are let through. A flow that was pushed out of the table
# could pass for one of them, so the first such ends this time.
cdef inline bint starting_up(Core *core, uint64_t now) noexcept nogil:
    return now - core.started < core.startup and not core.forgot

cdef inline void count_packet(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    if flow.packets[to_server] != UINT32_MAX:
        flow.packets[to_server] += 1
    flow.bytes[to_server] += packet.length

# Drops or resets the flow from here on; held packets are answered with a drop.
cdef void end_flow(Core *core, Flow *flow, uint8_t action, uint64_t now, Operations *out) noexcept nogil
# Lets the flow go on without being looked at.
cdef void stop_following(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil
# Gives back what the flow's streams and dialogue keep.
cdef void release_flow_memory(Core *core, Flow *flow) noexcept nogil
cdef Flow *open_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil
cdef void refuse_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil
