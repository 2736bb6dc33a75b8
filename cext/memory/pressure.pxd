# Memory pressure: which flows give way, and which ones wait, when the memory for streams is short.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.tcp.stream cimport Stream
from nfmailguard.cext.wire.packet cimport Packet

# How much memory is needed at most to decide and keep `length` more bytes (cost_to_keep), to forward them ahead of a
# gap (cost_to_buffer), or to hold a packet of `length` bytes (cost_to_hold).
cdef uint64_t cost_to_keep(const Flow *flow, bint to_server, uint32_t length) noexcept nogil
cdef uint64_t cost_to_buffer(const Flow *flow, const Stream *stream, uint32_t length) noexcept nogil
cdef uint64_t cost_to_hold(const Flow *flow, const Stream *stream, uint32_t length) noexcept nogil
# Whether the flow may use `need` more bytes of memory. Where memory is short, flows whose receivers acknowledge nothing
# are ended first.
cdef bint memory_for(Core *core, Flow *flow, bint to_server, uint64_t need, uint64_t now,
                     Operations *out) noexcept nogil
# Whether there is memory for a packet's new bytes; if not, the packet has been answered. A flow whose receiver keeps
# acknowledging only has to wait: the packet is dropped, and its sender retransmits it.
cdef bint room_for(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, Operations *out) noexcept nogil
