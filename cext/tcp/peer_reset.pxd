# RSTs that the peers (client and server) send.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Gives the verdict for a RST on a known flow.
cdef void reset_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                       Operations *out) noexcept nogil
