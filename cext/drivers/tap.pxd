# A witness of what came in and what left, as two capture files.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.operation cimport Operation
from nfmailguard.cext.wire.packet cimport QueuedPacket

cdef struct TapFile:
    int fd
    int error                  # the errno that ended the writing, 0 while it goes well
    uint32_t used
    uint8_t *buffer
    uint64_t buffered          # packets in `buffer`
    uint64_t written           # packets in the file
    uint64_t lost              # packets that could not be written

cdef struct Copy:              # a packet's octets as they came, until its operation
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

# Before the core sees the packet: it edits in place.
cdef void tap_incoming(TapState *tap, const QueuedPacket *packet, uint64_t now) noexcept nogil
# `kind` is what the driver makes of the operation.
cdef void tap_operation(TapState *tap, const Operation *operation, uint8_t kind, uint64_t now) noexcept nogil
