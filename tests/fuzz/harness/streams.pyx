# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Target ``streams``: a script of what a hostile client, a network and a server do.

The head is three octets: the setting, the shape of the connections, the server's habits.
Then each action is an octet (its kind, its connection, what the network does with it) and
its operands; see ``Kind``. Under a setting that changes packets it asserts invariant 2: two
receivers that differ on overlaps put together the same octets, either way, and an honest
server behind the gateway is never made to read a denied verb, whatever its habits. Besides,
it asserts what ``gate`` asserts. Does not know how the core decides.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from nfmailguard.cext.engine cimport PACKET_CHECKSUM_PARTIAL, PACKET_GSO
from tests.fuzz.harness.fuzzer cimport violation
from tests.fuzz.harness.gate cimport (
    MOST_PROFILES,
    SECOND,
    Sent,
    gate_changes,
    gate_close,
    gate_expire,
    gate_inspects_all,
    gate_open,
    gate_passed,
    gate_profile,
    gate_send,
    gate_wait,
)

cdef extern from "wire.h" nogil:
    enum: WIRE_FIN, WIRE_SYN, WIRE_RST, WIRE_PSH, WIRE_ACK, WIRE_URG
    cdef struct wire_ends:
        uint8_t family
        uint8_t address[2][16]
        uint16_t port[2]
    uint32_t wire_build(uint8_t *out, const wire_ends *ends, int to_server, uint32_t seq, uint32_t ack, uint8_t flags,
                        uint16_t window, uint16_t urgent, const uint8_t *payload, uint32_t length) noexcept
    uint32_t wire_get(const uint8_t *p, int octets) noexcept
    uint32_t wire_length(const uint8_t *packet, uint32_t size) noexcept
    uint32_t wire_tcp(const uint8_t *packet, uint32_t size) noexcept

cdef extern from "receiver.h" nogil:
    cdef struct receiver:
        uint32_t base
        uint32_t assembled
        uint8_t *first
    void receiver_open(receiver *receiver, uint32_t isn) noexcept
    uint32_t receiver_expects(const receiver *receiver) noexcept
    int32_t receiver_take(receiver *receiver, uint32_t seq, const uint8_t *payload, uint32_t length) noexcept

cdef extern from "server.h" nogil:
    enum: SERVER_NAME
    cdef struct server_denied:
        char names[64][24]
        uint32_t count
    cdef struct server:
        uint32_t said
        uint8_t *out
        char *fault
    void server_open(server *server, const server_denied *denied, uint8_t habits) noexcept
    void server_read(server *server, uint8_t octet) noexcept

cdef extern from "tokens.h" nogil:
    enum: CLIENT_TOKENS, SERVER_TOKENS
    cdef struct token:
        const char *octets
        uint32_t length
    const token *client_tokens
    const token *server_tokens

cdef enum Kind:                # operands; (s) numbers are signed
    CLIENT_SAYS = 0            # token
    SERVER_SAYS = 1            # honest: octets of what it has to say, 0 all; else a token
    CLIENT_WRITES = 2          # length, octets
    SERVER_WRITES = 3          # honest: as SERVER_SAYS; else length, octets
    CLIENT_PLACES = 4          # token, offset from what it would send next (s)
    SERVER_PLACES = 5          # honest: offset back, length, of what it has said; else token, offset (s)
    CLIENT_REPEATS = 6         # offset back, length: as it was first said
    CLIENT_ACKNOWLEDGES = 7    # offset from what it has (s), window in 256 octets
    SERVER_ACKNOWLEDGES = 8    # offset from what it has (s; honest: back), window in 256 octets
    CLIENT_SIGNALS = 9         # flags, offset (s), token
    SERVER_SIGNALS = 10        # honest: it closes; else flags, offset (s), token
    TIME_GOES_BY = 11          # 100 ms each; 0: to the core's next deadline
    CLIENT_SPLITS = 12         # token, where: two segments, the second one first
    CLIENT_SYN = 13            # offset of the new initial number from the next octet (s)
    CLIENT_BATCH = 14          # count, tokens: in one segment
    FORGED = 15                # server's token, offset (s): with the server's addresses, from the client's side

cdef enum:
    ACTION_LOST = 64           # behind the gateway: the receiver never gets it
    ACTION_SUPER = 128         # a super-packet whose checksum is not complete
    TAG_LOST = 256
    MOST_FLOWS = 4
    MOST_SAID = 8192
    MOST_PAYLOAD = 4096
    CLIENT_INTERFACE = 1
    SERVER_INTERFACE = 2

cdef enum Connection:          # as the server has it
    LISTENING = 0
    CONNECTED = 1

cdef struct Talk:
    wire_ends ends
    uint32_t isn               # the server's
    uint32_t next[2]           # what each side would send next: [0] the server, [1] the client
    uint32_t client_said
    uint32_t read              # octets the server has read
    uint32_t transmitted       # octets of the server's that have been sent once
    uint8_t said[MOST_SAID]    # by the client, as first said
    uint8_t connection         # Connection
    uint8_t watched            # the gateway inspects it, and its server is honest or its octets are compared
    uint8_t fin_in
    uint8_t challenged         # a SYN came that the server does not take
    uint8_t lied[2]            # to the client, to the server: its receiver acknowledged what it has not got
    receiver to_client
    receiver to_server
    server server

cdef struct Script:
    const uint8_t *data
    size_t size
    size_t at

cdef server_denied denied[MOST_PROFILES]
cdef Talk talks[MOST_FLOWS]
cdef uint8_t packet[MOST_PAYLOAD + 60]
cdef uint8_t batch[MOST_PAYLOAD]
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


cdef inline uint8_t take(Script *script) noexcept nogil:
    cdef uint8_t octet = 0
    if script.at < script.size:
        octet = script.data[script.at]
        script.at += 1
    return octet


cdef inline const token *take_token(Script *script, bint to_server) noexcept nogil:
    if to_server:
        return &client_tokens[take(script) % CLIENT_TOKENS]
    return &server_tokens[take(script) % SERVER_TOKENS]


cdef void note_passed() noexcept nogil:
    # What the core no longer looks at is not compared; a strict setting lets nothing go that far.
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
    talk.isn += 64000
    talk.next[0] = talk.isn
    receiver_open(&talk.to_client, talk.isn)
    talk.read = talk.transmitted = 0
    talk.fin_in = 0
    talk.connection = CONNECTED
    talk.watched = 1
    talk.lied[0] = talk.lied[1] = 0


cdef void serve(Talk *talk) noexcept nogil:
    while talk.read < talk.to_server.assembled:
        server_read(&talk.server, talk.to_server.first[talk.read])
        talk.read += 1
    if honest and talk.server.fault[0]:
        violation("2 the server read a denied verb", talk.server.fault, talk.read, habits)


cdef void arrived(uint32_t tag, bint to_server, const uint8_t *octets, uint32_t length) noexcept nogil:
    """A packet has left the gateway: ``gate``'s Deliver."""
    cdef Talk *talk = &talks[tag % MOST_FLOWS]
    cdef uint32_t at = wire_tcp(octets, length)
    cdef uint32_t seq, payload, end
    cdef uint8_t flags
    cdef int32_t differs
    note_passed()
    if tag & TAG_LOST or not at:
        return
    seq = wire_get(octets + at + 4, 4)
    flags = octets[at + 13]
    if to_server and flags & WIRE_SYN:
        if flags & WIRE_ACK or flags & WIRE_RST:
            return
        if talk.connection == LISTENING:
            opened(talk, seq)
        else:
            talk.challenged = 1
        return
    if talk.connection != CONNECTED or not talk.watched or flags & WIRE_SYN:
        return
    if flags & WIRE_RST:
        # RFC 5961 3.2: the exact number ends it, any other one is challenged.
        if to_server and seq == receiver_expects(&talk.to_server):
            talk.connection = LISTENING
        return
    payload = at + (octets[at + 12] >> 4) * 4
    end = wire_length(octets, length)
    differs = receiver_take(&talk.to_server if to_server else &talk.to_client, seq, octets + payload, end - payload)
    if differs >= 0:
        talk.watched = 0
        if gate_changes() and not talk.lied[to_server]:
            violation("2 two receivers", "put together different octets", differs, to_server)
        return
    if to_server:
        if flags & WIRE_FIN and seq + (end - payload) == receiver_expects(&talk.to_server):
            talk.fin_in = 1
        serve(talk)


cdef int transmit(uint32_t flow, uint8_t action, bint to_server, uint32_t seq, uint32_t ack, uint8_t flags,
                  const uint8_t *payload, uint32_t length, uint32_t window=65535, bint forged=False) noexcept nogil:
    global at_work
    cdef Talk *talk = &talks[flow]
    cdef Sent sent
    if to_server:
        talk.lied[0] |= <int32_t> (ack - receiver_expects(&talk.to_client)) > 0
    else:
        talk.lied[1] |= <int32_t> (ack - receiver_expects(&talk.to_server)) > talk.fin_in
    memset(&sent, 0, sizeof(sent))
    sent.octets = packet
    sent.length = sent.captured = wire_build(packet, &talk.ends, to_server, seq, ack, flags, <uint16_t> window,
                                             <uint16_t> (1 if flags & WIRE_URG else 0), payload, length)
    sent.in_interface = CLIENT_INTERFACE if to_server or forged else SERVER_INTERFACE
    sent.out_interface = SERVER_INTERFACE if to_server else CLIENT_INTERFACE
    sent.flags = PACKET_CHECKSUM_PARTIAL | PACKET_GSO if action & ACTION_SUPER else 0
    sent.tag = flow | (TAG_LOST if action & ACTION_LOST else 0)
    sent.to_server = to_server
    at_work = flow
    if gate_send(&sent) < 0:
        return -1
    note_passed()
    return 0


cdef int client_sends(uint32_t flow, uint8_t action, int32_t offset, const uint8_t *octets, uint32_t length,
                      uint8_t flags) noexcept nogil:
    """The client's segment, ``offset`` octets from where its next one belongs."""
    cdef Talk *talk = &talks[flow]
    cdef uint32_t seq = talk.next[1] + <uint32_t> offset
    if offset == 0:
        talk.next[1] += length
        if talk.client_said + length <= MOST_SAID:
            memcpy(talk.said + talk.client_said, octets, length)
            talk.client_said += length
    return transmit(flow, action, True, seq, receiver_expects(&talk.to_client), flags, octets, length)


cdef int server_sends(uint32_t flow, uint8_t action, int32_t offset, const uint8_t *octets, uint32_t length,
                      uint8_t flags) noexcept nogil:
    """A dishonest server's segment, ``offset`` octets from where its next one belongs."""
    cdef Talk *talk = &talks[flow]
    cdef uint32_t seq = talk.next[0] + <uint32_t> offset
    if offset == 0:
        talk.next[0] += length
    return transmit(flow, action, False, seq, receiver_expects(&talk.to_server), flags, octets, length)


cdef int server_answers(uint32_t flow, uint8_t action, uint32_t start, uint32_t length) noexcept nogil:
    """An honest server's segment: a part of what it has to say."""
    cdef Talk *talk = &talks[flow]
    cdef uint32_t left = talk.server.said - start if start < talk.server.said else 0
    if length == 0 or length > left:
        length = left
    if start == talk.transmitted:
        talk.transmitted += length
    return transmit(flow, action, False, talk.isn + 1 + start, receiver_expects(&talk.to_server), WIRE_ACK,
                    talk.server.out + start, length)


cdef int server_speaks(uint32_t flow, uint8_t action, uint8_t kind, Script *script) noexcept nogil:
    """Any action of the server's."""
    cdef Talk *talk = &talks[flow]
    cdef const token *text
    cdef uint32_t back, length
    cdef uint8_t flags
    if honest and talk.connection != CONNECTED:
        take(script)
        return 0
    if kind == SERVER_ACKNOWLEDGES:
        back = <uint32_t> <int32_t> <int8_t> take(script)
        if honest and <int32_t> back > 0:
            back = 0 - back
        return transmit(flow, action, False, talk.isn + 1 + talk.transmitted if honest else talk.next[0],
                        receiver_expects(&talk.to_server) + back, WIRE_ACK, NULL, 0, take(script) << 8)
    if honest:
        if kind == SERVER_PLACES:
            back = take(script)
            return server_answers(flow, action, talk.transmitted - back if back < talk.transmitted else 0, take(script))
        if kind == SERVER_SIGNALS:
            if talk.fin_in:
                talk.connection = LISTENING
            return transmit(flow, action, False, talk.isn + 1 + talk.transmitted, receiver_expects(&talk.to_server)
                            + talk.fin_in, WIRE_ACK | WIRE_FIN, NULL, 0)
        return server_answers(flow, action, talk.transmitted, take(script))
    if kind == SERVER_WRITES:
        length = take(script) & 31
        if length > script.size - script.at:
            length = <uint32_t> (script.size - script.at)
        script.at += length
        return server_sends(flow, action, 0, script.data + script.at - length, length, WIRE_ACK)
    flags = WIRE_ACK | WIRE_PSH
    if kind == SERVER_SIGNALS:
        flags = take(script)
    text = take_token(script, False)
    return server_sends(flow, action, 0 if kind == SERVER_SAYS else <int8_t> take(script),
                        <const uint8_t *> text.octets, text.length, flags)


cdef int client_splits(uint32_t flow, uint8_t action, const token *text, uint32_t place) noexcept nogil:
    cdef Talk *talk = &talks[flow]
    cdef const uint8_t *octets = <const uint8_t *> text.octets
    place = place % text.length
    if transmit(flow, action, True, talk.next[1] + place, receiver_expects(&talk.to_client), WIRE_ACK,
                octets + place, text.length - place) < 0:
        return -1
    if client_sends(flow, action, 0, octets, place, WIRE_ACK) < 0:
        return -1
    talk.next[1] += text.length - place
    return 0


cdef int client_batch(uint32_t flow, uint8_t action, Script *script) noexcept nogil:
    cdef uint32_t count = take(script) & 7, length = 0
    cdef const token *text
    while count:
        count -= 1
        text = take_token(script, True)
        if length + text.length > 1400:
            break
        memcpy(batch + length, text.octets, text.length)
        length += text.length
    return client_sends(flow, action, 0, batch, length, WIRE_ACK | WIRE_PSH)


cdef int client_repeats(uint32_t flow, uint8_t action, uint32_t back, uint32_t length) noexcept nogil:
    cdef Talk *talk = &talks[flow]
    if back > talk.client_said:
        back = talk.client_said
    if length > back:
        length = back
    return transmit(flow, action, True, talk.next[1] - back, receiver_expects(&talk.to_client), WIRE_ACK,
                    talk.said + talk.client_said - back, length)


cdef int connect(uint32_t flow, uint8_t action, uint32_t isn) noexcept nogil:
    """The client's SYN, and what follows from it at once."""
    cdef Talk *talk = &talks[flow]
    talk.challenged = 0
    if transmit(flow, action, True, isn, 0, WIRE_SYN, NULL, 0) < 0:
        return -1
    if talk.challenged:
        return transmit(flow, action, False, talk.isn + 1 + talk.transmitted if honest else talk.next[0],
                        receiver_expects(&talk.to_server), WIRE_ACK, NULL, 0)
    if talk.connection != CONNECTED or talk.next[0] != talk.isn:
        return 0
    talk.next[1] = isn + 1
    talk.client_said = 0
    if transmit(flow, 0, False, talk.isn, isn + 1, WIRE_SYN | WIRE_ACK, NULL, 0) < 0:
        return -1
    talk.next[0] += 1
    return transmit(flow, 0, True, isn + 1, talk.isn + 1, WIRE_ACK, NULL, 0)


cdef int act(uint32_t flow, uint8_t action, Script *script) noexcept nogil:
    cdef Talk *talk = &talks[flow]
    cdef uint8_t kind = action & 15, flags
    cdef const token *text
    cdef uint32_t length
    if kind == SERVER_SAYS or kind == SERVER_WRITES or kind == SERVER_PLACES or kind == SERVER_ACKNOWLEDGES or (
            kind == SERVER_SIGNALS):
        return server_speaks(flow, action, kind, script)
    if kind == CLIENT_SAYS or kind == CLIENT_PLACES:
        text = take_token(script, True)
        return client_sends(flow, action, 0 if kind == CLIENT_SAYS else <int8_t> take(script),
                            <const uint8_t *> text.octets, text.length, WIRE_ACK | WIRE_PSH)
    if kind == CLIENT_WRITES:
        length = take(script) & 31
        if length > script.size - script.at:
            length = <uint32_t> (script.size - script.at)
        script.at += length
        return client_sends(flow, action, 0, script.data + script.at - length, length, WIRE_ACK)
    if kind == CLIENT_REPEATS:
        length = take(script)
        return client_repeats(flow, action, length, take(script))
    if kind == CLIENT_ACKNOWLEDGES:
        length = receiver_expects(&talk.to_client) + <uint32_t> <int32_t> <int8_t> take(script)
        return transmit(flow, action, True, talk.next[1], length, WIRE_ACK, NULL, 0, take(script) << 8)
    if kind == CLIENT_SIGNALS:
        flags = take(script)
        length = <uint32_t> <int32_t> <int8_t> take(script)
        text = take_token(script, True)
        return client_sends(flow, action, <int32_t> length, <const uint8_t *> text.octets,
                            0 if flags & WIRE_RST else text.length, flags)
    if kind == TIME_GOES_BY:
        length = take(script)
        if length:
            gate_wait(<uint64_t> length * (SECOND // 10))
        else:
            gate_expire()
        return 0
    if kind == CLIENT_SPLITS:
        text = take_token(script, True)
        return client_splits(flow, action, text, take(script))
    if kind == CLIENT_SYN:
        return connect(flow, action, talk.next[1] + <uint32_t> <int32_t> <int8_t> take(script))
    if kind == CLIENT_BATCH:
        return client_batch(flow, action, script)
    text = take_token(script, False)               # FORGED
    return transmit(flow, action, False, (talk.isn + 1 + talk.transmitted if honest else talk.next[0])
                    + <uint32_t> <int32_t> <int8_t> take(script), receiver_expects(&talk.to_server), WIRE_ACK,
                    <const uint8_t *> text.octets, text.length, 65535, True)


cdef void begin(uint32_t flow, uint8_t shape) noexcept nogil:
    cdef Talk *talk = &talks[flow]
    cdef uint8_t *client = talk.ends.address[0]
    cdef uint8_t *gateway = talk.ends.address[1]
    memset(&talk.ends, 0, sizeof(talk.ends))
    talk.ends.family = 6 if shape & 1 else 4
    client[0] = gateway[0] = 10 if talk.ends.family == 4 else 0xfd
    client[2] = 1
    gateway[2] = 2
    client[3] = gateway[3] = 2
    talk.ends.port[0] = <uint16_t> (40000 + flow)
    talk.ends.port[1] = 25
    talk.connection = LISTENING
    talk.watched = 1
    talk.next[1] = 1000
    talk.isn = 5000
    if shape & 2:                                  # the numbers wrap on the way
        talk.next[1] = <uint32_t> -40
        talk.isn = <uint32_t> (-64000 - 60)


cdef int run(const uint8_t *data, size_t size) noexcept nogil:
    global honest, habits, passed
    cdef Script script
    cdef uint32_t flows, flow
    cdef uint8_t shape, action
    if size < 4:
        return 0
    shape = data[1]
    habits = data[2]
    script.data = data
    script.size = size
    script.at = 3
    honest = not shape & 4
    flows = (shape >> 3) & 7
    flows = flows - 3 if flows > 4 else 1          # mostly one
    passed = 0
    gate_open(data[0], arrived)
    for flow in range(flows):
        begin(flow, shape)
        connect(flow, 0, talks[flow].next[1])
        if not shape & 64:
            if honest:
                server_answers(flow, 0, 0, 0)
            else:
                server_sends(flow, 0, 0, <const uint8_t *> server_tokens[0].octets, server_tokens[0].length, WIRE_ACK)
    while script.at < size:
        action = take(&script)
        if act((action >> 4) % 4 % flows, action, &script) < 0:
            break
    gate_close()
    return 0


TARGET = <size_t> &run
