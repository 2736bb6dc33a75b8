# SYN cookies: which of a client's ACKs could open another connection.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow cimport Flow
from nfmailguard.cext.packet cimport Packet

# Of a segment of the client's: makes its acknowledgement one that is no cookie. False: it is to be dropped.
cdef bint hide_cookie(Core *core, Flow *flow, Packet *packet, uint64_t now) noexcept nogil
# What the initial numbers of the connections up to this one over its ports differed by: two of them, of different
# minutes, the latest first. note_earlier tells the next connection.
cdef void earlier_of(const Flow *flow, uint32_t *earlier) noexcept nogil
cdef void note_earlier(Flow *flow, uint32_t latest, uint32_t other) noexcept nogil
