# The hold queue: packets held in the kernel's queue, by order of arrival, and how many there may be.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.sources cimport Source
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.tcp.stream cimport Held, Stream

# Begins to hold a packet: counts it, and appends it to the list of held packets.
cdef void list_held(Core *core, Held *held) noexcept nogil
# Takes the stream's first held packet out of all lists and counts and returns it, or NULL; `answered` will free it.
cdef Held *next_held(Core *core, Stream *stream) noexcept nogil
# Drops the packet that has been held longest.
cdef void drop_oldest_held(Core *core, uint64_t now, Operations *out) noexcept nogil
# A held packet has its verdict: its memory is freed in the next call, as an operation may need its bytes until then.
cdef void answered(Core *core, Held *held) noexcept nogil
# Drops all packets held for the flow; bytes that were forwarded ahead of a gap stay remembered.
cdef void drop_held(Core *core, Flow *flow, Operations *out) noexcept nogil
cdef bint may_hold(Core *core, Flow *flow, Source source) noexcept nogil
