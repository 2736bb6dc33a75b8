# Inspection of one flow: its packets in any order, its streams in order, its dialogue decided.
from libc.stdint cimport uint8_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.packet cimport Packet

# Answers one packet of a flow that is inspected, and whatever it releases.
cdef void inspect_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                         Operations *out) noexcept nogil
# Reports a condition of the flow and returns the action to carry out.
cdef uint8_t report_condition(Core *core, Flow *flow, uint8_t finding, bint to_server, uint64_t now) noexcept nogil
# Drops or resets the flow from here on; held packets are answered with a drop.
cdef void end_flow(Core *core, Flow *flow, uint8_t action, uint64_t now, Operations *out) noexcept nogil
# Answers every held packet of the flow with a drop and forgets what was remembered.
cdef void drop_pending(Core *core, Flow *flow, Operations *out) noexcept nogil
# A RST to one side, with the sequence number that side expects (RFC 9293 3.5.2).
cdef void emit_reset(Core *core, Flow *flow, bint to_server, Operations *out) noexcept nogil
