# RSTs of the peers.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# A RST on a known flow: answered.
cdef void reset_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                       Operations *out) noexcept nogil
