# SYN cookies: which of a client's ACKs could open another connection.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.core cimport CookieNotes, Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.wire.packet cimport Packet

# Of a segment of the client's: makes its acknowledgement one that is no cookie. False: it is to be dropped.
cdef bint hide_cookie(Core *core, Flow *flow, Packet *packet, uint64_t now) noexcept nogil
# `lines`: a power of two, each a cache line in each half. -1 without memory.
cdef int notes_open(CookieNotes *notes, uint32_t lines) noexcept nogil
cdef void notes_close(CookieNotes *notes) noexcept nogil
# The server has answered the flow's SYN: what both initial numbers differ by is no other flow's for a cookie's life.
cdef void note_cookie(Core *core, const Flow *flow, uint64_t now) noexcept nogil
# A number of the client's that its server has acknowledged, and that is no cookie's with the ACK of all the client has.
cdef uint32_t old_number(Core *core, const Flow *flow) noexcept nogil
