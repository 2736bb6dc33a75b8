# The packets held in the kernel's queue, by their arrival, and how many there may be.
from libc.stdint cimport uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.sources cimport Source
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.operation cimport Operations
from nfmailguard.cext.tcp.stream cimport Held, Stream

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
cdef bint may_hold(Core *core, Flow *flow, Source source) noexcept nogil
