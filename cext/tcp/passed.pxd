# Passed flows, which are no longer inspected: their sequence numbers and their end.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Notes the sequence numbers, and a FIN, of a packet of a flow that is no longer inspected.
cdef void follow_passed(Flow *flow, bint to_server, Packet *packet) noexcept nogil
# Gives the verdict for a packet of a flow that is no longer inspected.
cdef void pass_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                      Operations *out) noexcept nogil
