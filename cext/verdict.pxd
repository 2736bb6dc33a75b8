# Answers to queued packets, each counted; a drop also by its reason.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport OP_ACCEPT, OP_DROP, OP_REPLACE, Operations, operation_append
from nfmailguard.cext.wire.packet cimport Packet

# Lets a packet pass; `changed`: it is replaced by its edited copy, with new checksums.
cdef void forward(Core *core, Flow *flow, bint to_server, Packet *packet, bint changed, Operations *out) noexcept nogil

cdef inline void accept(Core *core, uint64_t id, Operations *out) noexcept nogil:
    operation_append(out, OP_ACCEPT, id, NULL, 0)
    core.counters.accepted += 1

# Accepts a packet of a flow that needs no more inspection, and allows the driver to offload the connection.
cdef inline void accept_offloadable(Core *core, uint64_t id, Operations *out) noexcept nogil:
    operation_append(out, OP_ACCEPT, id, NULL, 0).offloadable = 1
    core.counters.accepted += 1

cdef inline void replace(Core *core, uint64_t id, uint8_t *packet, uint32_t length, Operations *out) noexcept nogil:
    operation_append(out, OP_REPLACE, id, packet, length)
    core.counters.replaced += 1

cdef inline void drop(Core *core, uint8_t reason, uint64_t id, Operations *out) noexcept nogil:
    operation_append(out, OP_DROP, id, NULL, 0)
    core.counters.dropped += 1
    core.drops[reason] += 1

cdef inline void drop_if(Core *core, bint condition, uint8_t reason, uint64_t id, Operations *out) noexcept nogil:
    if condition:
        drop(core, reason, id, out)
    else:
        accept(core, id, out)
