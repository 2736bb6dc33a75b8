# Inspects one flow: takes its packets in any order, puts its streams in order and has the dialogue decided.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Answers one packet of an inspected flow, and the held packets whose turn has come with it.
cdef void inspect_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                         Operations *out) noexcept nogil
