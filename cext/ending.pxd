# Endings: what is found about a flow as a whole, and how its inspection ends.
from libc.stdint cimport uint8_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.packet cimport Packet
from nfmailguard.cext.smtp cimport Scene
from nfmailguard.cext.stream cimport Held, Stream

cdef void set_scene(Core *core, Flow *flow, Scene *scene, uint64_t now) noexcept nogil
# Reports a condition of the flow and returns the action to carry out.
cdef uint8_t report_condition(Core *core, Flow *flow, uint8_t finding, bint to_server, uint64_t now) noexcept nogil
# A retransmission differs from what came first, which stands: the action that ends the flow, or ACTION_PASS.
cdef uint8_t conflicting(Core *core, Flow *flow, bint to_server, uint64_t now) noexcept nogil
# Reports a packet that belongs to no flow, under the rule a flow of its own would have, and returns the
# action to carry out.
cdef uint8_t report_stranger(Core *core, Packet *packet, uint8_t finding, bint to_server, uint64_t now) noexcept nogil
# A packet begins to be held: counted, and listed by its arrival.
cdef void list_held(Core *core, Held *held) noexcept nogil
# The first held packet of the stream, out of every list and count, or NULL; `answered` frees it.
cdef Held *next_held(Core *core, Stream *stream) noexcept nogil
# Drops the packet that has been held longest.
cdef void drop_oldest_held(Core *core, uint64_t now, Operations *out) noexcept nogil
# The packet has been answered; its octets may be in an operation until the next call.
cdef void answered(Core *core, Held *held) noexcept nogil
# Answers every held packet of the flow with a drop; what went ahead stays remembered.
cdef void drop_held(Core *core, Flow *flow, Operations *out) noexcept nogil
# Drops or resets the flow from here on; held packets are answered with a drop.
cdef void end_flow(Core *core, Flow *flow, uint8_t action, uint64_t now, Operations *out) noexcept nogil
# Answers a packet by the action of its finding; an action that ends the flow does so.
cdef void answer_by(Core *core, Flow *flow, uint8_t action, uint8_t reason, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil
# Reports why a packet has no place in the dialogue, and answers it; let through, it ends our looking at the flow.
cdef void refuse(Core *core, Flow *flow, bint to_server, uint8_t finding, uint8_t reason, Packet *packet, uint64_t now,
                 Operations *out) noexcept nogil
# Lets the flow go on without being looked at.
cdef void stop_following(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil
# A RST to one side, with the sequence number that side expects (RFC 9293 3.5.2).
cdef void emit_reset(Core *core, Flow *flow, bint to_server, Operations *out) noexcept nogil
# A RST to the sender of a packet that belongs to no flow.
cdef void emit_refusal(Core *core, Packet *packet, bint to_server, Operations *out) noexcept nogil
# Gives back what the flow's streams and dialogue keep.
cdef void flow_let_go(Core *core, Flow *flow) noexcept nogil
