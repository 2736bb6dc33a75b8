# Records: facts about the dialogue, of fixed size, in a ring buffer that never blocks the packet path.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

cdef enum:
    RECORD_TEXT = 288          # most bytes of text in a record, `before` and `after` together
    RECORD_KINDS = 8
    MOST_RULES = 64            # most rules of a generation
    RING_FLOWS = 4096          # counters of records in the ring by flow; unrelated flows may share a counter
    RING_SOURCES = 65536       # counters by source, in two tables with different hashes: two sources rarely share both

# Kinds of records, with the fields that each of them uses.
cdef enum:
    # A finding, with action, verb and state; a = stream offset, b = how many of its kind the flow has had so far.
    RECORD_FINDING = 1
    # A command line as received; a = stream offset, b = bits: 1: denied, 2: cut off; c = a bit for each finding
    # about what the client has sent since the last record of a command or message.
    RECORD_COMMAND = 2
    # A complete reply: code, the verb it answers, its last line's text; b = 1 where the command, and others before
    # it, have no record; in a reply to a message c = accepted recipients without a record.
    RECORD_REPLY = 3
    # An end of data; a = bytes of the message, c = as in RECORD_COMMAND.
    RECORD_MESSAGE = 4
    # The end of a flow; a = its start in nanoseconds, b, c = packets and bytes to the server, d, e = to the client;
    # code = FlowEnd.
    RECORD_FLOW = 5
    # Recorded when a flow ends: finding, action; b = how often it occurred, if more often than it was recorded.
    RECORD_REPEATED = 6

# How a flow ended.
cdef enum:
    END_TIMEOUT = 0
    END_FIN = 1
    END_RST = 2
    END_DROPPED = 3            # dropped or reset by the gateway
    END_EVICTED = 4
    END_FINISHED = 5           # the flow was open when the engine finished

# The connection a record is about; each flow has an Identity, which is copied into its records.
cdef struct Identity:
    uint64_t flow_id
    uint16_t client_port
    uint16_t server_port
    uint8_t family             # IP version: 4 or 6
    uint8_t rule               # index of the connection's FlowRule in its generation of rules
    uint16_t source            # a keyed hash of the client's address (for IPv6, of its /64)
    uint8_t client[16]         # an IPv4 address is in the first four bytes
    uint8_t server[16]

cdef struct Record:
    uint64_t now               # time of the record in nanoseconds, by the driver's clock
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
    uint8_t to_server          # 1: the record is about the client's direction
    uint8_t state              # state of the SMTP session: smtp.states.State
    uint8_t verb               # the verb, as an index in smtp.verbs.VERBS
    uint8_t finding            # the finding, as an index in policy.model.FINDINGS
    uint8_t action             # the action, as an index in policy.model.Action
    uint8_t hypothetical
    uint8_t applied            # 0: the action was only reported (monitor, --dry-run), not applied
    uint8_t generation         # the generation of rules in which identity.rule is an index
    uint8_t text[RECORD_TEXT]  # the record's text `before`, followed by its text `after`

cdef struct Ring:
    Record *records            # the ring's `size` records; `size` is a power of two
    uint32_t size
    uint32_t kinds             # bit 1 << kind: records of this kind are wanted; others are not made
    uint8_t unshared           # 1: no flow or source has a share, for the maker of records waits while the ring is full
    uint64_t head              # number of the next record to be written; written by the packet thread
    uint64_t tail              # number of the next record to be read; written by the reader
    uint64_t lost[RECORD_KINDS]    # records that found no room, by kind
    # For each source and each flow: records ever written, and records read.
    uint32_t pushed_by_source[2][RING_SOURCES]
    uint32_t read_by_source[2][RING_SOURCES]
    uint32_t pushed_by_flow[RING_FLOWS]
    uint32_t read_by_flow[RING_FLOWS]

cdef int ring_open(Ring *ring, uint32_t size) noexcept nogil
cdef void ring_close(Ring *ring) noexcept nogil
# Reserves the next record, filled with identity and kind. NULL: the kind is not wanted, or (counted as lost)
# the ring is full, or the flow or its source has used up its share. ring_push publishes the record.
cdef Record *record_reserve(Ring *ring, uint8_t kind, const Identity *identity, uint64_t now) noexcept nogil
# Reserves the record of a flow's end; `kept`: the records' reader may have kept data about the flow.
cdef Record *end_reserve(Ring *ring, const Identity *identity, bint kept, uint64_t now) noexcept nogil
# Appends text to the reserved record's `before` or `after`, as much as fits.
cdef void record_text(Record *record, const uint8_t *data, uint32_t length, bint after) noexcept nogil
cdef void ring_push(Ring *ring) noexcept nogil
# The oldest unread record, or NULL; it stays unchanged until ring_read marks it as read.
cdef const Record *ring_next(Ring *ring) noexcept nogil
cdef void ring_read(Ring *ring) noexcept nogil
cdef list ring_drain(Ring *ring, int most)
