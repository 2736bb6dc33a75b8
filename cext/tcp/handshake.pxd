# Connections: how a flow begins with its first packet, and what SYNs do to a flow.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Gives the verdict for a packet that belongs to no known flow; opens a flow if the packet may begin one.
cdef void first_packet(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil
# Gives the verdict for a packet with SYN on a known flow; returns False, without a verdict, if the packet has no SYN.
cdef bint handshake(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil
