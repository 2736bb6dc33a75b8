# The tap: records packets that came in and packets that left, in two capture files.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.operation cimport Operation
from nfmailguard.cext.wire.packet cimport QueuedPacket

cdef struct TapFile:
    int fd
    int error                  # errno of the failed write that ended the file; 0: none
    uint32_t used
    uint8_t *buffer
    uint64_t buffered          # packets in `buffer`, not in the file yet
    uint64_t written           # packets written to the file
    uint64_t lost              # packets missing from the file because they could not be written

# A copy of an incoming packet, kept until the core answers it.
cdef struct Copy:
    Copy *next
    uint64_t id
    uint32_t captured
    uint32_t length
    uint8_t data[0]

cdef enum:
    TAP_BUCKETS = 4096

cdef struct TapState:
    TapFile incoming
    TapFile outgoing
    Copy *copies[TAP_BUCKETS]

cdef class TapWriter:
    cdef TapState state

# Records an incoming packet; called before the core sees it, for the core edits packets in place.
cdef void tap_incoming(TapState *tap, const QueuedPacket *packet, uint64_t now) noexcept nogil
# Records what leaves by a core operation. `kind`: what the driver does, which is a drop for a replacement too long.
cdef void tap_operation(TapState *tap, const Operation *operation, uint8_t kind, uint64_t now) noexcept nogil
