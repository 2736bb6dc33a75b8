# Actions: how the policy's action for a finding (pass, drop, reset ...) is applied to the packet and its flow.
from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Gives the packet the verdict that `action` asks for; drop-connection and reset also end the flow.
cdef void answer_by(Core *core, Flow *flow, uint8_t action, uint8_t reason, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil
# Stops inspecting the flow after one of its packets was accepted unread: later packets are accepted uninspected.
cdef void bypass(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, Operations *out) noexcept nogil
# Reports a finding about the packet (a gap, a truncated packet, a limit ...) and gives the packet its verdict. If the
# action lets the packet through, the flow is no longer inspected.
cdef void apply_condition(Core *core, Flow *flow, bint to_server, uint8_t finding, Packet *packet, uint64_t now,
                          Operations *out) noexcept nogil
