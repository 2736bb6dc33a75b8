# Actions: what a finding about a packet does to the packet and its flow.
from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Answers a packet by the action of its finding; an action that ends the flow does so.
cdef void answer_by(Core *core, Flow *flow, uint8_t action, uint8_t reason, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil
# A packet that has no place in the dialogue has been let through: the flow is not looked at any more.
cdef void bypass(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, Operations *out) noexcept nogil
# Reports why a packet has no place in the dialogue, and answers it; let through, it ends our looking at the flow.
cdef void apply_condition(Core *core, Flow *flow, bint to_server, uint8_t finding, Packet *packet, uint64_t now,
                          Operations *out) noexcept nogil
