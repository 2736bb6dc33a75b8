# How long a message's header and body are, in bytes, and how many To fields the header has.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context

cdef struct Parts:
    uint32_t bytes             # size of the header, then of the body: bytes of complete lines
    uint32_t line              # bytes of the line that is not complete yet
    uint16_t to_fields
    uint8_t name               # FieldName: how many bytes of "To:" the line begins with, or why it does not
    uint8_t marks              # bits of Marks: what has been reported, and whether the body has begun

cdef inline void begin_parts(Parts *parts) noexcept nogil:
    parts.bytes = parts.line = 0
    parts.to_fields = 0
    parts.name = parts.marks = 0

# Reads data[at:length] of a message. `ended`: the message's end of data is the last part of it.
cdef void part_bytes(Context *context, Parts *parts, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset, bint ended) noexcept nogil
