# Records: fixed-size facts about the dialogue, in a ring that never blocks the packet path.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef enum:
    RECORD_TEXT = 288          # octets of text a record holds, `before` and `after` together
    RECORD_KINDS = 8
    MOST_RULES = 64            # of a generation
    RING_FLOWS = 4096          # counts of what flows have in the ring; strangers may share one
    RING_SOURCES = 65536       # and of what sources have: two for each, which are rarely shared both

cdef enum:  # RecordKind
    RECORD_FINDING = 1         # finding, action, verb, state; a = stream offset, b = its number in the flow
    RECORD_COMMAND = 2         # a command line as it came; a = stream offset, b = 1 when denied, c = bits of
                               # the findings in what the client has said since the last such record or message
    RECORD_REPLY = 3           # a complete reply; code; verb it answers; text of its last line; b = 1 where no record
                               # was made of that, nor of others before it; to a message, c = recipients that were
                               # accepted, and of whom no record was made
    RECORD_MESSAGE = 4         # end of data; a = octets of the message, c as of a command
    RECORD_FLOW = 5            # a flow ended; a = start ns, b,c = packets, octets to the server,
                               # d,e = to the client; code = FlowEnd
    RECORD_REPEATED = 6        # at a flow's end: finding, action; b = how many of it there were, more than were told

cdef enum:  # FlowEnd
    END_TIMEOUT = 0
    END_FIN = 1
    END_RST = 2
    END_DROPPED = 3            # by a drop-connection or reset of ours
    END_EVICTED = 4
    END_FINISHED = 5           # the engine was told to finish

# Whose record it is; a flow carries one and lends it.
cdef struct Identity:
    uint64_t flow_id
    uint16_t client_port
    uint16_t server_port
    uint8_t family             # 4 or 6
    uint8_t rule               # index of the FlowRule in its generation
    uint16_t source            # a keyed hash of its client's address (of IPv6, the /64)
    uint8_t client[16]         # IPv4 in the first four octets
    uint8_t server[16]

cdef struct Record:
    uint64_t now               # nanoseconds, the driver's clock
    uint64_t a
    uint64_t b
    uint64_t c
    uint64_t d
    uint64_t e
    Identity identity
    uint16_t code
    uint16_t before_length
    uint16_t after_length
    uint8_t kind
    uint8_t to_server          # 1: the client sent it
    uint8_t state              # smtp.states.State
    uint8_t verb               # index in smtp.verbs.VERBS
    uint8_t finding            # index in policy.model.FINDINGS
    uint8_t action             # index in policy.model.Action
    uint8_t hypothetical
    uint8_t applied            # 0: reported only (monitor, --dry-run)
    uint8_t generation         # whose rules identity.rule counts
    uint8_t text[RECORD_TEXT]  # before, then after

cdef struct Ring:
    Record *records            # `size` of them, a power of two
    uint32_t size
    uint32_t kinds             # bit 1 << kind: somebody wants these; 0 costs nothing
    uint8_t unshared           # nobody has a share: whoever makes records waits until they are read
    uint64_t head              # next to write; the packet thread's
    uint64_t tail              # next to read; the reader's
    uint64_t lost[RECORD_KINDS]    # records that found no place
    # How many each source, and each flow, has ever pushed, and how many of them have been read.
    uint32_t pushed_by_source[2][RING_SOURCES]
    uint32_t read_by_source[2][RING_SOURCES]
    uint32_t pushed_by_flow[RING_FLOWS]
    uint32_t read_by_flow[RING_FLOWS]

cdef int ring_open(Ring *ring, uint32_t size) noexcept nogil
cdef void ring_close(Ring *ring) noexcept nogil
# The next free record with its identity and kind, or NULL: nobody wants the kind, the ring is full,
# or the flow or its source has its share of it (counted as lost). ring_push publishes it.
cdef Record *record_reserve(Ring *ring, uint8_t kind, const Identity *identity, uint64_t now) noexcept nogil
# The same of a flow's end; `kept`: a reader may keep something of the flow until then.
cdef Record *end_reserve(Ring *ring, const Identity *identity, bint kept, uint64_t now) noexcept nogil
# Appends text to the reserved record, before or after, as much as fits.
cdef void record_text(Record *record, const uint8_t *data, uint32_t length, bint after) noexcept nogil
cdef void ring_push(Ring *ring) noexcept nogil
# The oldest record that has not been read, or NULL; it stays as it is until ring_read says that it has been.
cdef const Record *ring_next(Ring *ring) noexcept nogil
cdef void ring_read(Ring *ring) noexcept nogil
cdef list ring_drain(Ring *ring, int most)
