# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Target ``ports``: connections one after another over the same ports, before a server that is a kernel.

The head is two octets: the setting, and the server: where its numbers come from, whether there are
timestamps, how it begins. Then each action is an octet (its kind, and whether the network loses it behind the
gateway) and its operands; see ``Kind``. Asserts what ``gate`` asserts, and invariant 2 over connections: the
server's application reads no denied verb, and the client never sees its greeting, whichever connection a
segment is of. Does not know what the core takes for one connection.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset, strlen

from tests.exhaustive.kernel cimport (
    APPLICATION_SECRET,
    FLAG_ACK,
    FLAG_FIN,
    FLAG_PSH,
    FLAG_RST,
    FLAG_SYN,
    ISN_MODELS,
    KERNEL_ESTABLISHED,
    KERNEL_LISTEN,
    OPTION_AO,
    OPTION_MD5,
    OPTION_NONE,
    SEGMENT_PAYLOAD,
    kernel,
    kernel_abort,
    kernel_hang_up,
    kernel_makes_cookies,
    kernel_open,
    kernel_receive,
    kernel_repeat,
    kernel_wait,
    segment,
)
from tests.fuzz.harness.fuzzer cimport violation
from tests.fuzz.harness.gate cimport (
    Sent,
    gate_changes,
    gate_close,
    gate_open,
    gate_profile,
    gate_send,
    gate_wait,
)

cdef extern from "wire.h" nogil:
    uint32_t wire_get(const uint8_t *p, int data) noexcept
    uint32_t wire_length(const uint8_t *packet, uint32_t size) noexcept
    uint32_t wire_tcp(const uint8_t *packet, uint32_t size) noexcept
    void wire_put(uint8_t *p, uint32_t value, int data) noexcept
    void wire_complete(uint8_t *packet, uint32_t size) noexcept

cdef enum Kind:                # operands
    SAYS = 0                   # place, trait, token
    ACKNOWLEDGES = 1           # place, trait, which acknowledgement
    SYNS = 2                   # which number, trait
    CONNECTS = 3               # which number: a SYN, and the ACK of what comes back
    RESETS = 4                 # place, trait
    FINISHES = 5               # place, trait
    COOKIE = 6                 # place, trait, token: a bare ACK with a cookie for that place
    TIME = 7                   # how long
    SERVER_ACTS = 8            # what
    WINDOW = 9                 # how wide; 0: open
    AGAIN = 10                 # token: from where the server expects it to where the gateway must be
    SPEAKS = 11                # token: in place, without more ado

cdef enum:
    LOST = 64                  # of an action's octet
    TOKENS = 17
    MOST_WAITING = 64
    IPV4 = 20
    ROOM = 1500

cdef enum Trait:
    TRAIT_MD5 = 1
    TRAIT_AO = 2
    TRAIT_OLD = 4
    TRAIT_BARE = 8             # no timestamp
    TRAIT_UNKNOWN = 16
    TRAIT_WRONG = 32           # an option of a length that cannot be right

cdef uint32_t ISN = 0x10000000
cdef const char *tokens[TOKENS]
tokens[:] = [
    b"EXPN root\r\n", b"\r\nEXPN root\r\n", b"NOOP EXPN root\r\nEXPN root\r\n", b"\r\n.\r\nEXPN root\r\n",
    b"EHLO x\r\n", b"\r\nEHLO x\r\n", b"NOOP EHLO x\r\n", b"\r\n.\r\nEHLO x\r\n", b"EXPN", b" root\r\n",
    b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", b"\r\n.\r\n", b"NOOP\r\n", b"DATA\r\n",
    b"EHLO x\r\nSTARTTLS\r\n", b"\x16\x03\x01", b"x",
]
cdef uint64_t durations[8]
durations[:] = [100000000, 1000000000, 5000000000, 31000000000, 51000000000, 61000000000, 274877906944, 3700000000000]

cdef uint64_t SHORT = 5000000000, LONGEST = 200000000000

cdef kernel server
cdef segment waiting[MOST_WAITING]
cdef uint32_t waiting_count, waiting_first
cdef uint8_t packet[ROOM]
cdef uint32_t reach            # of the client's, how far the gateway must have got
cdef uint32_t seen             # of the server's, what came through
cdef uint32_t cookie_isn, cookie_number
cdef bint cookie_known, stamped
cdef uint32_t edge
cdef bint narrow


cdef void read_options(const uint8_t *at, uint32_t length, segment *out) noexcept nogil:
    # As tcp_parse_options and tcp_parse_auth_options.
    cdef uint32_t i = 0, size
    while i < length and at[i] != 0:
        if at[i] == 1:
            i += 1
            continue
        size = at[i + 1] if i + 1 < length else 0
        if size < 2 or i + size > length:
            return
        if at[i] == 8 and size == 10:
            out.timestamps = 1
            out.tsval = wire_get(at + i + 2, 4)
        elif at[i] == 19 and size == 18:
            out.option = OPTION_MD5
        elif at[i] == 29 and size >= 4:
            out.option = OPTION_AO
        i += size


cdef void arrived(uint32_t tag, bint to_server, const uint8_t *data, uint32_t length) noexcept nogil:
    """A packet has left the gateway: ``gate``'s Deliver. What it brings about waits until the gateway is done."""
    global waiting_count, reach, seen
    cdef uint32_t at = wire_tcp(data, length), header, end
    cdef segment *one
    if not at or waiting_count == MOST_WAITING:
        return
    one = &waiting[(waiting_first + waiting_count) % MOST_WAITING]
    header = (data[at + 12] >> 4) * 4
    one.seq = wire_get(data + at + 4, 4)
    one.ack = wire_get(data + at + 8, 4)
    one.flags = data[at + 13]
    one.window = <uint16_t> wire_get(data + at + 14, 2)
    one.option = OPTION_NONE
    one.timestamps = 0
    one.tsval = 0
    one.to_server = to_server
    one.length = <uint16_t> (wire_length(data, length) - at - header)
    if one.length > SEGMENT_PAYLOAD:
        return
    memcpy(one.payload, data + at + header, one.length)
    read_options(data + at + 20, header - 20, one)
    end = one.seq + one.length + (1 if one.flags & FLAG_SYN else 0)
    if to_server:
        if one.flags & FLAG_SYN or (one.length and 0 < <int32_t> (end - reach) < (1 << 20)):
            reach = end
    elif one.flags & FLAG_SYN or 0 < <int32_t> (end - seen) < (1 << 20):
        seen = end
    if not tag & 256:
        waiting_count += 1


cdef int give(const segment *one, bint lost) noexcept nogil:
    cdef Sent sent
    cdef uint32_t options = 20, size
    memset(packet, 0, 100)
    packet[0] = 0x45
    packet[6] = 0x40
    packet[8] = 64
    packet[9] = 6
    packet[12] = packet[16] = 10
    packet[14 if one.to_server else 18] = 1
    packet[18 if one.to_server else 14] = 2
    packet[15] = packet[19] = 2
    wire_put(packet + IPV4, 40000 if one.to_server else 25, 2)
    wire_put(packet + IPV4 + 2, 25 if one.to_server else 40000, 2)
    wire_put(packet + IPV4 + 4, one.seq, 4)
    wire_put(packet + IPV4 + 8, one.ack, 4)
    packet[IPV4 + 13] = one.flags
    wire_put(packet + IPV4 + 14, one.window, 2)
    # `option` holds the traits of what is sent.
    if one.option & TRAIT_WRONG and one.to_server:
        wire_put(packet + IPV4 + options, 0x0101fe00, 4)
        options += 4
    if one.option & TRAIT_UNKNOWN and one.to_server:
        wire_put(packet + IPV4 + options, 0xfd040000, 4)
        options += 4
    if one.timestamps:
        wire_put(packet + IPV4 + options, 0x0101080a, 4)
        wire_put(packet + IPV4 + options + 4, one.tsval, 4)
        wire_put(packet + IPV4 + options + 8, 1, 4)
        options += 12
    if one.to_server and one.option & TRAIT_MD5:
        wire_put(packet + IPV4 + options, 0x01011312, 4)
        options += 20
    elif one.to_server and one.option & TRAIT_AO:
        wire_put(packet + IPV4 + options, 0x1d100000, 4)
        options += 16
    packet[IPV4 + 12] = <uint8_t> (options << 2)
    size = IPV4 + options + one.length
    memcpy(packet + IPV4 + options, one.payload, one.length)
    wire_put(packet + 2, size, 2)
    wire_complete(packet, size)
    memset(&sent, 0, sizeof(sent))
    sent.data = packet
    sent.length = sent.captured = size
    sent.in_interface = 1 if one.to_server else 2
    sent.out_interface = 2 if one.to_server else 1
    sent.tag = 256 if lost else 0
    sent.to_server = one.to_server
    return gate_send(&sent)


cdef void look(const segment *one) noexcept nogil:
    """What the client sees."""
    global cookie_known, cookie_isn, cookie_number
    cdef uint32_t i
    if one.flags & FLAG_SYN and kernel_makes_cookies(&server) and not cookie_known:
        cookie_known = True
        cookie_isn = one.ack - 1
        cookie_number = one.seq
    if not gate_changes() or not gate_profile() or one.length < 5:
        return
    for i in range(one.length - 4):
        if memcmp(one.payload + i, APPLICATION_SECRET, 5) == 0:
            violation("2 the client saw", "a greeting as the server wrote it", i, one.length)
            return


cdef int answers() noexcept nogil:
    cdef uint32_t i
    cdef int result = 0
    for i in range(server.count):
        result |= give(&server.out[i], False)
    server.count = 0
    return result


cdef int charge() noexcept nogil:
    """Until nothing is on its way."""
    global waiting_count, waiting_first
    cdef segment one
    cdef int result = answers()
    while waiting_count and result == 0:
        one = waiting[waiting_first]
        waiting_first = (waiting_first + 1) % MOST_WAITING
        waiting_count -= 1
        if one.to_server:
            kernel_receive(&server, &one)
            result = answers()
        else:
            look(&one)
    if server.application.fault and server.state >= KERNEL_ESTABLISHED and gate_changes() and gate_profile():
        violation("2 the server read", "a denied verb as a command", server.state, server.rcv_nxt)
    return result


cdef int say(uint32_t seq, uint8_t flags, uint32_t ack, const char *text, uint8_t trait, uint32_t filler,
             bint lost) noexcept nogil:
    cdef segment one
    cdef uint32_t length = <uint32_t> strlen(text)
    one.seq = seq
    one.ack = ack
    one.flags = flags
    one.window = 65535
    if narrow:
        one.window = <uint16_t> (edge - ack) if edge - ack < 65536 else 0
    one.option = trait
    one.timestamps = stamped and not trait & TRAIT_BARE
    one.tsval = 10 if trait & TRAIT_OLD else 1000
    one.to_server = 1
    memset(one.payload, 46, filler)
    memcpy(one.payload + filler, text, length)
    one.length = <uint16_t> (filler + length)
    if give(&one, lost) < 0:
        return -1
    return charge()


cdef inline uint32_t server_expects() noexcept nogil:
    return server.rcv_nxt if server.state != KERNEL_LISTEN else server.last_rcv_nxt or ISN + 1


cdef inline uint32_t client_acks() noexcept nogil:
    if server.state != KERNEL_LISTEN and <int32_t> (server.snd_nxt - seen) < 0:
        return server.snd_nxt
    return seen


cdef uint32_t place(uint8_t which) noexcept nogil:
    """One of the numbers that matter, or beside it."""
    cdef uint32_t at = reach
    cdef int32_t beside = (which >> 3) & 15
    if which & 7 == 1:
        at = server_expects()
    elif which & 7 == 2:
        at = ISN + 1
    elif which & 7 == 3:
        at = ISN + 1 + seen - cookie_number - 1     # where the cookie goes well with what the server said
    elif which & 7 == 4:
        at = ISN + 2049
    if beside >= 14:
        return at + (1000 if beside == 14 else 1 << 24)
    return at + (<uint32_t> (beside if beside < 8 else 7 - beside))


cdef uint32_t number(uint8_t which) noexcept nogil:
    """A client's initial one."""
    if which % 4 == 1:
        return ISN + 2048
    return reach - 1 if which % 4 == 2 else server_expects() - 1 if which % 4 == 3 else ISN


cdef inline const char *behind(uint8_t which) noexcept nogil:
    # A token, or none.
    if which & 128:
        return tokens[(which & 127) % TOKENS]
    return b""


cdef int act(uint8_t action, const uint8_t *operand) noexcept nogil:
    cdef bint lost = action & LOST
    cdef uint8_t kind = action & 15
    cdef uint32_t at, length
    cdef uint64_t left, part
    if kind == SAYS:
        return say(place(operand[0]), FLAG_ACK | FLAG_PSH, client_acks(), tokens[operand[2] % TOKENS], operand[1], 0,
                   lost)
    if kind == ACKNOWLEDGES:
        at = client_acks() if operand[2] % 3 == 0 else server.snd_una if operand[2] % 3 == 1 else server.snd_nxt
        return say(place(operand[0]), FLAG_ACK, at, b"", operand[1], 0, lost)
    if kind == SYNS:
        return say(number(operand[0]), FLAG_SYN, 0, b"", operand[1], 0, lost)
    if kind == CONNECTS:
        at = number(operand[0])
        if say(at, FLAG_SYN, 0, b"", 0, 0, False) < 0:
            return -1
        return say(at + 1, FLAG_ACK, client_acks(), b"", 0, 0, lost)
    if kind == RESETS:
        return say(place(operand[0]), FLAG_RST, 0, b"", operand[1] | TRAIT_BARE, 0, lost)
    if kind == FINISHES:
        return say(place(operand[0]), FLAG_FIN | FLAG_ACK, client_acks(), b"", operand[1], 0, lost)
    if kind == COOKIE and cookie_known:
        at = place(operand[0])
        return say(at, FLAG_ACK, cookie_number + at - cookie_isn + (operand[1] >> 6), behind(operand[2]),
                   operand[1] & 63, 0, lost)
    if kind == TIME:
        # Timers go off in between, soon at first.
        left = durations[operand[0] & 7]
        while left:
            part = left if left <= SHORT or left > LONGEST else left // 2
            left -= part
            kernel_wait(&server, part)
            gate_wait(part)
            if charge() < 0:
                return -1
        return 0
    if kind == SERVER_ACTS:
        if operand[0] % 3 == 0:
            kernel_hang_up(&server)
        elif operand[0] % 3 == 1:
            kernel_abort(&server)
        else:
            kernel_repeat(&server)
        return charge()
    if kind == WINDOW:
        narrow_now(operand[0])
        return say(reach, FLAG_ACK, client_acks(), b"", 0, 0, lost)
    if kind == AGAIN:
        at = server_expects()
        length = reach - at
        if length > 1000:
            return 0
        return say(at, FLAG_ACK | FLAG_PSH, client_acks(), behind(operand[0]), 0, length, lost)
    if kind == SPEAKS:
        return say(reach, FLAG_ACK | FLAG_PSH, client_acks(), tokens[operand[0] % TOKENS], 0, 0, lost)
    return 0


cdef inline void narrow_now(uint8_t width) noexcept nogil:
    global narrow, edge
    narrow = width != 0
    edge = client_acks() + (width & 7) - 1


cdef int operands(uint8_t action) noexcept nogil:
    cdef uint8_t kind = action & 15
    if kind == SAYS or kind == ACKNOWLEDGES or kind == COOKIE:
        return 3
    if kind == SYNS or kind == RESETS or kind == FINISHES:
        return 2
    return 1


cdef int run(const uint8_t *data, size_t size) noexcept nogil:
    global waiting_count, waiting_first, reach, seen, cookie_known, cookie_isn, cookie_number, stamped, narrow
    cdef size_t at = 2
    if size < 4:
        return 0
    gate_open(data[0], arrived)
    kernel_open(&server, data[1] % ISN_MODELS, gate_profile() % 2 == 1)
    waiting_count = waiting_first = 0
    reach = ISN + 1
    seen = cookie_number = 0
    cookie_isn = ISN
    cookie_known = narrow = False
    stamped = data[1] & 4 != 0
    while at < size and at + 1 + operands(data[at]) <= size:
        if act(data[at], data + at + 1) < 0:
            break
        at += 1 + operands(data[at])
    gate_close()
    return 0


TARGET = <size_t> &run
