# Conditions: findings about a flow as a whole (a gap, a limit ...), or about a packet that belongs to no flow.
from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.ruling cimport CompiledPolicy
from nfmailguard.cext.wire.packet cimport Packet

cdef void set_context(Core *core, Flow *flow, Context *context, uint64_t now) noexcept nogil
# Reports a finding about the flow as a whole and returns the action to carry out.
cdef uint8_t report_condition(Core *core, Flow *flow, uint8_t finding, bint to_server, uint64_t now) noexcept nogil
# Reports a retransmission that differs from the first copy; the first copy's bytes stand in any case. Returns the
# action (drop, drop-connection, reset) to carry out, or ACTION_PASS if the packet may go on.
cdef uint8_t conflicting(Core *core, Flow *flow, bint to_server, uint64_t now) noexcept nogil
# Whether a packet of no flow goes from client to server; it may be unparsed, but its addresses must be readable.
cdef bint is_to_server(Core *core, Packet *packet) noexcept nogil
cdef CompiledPolicy *policy_of(Core *core, Packet *packet, bint to_server) noexcept nogil
# The policy for a packet of no flow, parsed or not: that of the rule its own flow would have, or of the last rule,
# which matches everything, if its addresses cannot be read.
cdef CompiledPolicy *policy_without_flow(Core *core, Packet *packet) noexcept nogil
# Reports a finding about a packet that belongs to no flow, under the rule that a flow of its own would have, and
# returns the action to carry out.
cdef uint8_t report_without_flow(Core *core, Packet *packet, uint8_t finding, bint to_server,
                                 uint64_t now) noexcept nogil
