# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Connections through the gateway, with a model of each end behind it.

Asserts invariant 2, under a setting that changes packets: two receivers that differ on
overlaps put together the same octets, either way; an honest server is never made to read a
denied verb, whatever its habits; its client never reads what the profile hides. What the
gateway has let go uninspected is not compared. Does not know scripts, nor how the core decides.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy, memset

from nfmailguard.cext.wire.packet cimport PACKET_CHECKSUM_PARTIAL, PACKET_GSO
from tests.fuzz.harness.fuzzer cimport violation
from tests.fuzz.harness.gate cimport (
    MOST_PROFILES,
    Sent,
    gate_changes,
    gate_inspects_all,
    gate_open,
    gate_passed,
    gate_profile,
    gate_send,
)

cdef extern from "wire.h" nogil:
    uint32_t wire_build(uint8_t *out, const wire_ends *ends, int to_server, uint32_t seq, uint32_t ack, uint8_t flags,
                        uint16_t window, uint16_t urgent, const uint8_t *payload, uint32_t length) noexcept
    uint32_t wire_get(const uint8_t *p, int data) noexcept
    uint32_t wire_length(const uint8_t *packet, uint32_t size) noexcept
    uint32_t wire_tcp(const uint8_t *packet, uint32_t size) noexcept

cdef extern from "receiver.h" nogil:
    void receiver_open(receiver *receiver, uint32_t isn) noexcept
    int32_t receiver_take(receiver *receiver, uint32_t seq, const uint8_t *payload, uint32_t length) noexcept

cdef extern from "server.h" nogil:
    enum: SERVER_NAME
    cdef struct server_denied:
        char names[64][24]
        uint32_t count
    void server_open(server *server, const server_denied *denied, uint8_t habits) noexcept
    void server_read(server *server, uint8_t byte) noexcept

cdef enum:
    TAG_LOST = 256             # beside the connection's number
    CLIENT_INTERFACE = 1
    SERVER_INTERFACE = 2
    ISN_STEP = 64000           # between two initial numbers of a server's
    WORD = 8                   # octets of each of `hidden`

cdef server_denied denied[MOST_PROFILES]
# What an honest server says in its banner and its EHLO reply and no profile with denied verbs shows.
cdef const char *hidden[3]
hidden[:] = [b"TP ready", b"STARTTLS", b"CHUNKING"]

cdef Talk talks[MOST_FLOWS]
cdef uint8_t packet[MOST_PAYLOAD + 60]
cdef bint honest
cdef uint8_t habits
cdef uint32_t at_work          # the connection whose packet is in the gateway
cdef uint64_t passed


def deny(uint32_t profile, list verbs):
    """The verbs an honest server must not read under settings of this profile."""
    cdef bytes name
    denied[profile].count = 0
    for verb in verbs:
        name = verb.encode()
        if len(name) >= SERVER_NAME or denied[profile].count == 64:
            raise ValueError(f"{verb}: does not fit")
        memset(denied[profile].names[denied[profile].count], 0, SERVER_NAME)
        memcpy(denied[profile].names[denied[profile].count], <const char *> name, len(name))
        denied[profile].count += 1


cdef void talks_open(uint32_t setting, bint servers_are_honest, uint8_t servers_habits) noexcept nogil:
    global honest, habits, passed
    honest = servers_are_honest
    habits = servers_habits
    passed = 0
    gate_open(setting, arrived)


cdef Talk *talk_at(uint32_t number) noexcept nogil:
    return &talks[number]


cdef Talk *talk_begin(uint32_t number, uint8_t family, bint wraps) noexcept nogil:
    cdef Talk *talk = &talks[number]
    cdef int end
    memset(&talk.ends, 0, sizeof(talk.ends))
    talk.ends.family = family
    for end in range(2):
        talk.ends.address[end][0] = 10 if family == 4 else 0xfd
        talk.ends.address[end][2] = <uint8_t> (end + 1)
        talk.ends.address[end][3] = 2
    talk.ends.port[0] = <uint16_t> (40000 + number)
    talk.ends.port[1] = 25
    talk.number = number
    talk.connection = LISTENING
    talk.watched = 1
    talk.next[1] = <uint32_t> -40 if wraps else 1000
    talk.isn = <uint32_t> (-ISN_STEP - 60) if wraps else 5000
    return talk


cdef void note_passed() noexcept nogil:
    # A strict setting lets no flow go that far.
    global passed
    if gate_passed() != passed:
        passed = gate_passed()
        talks[at_work].watched = 0
        if honest and gate_inspects_all():
            violation("2 a flow", "is not inspected any more", at_work, <long> passed)


cdef void opened(Talk *talk, uint32_t isn) noexcept nogil:
    # The server takes a SYN.
    receiver_open(&talk.to_server, isn)
    server_open(&talk.server, &denied[gate_profile()], habits)
    talk.isn += ISN_STEP
    talk.next[0] = talk.isn
    receiver_open(&talk.to_client, talk.isn)
    talk.read[0] = talk.read[1] = talk.transmitted = 0
    talk.lied[0] = talk.lied[1] = 0
    talk.fin_in = 0
    talk.connection = CONNECTED
    talk.watched = 1


cdef void serve(Talk *talk) noexcept nogil:
    while talk.read[1] < talk.to_server.assembled:
        server_read(&talk.server, talk.to_server.first[talk.read[1]])
        talk.read[1] += 1
    if honest and talk.server.fault[0]:
        violation("2 the server read a denied verb", talk.server.fault, talk.read[1], habits)


cdef void listen(Talk *talk) noexcept nogil:
    cdef int word
    if not honest or denied[gate_profile()].count == 0:
        return
    while talk.read[0] < talk.to_client.assembled:
        talk.read[0] += 1
        if talk.read[0] < WORD:
            continue
        for word in range(3):
            if memcmp(talk.to_client.first + talk.read[0] - WORD, hidden[word], WORD) == 0:
                violation("2 the client read what is hidden", hidden[word], talk.read[0], habits)


cdef void arrived(uint32_t tag, bint to_server, const uint8_t *data, uint32_t length) noexcept nogil:
    """A packet has left the gateway: ``gate``'s Deliver."""
    cdef Talk *talk = &talks[tag % MOST_FLOWS]
    cdef uint32_t at = wire_tcp(data, length)
    cdef uint32_t seq, payload, end
    cdef uint8_t flags
    note_passed()
    if tag & TAG_LOST or not at:
        return
    seq = wire_get(data + at + 4, 4)
    flags = data[at + 13]
    if flags & WIRE_SYN:
        if not to_server or flags & (WIRE_ACK | WIRE_RST):
            return
        if talk.connection == LISTENING:
            opened(talk, seq)
        else:
            talk.challenged = 1
        return
    if talk.connection != CONNECTED or not talk.watched:
        return
    if flags & WIRE_RST:
        # RFC 5961 3.2: the exact number ends it, any other one is challenged.
        if to_server and seq == receiver_expects(&talk.to_server):
            talk.connection = LISTENING
        return
    payload = at + (data[at + 12] >> 4) * 4
    end = wire_length(data, length)
    deliver(talk, to_server, seq, data + payload, end - payload)
    if to_server and flags & WIRE_FIN and seq + (end - payload) == receiver_expects(&talk.to_server):
        talk.fin_in = 1


cdef void deliver(Talk *talk, bint to_server, uint32_t seq, const uint8_t *payload, uint32_t length) noexcept nogil:
    cdef int32_t differs = receiver_take(&talk.to_server if to_server else &talk.to_client, seq, payload, length)
    if differs >= 0:
        talk.watched = 0
        if gate_changes() and not talk.lied[to_server]:
            violation("2 two receivers", "put together different octets", differs, to_server)
    elif to_server:
        serve(talk)
    else:
        listen(talk)


cdef int talk_send(Talk *talk, const Segment *segment) noexcept nogil:
    global at_work
    cdef Sent sent
    # Who acknowledges what it has not got has itself to thank for what it gets instead.
    if segment.to_server:
        talk.lied[0] |= <int32_t> (segment.ack - receiver_expects(&talk.to_client)) > 0
    else:
        talk.lied[1] |= <int32_t> (segment.ack - receiver_expects(&talk.to_server)) > talk.fin_in
    memset(&sent, 0, sizeof(sent))
    sent.data = packet
    sent.length = sent.captured = wire_build(
        packet, &talk.ends, segment.to_server, segment.seq, segment.ack, segment.flags, segment.window,
        <uint16_t> (1 if segment.flags & WIRE_URG else 0), segment.data, segment.length)
    sent.in_interface = CLIENT_INTERFACE if segment.to_server or segment.forged else SERVER_INTERFACE
    sent.out_interface = SERVER_INTERFACE if segment.to_server else CLIENT_INTERFACE
    sent.flags = PACKET_CHECKSUM_PARTIAL | PACKET_GSO if segment.network & NETWORK_OFFLOADS else 0
    sent.tag = talk.number | (TAG_LOST if segment.network & NETWORK_LOSES else 0)
    sent.to_server = segment.to_server
    at_work = talk.number
    if gate_send(&sent) < 0:
        return -1
    note_passed()
    return 0


cdef int signal(Talk *talk, uint8_t network, bint to_server, uint32_t seq, uint32_t ack, uint8_t flags) noexcept nogil:
    # A segment without payload.
    cdef Segment segment
    memset(&segment, 0, sizeof(segment))
    segment.seq = seq
    segment.ack = ack
    segment.flags = flags
    segment.window = 65535
    segment.to_server = to_server
    segment.network = network
    return talk_send(talk, &segment)


cdef int talk_connect(Talk *talk, uint8_t network, uint32_t isn) noexcept nogil:
    talk.challenged = 0
    if signal(talk, network, True, isn, 0, WIRE_SYN) < 0:
        return -1
    if talk.challenged:
        return signal(talk, network, False, talk.isn + 1 + talk.transmitted if honest else talk.next[0],
                      receiver_expects(&talk.to_server), WIRE_ACK)
    if talk.connection != CONNECTED or talk.next[0] != talk.isn:
        return 0
    talk.next[1] = isn + 1
    talk.client_said = 0
    if signal(talk, 0, False, talk.isn, isn + 1, WIRE_SYN | WIRE_ACK) < 0:
        return -1
    talk.next[0] += 1
    return signal(talk, 0, True, isn + 1, talk.isn + 1, WIRE_ACK)
