# File names in the MIME headers of message text.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context

cdef struct Mime:
    uint32_t counted           # bytes so far of a field's name, or of a file name
    uint8_t state              # MimeState: what the next byte of the header field belongs to
    uint8_t header             # 1: inside a header, the message's or a MIME part's
    uint8_t line               # MimeLine: the position in the line
    uint8_t which              # bits TYPE to NAME: names the field or the parameter being read may still have
    uint8_t name_length        # bytes of the MIME parameter's name so far
    uint8_t starred            # 1: a star follows the parameter's name (RFC 2231)
    uint8_t counting           # 1: the parameter is a file name, whose bytes are counted
    uint8_t reported           # 1: an overlong file name has been reported in this field

cdef inline void begin_mime(Mime *mime) noexcept nogil:
    mime.state = 0
    mime.line = mime.reported = 0
    mime.header = 1

# Reads data[at:length] of a message; reports file names longer than the policy's limit.
cdef void mime_bytes(Context *context, Mime *mime, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset) noexcept nogil
