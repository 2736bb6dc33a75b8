# Streams: one direction of a flow, from the last acknowledged octet to the last one that waits.
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.flow.sources cimport Source
from nfmailguard.cext.memory.pagebuffer cimport PageBuffer
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.wire.packet cimport Packet, QueuedPacket, nm_seq_diff

# Octets that went ahead of a gap: the receiver may have them, and cannot read them yet.
cdef struct OutOfOrder:
    OutOfOrder *next           # by sequence number; two of them share no octet
    PageBuffer data
    uint32_t seq               # of the first one in `data`

# A packet that waits in the queue for its turn, with its octets behind the struct.
cdef struct Held:
    Held *next                 # of its stream, by sequence number
    Held *older                # of all that are held
    Held *newer
    void *flow                 # its Flow
    uint64_t arrived           # nanoseconds
    QueuedPacket queued        # `data` points behind this struct
    uint32_t seq
    uint32_t payload_at        # offset of the payload in the packet
    uint32_t payload_length
    uint32_t size              # octets of the packet
    Source source              # its sender
    uint8_t cleared            # its header has been changed
    uint8_t to_server

# Octets as they came where others were emitted: an honest sender repeats these.
cdef struct Edit:
    Edit *next                 # by sequence number
    uint32_t seq
    uint32_t length            # octets, behind the struct

cdef enum:
    MOST_EDITS = 256           # of one stream, not acknowledged; of more, later copies look like conflicts

# What a stream has to remember besides what it keeps; lent while there is any.
cdef struct Backlog:
    Edit *edits
    Edit *last_edit
    OutOfOrder *buffered
    OutOfOrder *farthest       # the last of them
    Held *held
    uint32_t buffered_count
    uint32_t edit_count
    uint32_t held_count

cdef enum:                             # Fin
    FIN_SENT = 1
    FIN_TAKEN = 2                      # and its receiver has acknowledged it

cdef enum:                             # StreamFact: bits of Stream.facts
    SYN_SEEN = 1                       # next_seq - bytes - 1 is its initial sequence number
    WINDOW_KNOWN = 2                   # window_end is known
    INTERFACE_KNOWN = 4                # Flow.interface is, of this direction

cdef struct Stream:
    PageBuffer unacked         # emitted and not acknowledged: [last_ack, next_seq)
    Backlog *backlog
    uint64_t bytes             # decided since the beginning
    uint32_t next_seq          # the first octet that is not decided
    uint32_t last_ack          # the first octet that is not acknowledged
    uint32_t fin_seq           # where the stream ends, when fin
    uint32_t max_window        # the widest window its receiver has announced
    uint32_t window_end        # the first octet the receiver has not made room for
    uint8_t facts              # StreamFact
    uint8_t fin                # Fin
    uint8_t scale              # of the windows its sender announces (RFC 7323 2.2)
    uint8_t offers             # OptionBit: what its sender's SYN offered

# Appends what was decided and moves next_seq; -1 when memory runs out, and then nothing has changed.
cdef int stream_keep(Stream *stream, Pool *pool, const uint8_t *data, uint32_t length) noexcept nogil
# Notes how `length` octets that are about to be kept came, as far as they differ.
cdef void stream_note_edit(Stream *stream, Pool *pool, const uint8_t *original, const uint8_t *data,
                           uint32_t length) noexcept nogil
# Lets go of what lies before `ack`; the caller has checked last_ack <= ack <= next_seq.
cdef void stream_acknowledge(Stream *stream, Pool *pool, uint32_t ack) noexcept nogil
# Puts the first-seen octets over a retransmission of decided ones; how many differed.
cdef uint32_t stream_overwrite_with_first_copy(Stream *stream, uint32_t seq, uint8_t *data, uint32_t length, bint write,
                                               bint *conflict) noexcept nogil
# Puts octets that went ahead over those of a segment; how many differed.
cdef uint32_t stream_overwrite_with_buffered(Stream *stream, uint32_t seq, uint8_t *data, uint32_t length,
                                             bint write) noexcept nogil
# Remembers a segment that goes ahead, as far as it is new; -1 when memory runs out.
cdef int stream_buffer(Stream *stream, Pool *pool, uint32_t seq, const uint8_t *data, uint32_t length) noexcept nogil
# Forgets the first `length` octets of the first OutOfOrder.
cdef void stream_consume(Stream *stream, Pool *pool, uint32_t length) noexcept nogil
# Whose packet it is that has been held; `cleared`: its header has been changed already.
cdef inline void held_of_flow(Held *held, void *flow, bint to_server, Source source, bint cleared) noexcept nogil:
    held.flow = flow
    held.to_server = to_server
    held.source = source
    held.cleared = cleared

# Copies a packet into the list of held ones; NULL when memory runs out.
cdef Held *stream_hold(Stream *stream, Pool *pool, Packet *packet, uint64_t now) noexcept nogil
# The first held packet that shares an octet with [seq, seq + length), or NULL.
cdef Held *stream_holding(Stream *stream, uint32_t seq, uint32_t length) noexcept nogil
# Takes a held packet out of the list; its memory is the caller's now.
cdef void stream_release(Stream *stream, Pool *pool, Held *held) noexcept nogil
cdef void held_free(Pool *pool, Held *held) noexcept nogil
# Gives back everything; held packets must have been released.
cdef void stream_close(Stream *stream, Pool *pool) noexcept nogil

# The first of what went ahead, and of what is held, or NULL.
cdef inline OutOfOrder *stream_buffered(const Stream *stream) noexcept nogil:
    return stream.backlog.buffered if stream.backlog != NULL else NULL

cdef inline Held *stream_held(const Stream *stream) noexcept nogil:
    return stream.backlog.held if stream.backlog != NULL else NULL

cdef inline uint32_t stream_buffered_count(const Stream *stream) noexcept nogil:
    return stream.backlog.buffered_count if stream.backlog != NULL else 0

cdef inline uint32_t stream_held_count(const Stream *stream) noexcept nogil:
    return stream.backlog.held_count if stream.backlog != NULL else 0

# Whether it keeps or remembers nothing.
# The stream's backlog, made when it has none; NULL without memory.
cdef Backlog *take_backlog(Stream *stream, Pool *pool) noexcept nogil
# Gives it back where nothing is in it.
cdef void free_backlog(Stream *stream, Pool *pool) noexcept nogil

cdef inline bint stream_is_empty(const Stream *stream) noexcept nogil:
    return stream.unacked.length == 0 and stream.backlog == NULL

cdef inline uint32_t buffered_end(const OutOfOrder *buffered) noexcept nogil:
    return buffered.seq + buffered.data.length

cdef inline uint32_t stream_isn(const Stream *stream) noexcept nogil:
    return stream.next_seq - <uint32_t> stream.bytes - 1

# Whether a number lies before the first byte of the stream; numbers of more than 2^31 bytes ago do not.
cdef inline bint before_stream(const Stream *stream, uint32_t seq) noexcept nogil:
    cdef int32_t behind = nm_seq_diff(stream.next_seq, seq)
    return behind > 0 and <uint64_t> behind > stream.bytes

cdef inline bint stream_ended(const Stream *stream) noexcept nogil:
    # Whether the FIN stands behind the last decided octet.
    return stream.fin and stream.fin_seq == stream.next_seq
