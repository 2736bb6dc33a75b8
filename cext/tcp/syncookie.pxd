# SYN cookies: which of a client's ACKs could open another connection at the server.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.core cimport CookieNotes, Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.wire.packet cimport Packet

# Changes a number of a client's segment if its ACK could pass for a SYN cookie. False: the segment has to be dropped.
cdef bint hide_cookie(Core *core, Flow *flow, Packet *packet, uint64_t now) noexcept nogil
# `lines`: cache lines in each half of the filter, a power of two. Returns -1 without memory.
cdef int notes_open(CookieNotes *notes, uint32_t lines) noexcept nogil
cdef void notes_close(CookieNotes *notes) noexcept nogil
# The server has answered the flow's SYN: the difference of the two initial numbers is noted for a SYN cookie's life.
cdef void note_cookie(Core *core, const Flow *flow, uint64_t now) noexcept nogil
# A number that the client has used and the server has acknowledged, and that cannot pass for the end of a SYN cookie's
# handshake together with the client's latest ACK.
cdef uint32_t old_number(Core *core, const Flow *flow) noexcept nogil
