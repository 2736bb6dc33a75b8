# Streams: one direction of a flow, from the last acknowledged octet to the last segment waiting.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from nfmailguard.cext.packet cimport Packet, QueuedPacket

cdef enum:
    PAGE_OCTETS = 2040

cdef struct Page:
    Page *next
    uint8_t data[PAGE_OCTETS]

# All memory that peers can make us use, under one cap.
cdef struct Pool:
    Page *free
    uint64_t used              # octets in pages of streams and in pending segments
    uint64_t limit

# A segment that cannot be decided yet, with a copy of its packet behind the struct.
cdef struct Segment:
    Segment *next              # by sequence number
    uint64_t arrived           # nanoseconds
    QueuedPacket queued        # `data` points behind this struct
    uint32_t seq
    uint32_t payload_at        # offset of the payload in the packet
    uint32_t payload_length
    uint32_t size              # octets of the packet
    uint8_t gone               # it has been let through and is only remembered

cdef struct Stream:
    Page *first                # emitted and not acknowledged: [kept_seq, next_seq)
    Page *last
    Segment *pending
    uint64_t octets            # decided since the beginning
    uint32_t isn
    uint32_t next_seq          # the first octet that is not decided
    uint32_t kept_seq          # the first octet that is kept
    uint32_t fin_seq           # where the stream ends, when fin
    uint32_t pending_count
    uint16_t first_offset      # octets of `first` before kept_seq
    uint8_t known              # isn seen
    uint8_t fin

cdef int stream_keep(Stream *stream, Pool *pool, const uint8_t *octets, uint32_t length) noexcept nogil
cdef void stream_acknowledge(Stream *stream, Pool *pool, uint32_t ack) noexcept nogil
cdef uint32_t stream_put_back(Stream *stream, uint32_t seq, uint8_t *octets, uint32_t length,
                              bint write, bint *conflict) noexcept nogil
cdef Segment *stream_remember(Stream *stream, Pool *pool, Packet *packet, uint64_t now, bint gone) noexcept nogil
cdef Segment *stream_overlapping(Stream *stream, uint32_t seq, uint32_t length) noexcept nogil
cdef void stream_take_out(Stream *stream, Segment *segment) noexcept nogil
cdef void segment_free(Pool *pool, Segment *segment) noexcept nogil
cdef void stream_forget(Stream *stream, Pool *pool, Segment *segment) noexcept nogil
cdef void stream_close(Stream *stream, Pool *pool) noexcept nogil
cdef void pool_close(Pool *pool) noexcept nogil
