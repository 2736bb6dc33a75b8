# Out-of-order segments: what becomes of them until the bytes before them have been decided.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Forwards a segment ahead of a gap: its new bytes are remembered, and are decided when the gap closes. Gives the packet
# its verdict. `cleared`: the packet's header has been changed.
cdef void forward_out_of_order(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                               Operations *out) noexcept nogil
# A segment that cannot be decided yet: gives it its verdict, or holds it.
cdef void handle_out_of_order(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                              Operations *out) noexcept nogil
