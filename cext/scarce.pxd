# Scarcity: who gives way, and who waits, when the streams' memory is short.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.packet cimport Packet

# Whether the flow may have memory for `length` bytes more, when those have given way whose receivers take nothing.
cdef bint memory_for(Core *core, Flow *flow, bint to_server, uint32_t length, uint64_t now,
                     Operations *out) noexcept nogil
# The same for a packet's next bytes; False: it has been answered. A flow whose receiver takes what is sent is only
# made to wait: its sender repeats the packet.
cdef bint room_for(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                   Operations *out) noexcept nogil
