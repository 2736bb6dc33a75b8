# SYN cookies: which of a client's ACKs could open another connection at the server.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.core cimport CookieNotes, Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.wire.packet cimport Packet

# Changes the SEQ or ACK number of a client's segment if its ACK could pass for a SYN cookie's. False: to be dropped.
cdef bint hide_cookie(Core *core, Flow *flow, Packet *packet, uint64_t now) noexcept nogil
# Allocates the filter of noted cookies. `lines`: cache lines in each half, a power of two. Returns -1 without memory.
cdef int notes_open(CookieNotes *notes, uint32_t lines) noexcept nogil
cdef void notes_close(CookieNotes *notes) noexcept nogil
# The server has answered the flow's SYN: the difference of the initial sequence numbers is noted for a cookie's life.
cdef void note_cookie(Core *core, const Flow *flow, uint64_t now) noexcept nogil
# A sequence number of the client's, acknowledged by the server, that together with the client's latest ACK number
# cannot pass for the end of a SYN cookie's handshake.
cdef uint32_t old_number(Core *core, const Flow *flow) noexcept nogil
