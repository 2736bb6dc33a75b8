# Conditions: findings about a flow as a whole, or about a packet of no flow.
from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.ruling cimport CompiledPolicy
from nfmailguard.cext.wire.packet cimport Packet

cdef void set_context(Core *core, Flow *flow, Context *context, uint64_t now) noexcept nogil
# Reports a condition of the flow and returns the action to carry out.
cdef uint8_t report_condition(Core *core, Flow *flow, uint8_t finding, bint to_server, uint64_t now) noexcept nogil
# A retransmission differs from what came first, which stands: the action that ends the flow, or ACTION_PASS.
cdef uint8_t conflicting(Core *core, Flow *flow, bint to_server, uint64_t now) noexcept nogil
# Whether a packet of no flow, parsed or not, goes to a server; its addresses can be read.
cdef bint is_to_server(Core *core, Packet *packet) noexcept nogil
cdef CompiledPolicy *policy_of(Core *core, Packet *packet, bint to_server) noexcept nogil
# The policy of a packet of no flow, parsed or not: of the rule a flow of its own would have, as far as can be told.
cdef CompiledPolicy *policy_without_flow(Core *core, Packet *packet) noexcept nogil
# Reports a packet that belongs to no flow, under the rule a flow of its own would have, and returns the
# action to carry out.
cdef uint8_t report_without_flow(Core *core, Packet *packet, uint8_t finding, bint to_server,
                                 uint64_t now) noexcept nogil
