# Streams: one direction of a flow, from the last acknowledged byte to the last byte that waits.
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.flow.sources cimport Source
from nfmailguard.cext.memory.pagebuffer cimport PageBuffer
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.wire.packet cimport Packet, QueuedPacket, nm_seq_diff

# Bytes that were forwarded ahead of a gap: the receiver may have them, but cannot read them yet.
cdef struct OutOfOrder:
    OutOfOrder *next           # the next OutOfOrder by sequence number; no two have a byte in common
    PageBuffer data
    uint32_t seq               # sequence number of the first byte in `data`

# A packet held in the kernel's queue until its turn. A copy of its bytes follows the struct in memory.
cdef struct Held:
    Held *next                 # the stream's next held packet by sequence number
    Held *older                # the packet held before this one, among those of all flows
    Held *newer
    void *flow                 # the Flow that the packet belongs to
    uint64_t arrived           # time at which the packet arrived, in nanoseconds
    QueuedPacket queued        # as the driver handed it over, but `data` points to the copy after this struct
    uint32_t seq
    uint32_t payload_at        # offset of the payload in the packet, in bytes
    uint32_t payload_length
    uint32_t size              # size of the held packet in bytes
    Source source              # the packet's sender, for the limit on held packets of one sender
    uint8_t cleared            # whether the packet's header has been changed
    uint8_t to_server

# Bytes as the sender sent them, where edited ones were forwarded: an honest sender retransmits the original bytes.
cdef struct Edit:
    Edit *next                 # the next edit by sequence number
    uint32_t seq
    uint32_t length            # number of original bytes, which follow the struct in memory

cdef enum:
    MOST_EDITS = 256           # unacknowledged edits remembered for a stream; more look like conflicts if sent again

# What a stream remembers besides its unacknowledged bytes; allocated only while there is something to remember.
cdef struct Backlog:
    Edit *edits
    Edit *last_edit
    OutOfOrder *buffered
    OutOfOrder *farthest       # the last OutOfOrder in the list `buffered`
    Held *held
    uint32_t buffered_count
    uint32_t edit_count
    uint32_t held_count

cdef enum:                             # Fin: how far a stream's FIN has come
    FIN_SENT = 1
    FIN_TAKEN = 2                      # the FIN was seen, and its receiver has acknowledged it

cdef enum:                             # StreamFact: bits of Stream.facts
    SYN_SEEN = 1                       # the SYN was seen: its sequence number is next_seq - bytes - 1
    WINDOW_KNOWN = 2                   # the receiver has announced a window: window_end is valid
    INTERFACE_KNOWN = 4                # this direction's interface is known: Flow.interface is valid

cdef struct Stream:
    PageBuffer unacked         # bytes forwarded and not acknowledged, of sequence numbers [last_ack, next_seq)
    Backlog *backlog
    uint64_t bytes             # number of bytes decided since the stream began
    uint32_t next_seq          # sequence number of the first byte that is not decided
    uint32_t last_ack          # sequence number of the first byte that is not acknowledged
    uint32_t fin_seq           # sequence number of the FIN, if `fin` is not 0
    uint32_t max_window        # the largest window that the receiver has announced, in bytes
    uint32_t window_end        # sequence number of the first byte beyond the receiver's window
    uint8_t facts              # what is known of the stream, as StreamFact bits
    uint8_t fin                # Fin: how far the FIN has come; 0: none was seen
    uint8_t scale              # shift count of the windows that the stream's sender announces (RFC 7323 2.2)
    uint8_t offers             # TCP options that the sender's SYN offered, as OptionBit bits

# Keeps bytes that were decided, and advances next_seq; -1 when memory runs out, and then nothing has changed.
cdef int stream_keep(Stream *stream, Pool *pool, const uint8_t *data, uint32_t length) noexcept nogil
# Remembers how the sender sent `length` bytes that are about to be kept, as far as they were edited.
cdef void stream_note_edit(Stream *stream, Pool *pool, const uint8_t *original, const uint8_t *data,
                           uint32_t length) noexcept nogil
# Frees what is kept of the bytes before `ack`; the caller has checked that last_ack <= ack <= next_seq.
cdef void stream_acknowledge(Stream *stream, Pool *pool, uint32_t ack) noexcept nogil
# With `write`, overwrites a retransmission of decided bytes with the first copy. Returns 0 if they are equal.
cdef uint32_t stream_overwrite_with_first_copy(Stream *stream, uint32_t seq, uint8_t *data, uint32_t length, bint write,
                                               bint *conflict) noexcept nogil
# With `write`, overwrites those bytes of a segment that were already forwarded ahead of a gap with the first copy.
# Returns 0 if they are equal.
cdef uint32_t stream_overwrite_with_buffered(Stream *stream, uint32_t seq, uint8_t *data, uint32_t length,
                                             bint write) noexcept nogil
# Remembers the new bytes of a segment that is forwarded ahead of a gap; -1 when memory runs out.
cdef int stream_buffer(Stream *stream, Pool *pool, uint32_t seq, const uint8_t *data, uint32_t length) noexcept nogil
# Removes the first `length` bytes of the stream's first OutOfOrder.
cdef void stream_consume(Stream *stream, Pool *pool, uint32_t length) noexcept nogil
# Notes which flow, direction and sender a held packet belongs to; `cleared`: its header has been changed.
cdef inline void held_of_flow(Held *held, void *flow, bint to_server, Source source, bint cleared) noexcept nogil:
    held.flow = flow
    held.to_server = to_server
    held.source = source
    held.cleared = cleared

# Copies a packet into the stream's list of held packets; NULL when memory runs out.
cdef Held *stream_hold(Stream *stream, Pool *pool, Packet *packet, uint64_t now) noexcept nogil
# The first held packet with a byte in [seq, seq + length), or NULL.
cdef Held *stream_holding(Stream *stream, uint32_t seq, uint32_t length) noexcept nogil
# Takes a held packet out of the stream's list; its memory belongs to the caller then.
cdef void stream_release(Stream *stream, Pool *pool, Held *held) noexcept nogil
cdef void held_free(Pool *pool, Held *held) noexcept nogil
# Frees everything that the stream keeps; its held packets must have been released before.
cdef void stream_close(Stream *stream, Pool *pool) noexcept nogil

# The stream's first bytes that were forwarded ahead of a gap, and its first held packet; NULL if there are none.
cdef inline OutOfOrder *stream_buffered(const Stream *stream) noexcept nogil:
    return stream.backlog.buffered if stream.backlog != NULL else NULL

cdef inline Held *stream_held(const Stream *stream) noexcept nogil:
    return stream.backlog.held if stream.backlog != NULL else NULL

cdef inline uint32_t stream_buffered_count(const Stream *stream) noexcept nogil:
    return stream.backlog.buffered_count if stream.backlog != NULL else 0

cdef inline uint32_t stream_held_count(const Stream *stream) noexcept nogil:
    return stream.backlog.held_count if stream.backlog != NULL else 0

# The stream's backlog, allocated if it has none; NULL without memory.
cdef Backlog *take_backlog(Stream *stream, Pool *pool) noexcept nogil
# Frees the stream's backlog if nothing is in it.
cdef void free_backlog(Stream *stream, Pool *pool) noexcept nogil

cdef inline bint stream_is_empty(const Stream *stream) noexcept nogil:
    return stream.unacked.length == 0 and stream.backlog == NULL

cdef inline uint32_t buffered_end(const OutOfOrder *buffered) noexcept nogil:
    return buffered.seq + buffered.data.length

cdef inline uint32_t stream_isn(const Stream *stream) noexcept nogil:
    return stream.next_seq - <uint32_t> stream.bytes - 1

# Whether a sequence number lies before the first byte of the stream, by at most 2^31 bytes from the next one.
cdef inline bint before_stream(const Stream *stream, uint32_t seq) noexcept nogil:
    cdef int32_t behind = nm_seq_diff(stream.next_seq, seq)
    return behind > 0 and <uint64_t> behind > stream.bytes

cdef inline bint stream_ended(const Stream *stream) noexcept nogil:
    # Whether the FIN directly follows the last decided byte: nothing of the stream is missing.
    return stream.fin and stream.fin_seq == stream.next_seq
