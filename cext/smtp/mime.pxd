# File names of MIME parts in message text.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context

cdef struct Mime:
    uint32_t counted           # bytes so far: of a field's name, of a file's
    uint8_t state              # MimeState: what the next byte of the field belongs to
    uint8_t header             # it is a header's, the message's or a part's
    uint8_t line               # MimeLine
    uint8_t which              # Which: the names it may still have, of a field or of a parameter
    uint8_t name_length        # bytes of the parameter's name so far
    uint8_t starred            # a star stands behind it (RFC 2231)
    uint8_t counting           # the parameter is a file's name
    uint8_t reported           # in this field

cdef inline void begin_mime(Mime *mime) noexcept nogil:
    mime.state = 0
    mime.line = mime.reported = 0
    mime.header = 1

# Reads data[at:length] of a message; reports a file name above the policy's limit.
cdef void mime_bytes(Context *context, Mime *mime, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset) noexcept nogil
