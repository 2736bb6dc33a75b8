# RSTs that the gateway itself sends: built, and handed to the driver.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Sends a RST to one side, with the sequence number that this side expects (RFC 9293 3.5.2).
cdef void emit_reset(Core *core, Flow *flow, bint to_server, Operations *out) noexcept nogil
# Sends a RST to the sender of a packet that belongs to no flow.
cdef void emit_refusal(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil
