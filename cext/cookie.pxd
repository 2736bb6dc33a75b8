# SYN cookies: which of a client's ACKs could open another connection.
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow cimport Flow
from nfmailguard.cext.packet cimport Packet

cdef enum:
    NOTES = 4                  # of earlier connections; their place in a flow is Stream.notes
    NOTE_BITS = 12             # of a difference; above them is the date
cdef uint64_t NOTE_SPAN        # nanoseconds, by which a note is dated

# Of a segment of the client's: makes its acknowledgement one that is no cookie. False: it is to be dropped.
cdef bint hide_cookie(Core *core, Flow *flow, Packet *packet, uint64_t now) noexcept nogil
# What the next connection over the flow's ports has to know of this one and of those before, NOTES of them. False:
# it may not begin yet.
cdef bint notes_of(Core *core, const Flow *flow, uint64_t now, uint16_t *notes) noexcept nogil
cdef void take_notes(Flow *flow, const uint16_t *notes) noexcept nogil
# A number of the client's that its server has acknowledged, and that is no cookie's with the ACK of all the client has.
cdef uint32_t old_number(const Flow *flow) noexcept nogil
