# Connections through the gateway: what each end has said, and what it has got.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

cdef extern from "wire.h" nogil:
    enum: WIRE_FIN, WIRE_SYN, WIRE_RST, WIRE_PSH, WIRE_ACK, WIRE_URG
    cdef struct wire_ends:
        uint8_t family
        uint8_t address[2][16]
        uint16_t port[2]

cdef extern from "receiver.h" nogil:
    cdef struct receiver:
        uint32_t base
        uint32_t assembled
        uint8_t *first
    uint32_t receiver_expects(const receiver *receiver) noexcept

cdef extern from "server.h" nogil:
    cdef struct server:
        uint32_t said
        uint8_t *out
        char *fault

cdef enum:
    MOST_FLOWS = 4
    MOST_SAID = 8192
    MOST_PAYLOAD = 4096

cdef enum:  # what the network does with a packet
    NETWORK_LOSES = 64         # behind the gateway: the receiver never gets it
    NETWORK_OFFLOADS = 128     # a super-packet whose checksum is not complete

cdef enum Connection:          # as the server has it
    LISTENING = 0
    CONNECTED = 1

cdef struct Talk:
    wire_ends ends
    uint32_t number
    uint32_t isn               # the server's
    uint32_t next[2]           # what each side would send next: [0] the server, [1] the client
    uint32_t client_said
    uint32_t read[2]           # octets each side's program has read: [0] the client's, [1] the server's
    uint32_t transmitted       # octets of an honest server's that have been sent once
    uint8_t said[MOST_SAID]    # by the client, as first said
    uint8_t connection         # Connection
    uint8_t watched            # the gateway inspects it
    uint8_t fin_in             # the server has got the client's FIN
    uint8_t challenged         # a SYN came that the server does not take
    uint8_t lied[2]            # to the client, to the server: its receiver acknowledged what it has not got
    receiver to_client
    receiver to_server
    server server

# A segment on its way.
cdef struct Segment:
    const uint8_t *data
    uint32_t length
    uint32_t seq
    uint32_t ack
    uint16_t window
    uint8_t flags
    uint8_t to_server
    uint8_t network            # NETWORK_...
    uint8_t forged             # it comes from the client's side, whatever its addresses

# Begins an execution under a setting. `habits` are the servers'; one that is not honest says what it is told.
cdef void talks_open(uint32_t setting, bint honest, uint8_t habits) noexcept nogil
# A connection that has not begun; `wraps`: its numbers pass 2^32 soon.
cdef Talk *talk_begin(uint32_t number, uint8_t family, bint wraps) noexcept nogil
cdef Talk *talk_at(uint32_t number) noexcept nogil
# The client's SYN, and what follows from it at once. 0, or -1 when the execution has sent enough.
cdef int talk_connect(Talk *talk, uint8_t network, uint32_t isn) noexcept nogil
# Sends a segment through the gateway. 0, or -1 when the execution has sent enough.
cdef int talk_send(Talk *talk, const Segment *segment) noexcept nogil
