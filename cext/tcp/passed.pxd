# Passed flows: their numbers and their end.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# What a packet of a flow that is not looked at any more says of its numbers and its end.
cdef void follow_passed(Flow *flow, bint to_server, Packet *packet) noexcept nogil
# A packet of a flow that is not looked at any more: answered.
cdef void pass_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                      Operations *out) noexcept nogil
