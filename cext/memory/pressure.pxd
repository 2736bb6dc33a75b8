# Scarcity: who gives way, and who waits, when the streams' memory is short.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.tcp.stream cimport Stream
from nfmailguard.cext.wire.packet cimport Packet

# What it takes, at most, to decide and keep so many bytes more; to let them go ahead; to hold a packet of so many.
cdef uint64_t cost_to_keep(const Flow *flow, bint to_server, uint32_t length) noexcept nogil
cdef uint64_t cost_to_buffer(const Flow *flow, const Stream *stream, uint32_t length) noexcept nogil
cdef uint64_t cost_to_hold(const Flow *flow, const Stream *stream, uint32_t length) noexcept nogil
# Whether the flow may have memory for `need` bytes more, when those have given way whose receivers take nothing.
cdef bint memory_for(Core *core, Flow *flow, bint to_server, uint64_t need, uint64_t now,
                     Operations *out) noexcept nogil
# The same for a packet's next bytes; False: it has been answered. A flow whose receiver takes what is sent is only
# made to wait: its sender repeats the packet.
cdef bint room_for(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, Operations *out) noexcept nogil
