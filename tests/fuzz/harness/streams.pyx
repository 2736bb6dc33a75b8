# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Target ``streams``: a script of what a hostile client, a network and a server do.

The head is three octets: the setting, the shape of the connections, the server's habits.
Then each action is an octet (its kind, its connection, what the network does with it) and
its operands; see ``Kind``. Asserts what ``gate`` and ``talks`` assert; knows neither.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from tests.fuzz.harness.gate cimport SECOND, gate_close, gate_expire, gate_wait
from tests.fuzz.harness.talks cimport (
    CONNECTED,
    LISTENING,
    MOST_FLOWS,
    MOST_PAYLOAD,
    MOST_SAID,
    WIRE_ACK,
    WIRE_FIN,
    WIRE_PSH,
    WIRE_RST,
    Segment,
    Talk,
    receiver_expects,
    talk_at,
    talk_begin,
    talk_connect,
    talk_send,
    talks_open,
)

cdef extern from "tokens.h" nogil:
    enum: CLIENT_TOKENS, SERVER_TOKENS
    cdef struct token:
        const char *data
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

cdef enum Shape:               # of the head's second octet
    SHAPE_IPV6 = 1
    SHAPE_WRAPS = 2
    SHAPE_DISHONEST = 4
    SHAPE_SILENT = 64          # the server does not greet by itself

cdef enum:
    MOST_IN_A_BATCH = 1400     # octets

cdef struct Script:
    const uint8_t *data
    size_t size
    size_t at
    bint honest

cdef uint8_t batch[MOST_PAYLOAD]


cdef inline uint8_t take(Script *script) noexcept nogil:
    cdef uint8_t byte = 0
    if script.at < script.size:
        byte = script.data[script.at]
        script.at += 1
    return byte


cdef inline int32_t take_signed(Script *script) noexcept nogil:
    return <int8_t> take(script)


cdef inline uint32_t take_bytes(Script *script, const uint8_t **data) noexcept nogil:
    cdef uint32_t length = take(script) & 31
    if length > script.size - script.at:
        length = <uint32_t> (script.size - script.at)
    data[0] = script.data + script.at
    script.at += length
    return length


cdef inline const token *take_token(Script *script, bint to_server) noexcept nogil:
    if to_server:
        return &client_tokens[take(script) % CLIENT_TOKENS]
    return &server_tokens[take(script) % SERVER_TOKENS]


cdef inline void fill(Segment *segment, Talk *talk, bint to_server, uint8_t action) noexcept nogil:
    # What the side would send next, without payload.
    memset(segment, 0, sizeof(Segment))
    segment.seq = talk.next[to_server]
    segment.ack = receiver_expects(&talk.to_client if to_server else &talk.to_server)
    segment.flags = WIRE_ACK
    segment.window = 65535
    segment.to_server = to_server
    segment.network = action


cdef int say(Talk *talk, bint to_server, uint8_t action, int32_t offset, const uint8_t *data, uint32_t length,
             uint8_t flags) noexcept nogil:
    """A segment, ``offset`` octets from where the side's next one belongs; moves on when that is 0."""
    cdef Segment segment
    fill(&segment, talk, to_server, action)
    segment.seq += <uint32_t> offset
    segment.data = data
    segment.length = length
    segment.flags = flags
    if offset == 0:
        talk.next[to_server] += length
        if to_server and talk.client_said + length <= MOST_SAID:
            memcpy(talk.said + talk.client_said, data, length)
            talk.client_said += length
    return talk_send(talk, &segment)


cdef int answer(Talk *talk, uint8_t action, uint32_t start, uint32_t length) noexcept nogil:
    """An honest server's segment: a part of what it has to say."""
    cdef Segment segment
    cdef uint32_t left = talk.server.said - start if start < talk.server.said else 0
    if length == 0 or length > left:
        length = left
    if start == talk.transmitted:
        talk.transmitted += length
    fill(&segment, talk, False, action)
    segment.seq = talk.isn + 1 + start
    segment.data = talk.server.out + start
    segment.length = length
    return talk_send(talk, &segment)


cdef int acknowledge(Talk *talk, bint to_server, uint8_t action, Script *script) noexcept nogil:
    cdef Segment segment
    cdef int32_t offset = take_signed(script)
    fill(&segment, talk, to_server, action)
    if script.honest and not to_server:
        segment.seq = talk.isn + 1 + talk.transmitted
        offset = -offset if offset > 0 else offset
    segment.ack += <uint32_t> offset
    segment.window = <uint16_t> (take(script) << 8)
    return talk_send(talk, &segment)


cdef int honest_server(Talk *talk, uint8_t action, uint8_t kind, Script *script) noexcept nogil:
    cdef Segment segment
    cdef uint32_t back
    if talk.connection != CONNECTED:
        take(script)
        return 0
    if kind == SERVER_ACKNOWLEDGES:
        return acknowledge(talk, False, action, script)
    if kind == SERVER_PLACES:
        back = take(script)
        return answer(talk, action, talk.transmitted - back if back < talk.transmitted else 0, take(script))
    if kind == SERVER_SIGNALS:
        fill(&segment, talk, False, action)
        segment.seq = talk.isn + 1 + talk.transmitted
        segment.ack += talk.fin_in
        segment.flags = WIRE_ACK | WIRE_FIN
        if talk.fin_in:
            talk.connection = LISTENING
        return talk_send(talk, &segment)
    return answer(talk, action, talk.transmitted, take(script))


cdef int split(Talk *talk, uint8_t action, const token *text, uint32_t place) noexcept nogil:
    cdef const uint8_t *data = <const uint8_t *> text.data
    cdef Segment segment
    place = place % text.length
    fill(&segment, talk, True, action)
    segment.seq += place
    segment.data = data + place
    segment.length = text.length - place
    if talk_send(talk, &segment) < 0 or say(talk, True, action, 0, data, place, WIRE_ACK) < 0:
        return -1
    talk.next[1] += text.length - place
    return 0


cdef int say_batch(Talk *talk, uint8_t action, Script *script) noexcept nogil:
    cdef uint32_t count = take(script) & 7, length = 0
    cdef const token *text
    while count:
        count -= 1
        text = take_token(script, True)
        if length + text.length > MOST_IN_A_BATCH:
            break
        memcpy(batch + length, text.data, text.length)
        length += text.length
    return say(talk, True, action, 0, batch, length, WIRE_ACK | WIRE_PSH)


cdef int repeat(Talk *talk, uint8_t action, uint32_t back, uint32_t length) noexcept nogil:
    if back > talk.client_said:
        back = talk.client_said
    if length > back:
        length = back
    if back == 0:
        return 0
    return say(talk, True, action, -<int32_t> back, talk.said + talk.client_said - back, length, WIRE_ACK)


cdef int forge(Talk *talk, uint8_t action, Script *script) noexcept nogil:
    cdef const token *text = take_token(script, False)
    cdef Segment segment
    fill(&segment, talk, False, action)
    if script.honest:
        segment.seq = talk.isn + 1 + talk.transmitted
    segment.seq += <uint32_t> take_signed(script)
    segment.data = <const uint8_t *> text.data
    segment.length = text.length
    segment.forged = 1
    return talk_send(talk, &segment)


cdef int let_time_go_by(uint8_t tenths) noexcept nogil:
    if tenths:
        gate_wait(<uint64_t> tenths * (SECOND // 10))
    else:
        gate_expire()
    return 0


cdef int act(Talk *talk, uint8_t action, Script *script) noexcept nogil:
    cdef uint8_t kind = action & 15, flags = WIRE_ACK | WIRE_PSH
    cdef bint to_server = not (kind == SERVER_SAYS or kind == SERVER_WRITES or kind == SERVER_PLACES
                               or kind == SERVER_ACKNOWLEDGES or kind == SERVER_SIGNALS)
    cdef const token *text
    cdef const uint8_t *data
    cdef uint32_t length
    cdef int32_t offset = 0
    if script.honest and not to_server:
        return honest_server(talk, action, kind, script)
    if kind == CLIENT_WRITES or kind == SERVER_WRITES:
        length = take_bytes(script, &data)
        return say(talk, to_server, action, 0, data, length, flags)
    if kind == CLIENT_REPEATS:
        length = take(script)
        return repeat(talk, action, length, take(script))
    if kind == CLIENT_ACKNOWLEDGES or kind == SERVER_ACKNOWLEDGES:
        return acknowledge(talk, to_server, action, script)
    if kind == TIME_GOES_BY:
        return let_time_go_by(take(script))
    if kind == CLIENT_SPLITS:
        text = take_token(script, True)
        return split(talk, action, text, take(script))
    if kind == CLIENT_SYN:
        return talk_connect(talk, action, talk.next[1] + <uint32_t> take_signed(script))
    if kind == CLIENT_BATCH:
        return say_batch(talk, action, script)
    if kind == FORGED:
        return forge(talk, action, script)
    if kind == CLIENT_SIGNALS or kind == SERVER_SIGNALS:
        flags = take(script)
        offset = take_signed(script)
    text = take_token(script, to_server)
    if kind == CLIENT_PLACES or kind == SERVER_PLACES:
        offset = take_signed(script)
    return say(talk, to_server, action, offset, <const uint8_t *> text.data,
               0 if flags & WIRE_RST else text.length, flags)


cdef int run(const uint8_t *data, size_t size) noexcept nogil:
    cdef Script script
    cdef Talk *talk
    cdef uint32_t flows, flow
    cdef uint8_t shape, action
    if size < 4:
        return 0
    shape = data[1]
    script.data = data
    script.size = size
    script.at = 3
    script.honest = not shape & SHAPE_DISHONEST
    flows = (shape >> 3) & 7
    flows = flows - 3 if flows > MOST_FLOWS else 1     # mostly one
    talks_open(data[0], script.honest, data[2])
    for flow in range(flows):
        talk = talk_begin(flow, 6 if shape & SHAPE_IPV6 else 4, shape & SHAPE_WRAPS)
        talk_connect(talk, 0, talk.next[1])
        if shape & SHAPE_SILENT:
            continue
        if script.honest:
            answer(talk, 0, 0, 0)
        else:
            say(talk, False, 0, 0, <const uint8_t *> server_tokens[0].data, server_tokens[0].length, WIRE_ACK)
    while script.at < size:
        action = take(&script)
        if act(talk_at((action >> 4) % MOST_FLOWS % flows), action, &script) < 0:
            break
    gate_close()
    return 0


TARGET = <size_t> &run
