# Decides which bytes of a stream pass and which are changed, in order: a segment's, and those that waited for it.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Bytes of a stream to be decided, in place, and the result.
cdef struct Decision:
    uint8_t *data
    uint32_t length
    uint32_t decided           # bytes decided, from the first on; fewer than `length` where the client has to wait
    uint32_t changed           # how many of the decided bytes were changed
    uint8_t verdict            # ACTION_PASS, or the action that ends the flow or (ACTION_LOG) its inspection
    uint8_t already_forwarded  # 1: the packet with these bytes has been forwarded already, ahead of a gap

# Decides the next bytes of a stream and keeps them: all of them, or, if they were forwarded already or the policy only
# follows the dialogue, those up to where the client has to wait for a reply.
cdef void decide(Core *core, Flow *flow, bint to_server, Decision *decision, uint64_t now,
                 Operations *out) noexcept nogil
# Like `decide`, for the payload of a packet that begins at or before the next expected byte; changes it in place.
cdef void decide_packet(Core *core, Flow *flow, bint to_server, Packet *packet, Decision *decision, uint64_t now,
                        Operations *out) noexcept nogil
# Carries out a verdict other than ACTION_PASS; ACTION_LOG ends the inspection of the flow.
cdef void carry_out(Core *core, Flow *flow, uint8_t verdict, uint64_t now, Operations *out) noexcept nogil
# Reports that the client has sent bytes although it has to wait for a reply.
cdef void note_pipelining_violation(Core *core, Flow *flow, uint64_t now) noexcept nogil
# Forwards the bytes of a client's packet that are decided. A super-packet is dropped: the kernel would drop it if cut.
cdef void forward_part(Core *core, Flow *flow, Packet *packet, uint32_t decided, Operations *out) noexcept nogil
# Decides bytes that were forwarded ahead of a gap, and held packets, as far as all bytes before them are decided.
cdef void drain(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil
