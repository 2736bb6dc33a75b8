# How long a message's header and body are, and how many To fields it has.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context

cdef struct Parts:
    uint32_t bytes             # of the header, then of the body, of whole lines
    uint32_t line              # of the line that is not whole
    uint16_t to_fields
    uint8_t name               # FieldName: octets of "To:" the line begins with, or why it does not
    uint8_t marks              # Marks

cdef inline void begin_parts(Parts *parts) noexcept nogil:
    parts.bytes = parts.line = 0
    parts.to_fields = 0
    parts.name = parts.marks = 0

# Reads data[at:length] of a message; `ended`: its end of data are the last of them.
cdef void part_bytes(Context *context, Parts *parts, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset, bint ended) noexcept nogil
