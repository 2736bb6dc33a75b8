# Inspection of one flow: its packets in any order, its streams in order, its dialogue decided.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Answers one packet of a flow that is inspected, and whatever it releases.
cdef void inspect_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                         Operations *out) noexcept nogil
