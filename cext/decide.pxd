# Bytes of a stream in their order, decided: what a segment has, and what has waited for it.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Bytes to be decided, in place, and what has become of them.
cdef struct Decision:
    uint8_t *data
    uint32_t length
    uint32_t decided           # of them, from the first on; fewer where the client has to wait
    uint32_t changed           # how many of them differ now
    uint8_t verdict            # the action that ends the flow, or its inspection (ACTION_LOG); or ACTION_PASS
    uint8_t already_forwarded  # they have left already

# Decides the next bytes of a stream, and keeps them: all, or, where they have left already or the policy only follows,
# those before the client has to wait.
cdef void decide(Core *core, Flow *flow, bint to_server, Decision *decision, uint64_t now,
                 Operations *out) noexcept nogil
# Decides the payload of a packet that begins at or before the next byte, as `decide` does; of it are the bytes decided.
cdef void decide_packet(Core *core, Flow *flow, bint to_server, Packet *packet, Decision *decision, uint64_t now,
                        Operations *out) noexcept nogil
# Carries out a verdict other than ACTION_PASS; ACTION_LOG: not to be looked at any more.
cdef void carry_out(Core *core, Flow *flow, uint8_t verdict, uint64_t now, Operations *out) noexcept nogil
# Bytes of the client's have come although it has to wait for a reply.
cdef void note_pipelining_violation(Core *core, Flow *flow, uint64_t now) noexcept nogil
# The client's bytes that are decided go on. A super-packet would, trimmed, be dropped by the kernel.
cdef void forward_part(Core *core, Flow *flow, Packet *packet, uint32_t decided, Operations *out) noexcept nogil
# Decides what went ahead and what is held, as far as its turn has come.
cdef void drain(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil
