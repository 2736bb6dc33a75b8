# Segments that came before their turn: what becomes of them until then.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.wire.packet cimport Packet

# Lets a segment through before its turn: what of it is new is decided when the gap before it closes. Answered.
# `cleared`: its header has been changed.
cdef void forward_out_of_order(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                               Operations *out) noexcept nogil
# A segment that cannot be decided yet: answered, or held.
cdef void handle_out_of_order(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                              Operations *out) noexcept nogil
