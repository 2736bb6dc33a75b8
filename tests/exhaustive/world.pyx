# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""An adversarial client, the real core, and a server's kernel with its application: every course of events.

A state is everything that what comes next depends on: the engine's flow with its streams and dialogue, the
server's kernel and application, what is known of cookies, and the clock where it matters. It cannot be copied, so
each is made again from the events that led to it; two states with the same digest are taken for the same one, and
only the shorter way there is followed. Does not know what is right, but for two things: no server's application
reads a verb as a command that the policy denies, and no client sees a greeting as the server wrote it.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strlen

from nfmailguard.cext.core cimport LINE_BYTES, Core
from nfmailguard.cext.engine cimport Engine
from nfmailguard.cext.operation cimport OP_ACCEPT, OP_DROP, OP_EMIT, Operation, Operations, operations_reserve
from nfmailguard.cext.process cimport core_expire, core_finish, core_process
from nfmailguard.cext.wire.packet cimport QueuedPacket
from nfmailguard.cext.flow.table cimport CLIENT_ANSWERED, FLOW_BYPASSED, FLOW_STATES, Flow, OTHER_SYN_SEEN
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.memory.pagebuffer cimport PageBuffer, pagebuffer_span
from nfmailguard.cext.tcp.stream cimport SYN_SEEN, WINDOW_KNOWN, Edit, Held, OutOfOrder, Stream, stream_ended
from tests.exhaustive.kernel cimport (
    APPLICATION_SECRET,
    COOKIE_ROUND,
    FLAG_ACK,
    FLAG_FIN,
    FLAG_PSH,
    FLAG_RST,
    FLAG_SYN,
    ISN_CLOCK,
    ISN_FRESH,
    KERNEL_CLOSE_WAIT,
    KERNEL_ESTABLISHED,
    KERNEL_FIN_WAIT2,
    KERNEL_LISTEN,
    OPTION_AO,
    OPTION_MD5,
    OPTION_NONE,
    SEGMENT_PAYLOAD,
    kernel,
    kernel_abort,
    kernel_cookie_valid,
    kernel_hang_up,
    kernel_makes_cookies,
    kernel_open,
    kernel_outstanding,
    kernel_receive,
    kernel_repeat,
    kernel_wait,
    segment,
)

cdef extern from "wire.h" nogil:
    uint32_t wire_get(const uint8_t *p, int data) noexcept
    void wire_put(uint8_t *p, uint32_t value, int data) noexcept
    void wire_complete(uint8_t *packet, uint32_t size) noexcept

cdef extern from "digest.h" nogil:
    struct digest:
        uint64_t a
        uint64_t b
    struct digest_set:
        digest *places
        uint64_t capacity
        uint64_t count
    void digest_open(digest *at) noexcept
    void digest_number(digest *at, uint64_t number) noexcept
    void digest_bytes(digest *at, const void *data, uint64_t length) noexcept
    int digest_add(digest_set *places, digest one) noexcept

cdef extern from *:
    """
    #include <stddef.h>
    #define APPLICATION_HEAD offsetof(struct application, out)
    """
    const uint64_t APPLICATION_HEAD

cdef enum Event:
    # The openings' own.
    SAYS_MAIL = 0              # HELO, MAIL, RCPT and DATA at once
    SAYS_STARTTLS
    SAYS_TLS                   # what begins a handshake
    MINUTES                    # two of them
    # The alphabet. "Refused": with an option, or a timestamp, that makes a receiver drop it unread.
    SYN
    SYN_OTHER                  # with another ISN: one that goes well with what the engine follows, if it can
    SYN_REFUSED
    ACKS
    CLOSES_WINDOW              # one byte behind what it has acknowledged, whatever is on its way; then opens it again
    EVIL                       # a denied command, where the engine expects the next byte
    EVIL_MD5
    EVIL_AO
    EVIL_OLD                   # with a timestamp that fails PAWS
    EVIL_BARE                  # without one
    EVIL_LOST
    EVIL_AT_SERVER             # where the server expects it
    END                        # of the message
    AHEAD                      # three bytes ahead of the next one
    BEYOND                     # the window
    AGAIN                      # from where the server expects it to where the engine does, whatever it was
    AGAIN_OLD_ACK              # acknowledging nothing
    RST_AT_SERVER              # at the number the server expects
    RST_AT_ENGINE
    RST_ELSEWHERE              # in the window
    RST_REFUSED
    FIN
    FIN_REFUSED
    COOKIE_AT_ENGINE           # a bare ACK with a cookie for whatever number goes well with the client's ...
    COOKIE_AT_SERVER           # ... with where the server stopped ...
    COOKIE_AT_ACK              # ... with what the engine has seen of the server ...
    COOKIE_SHIFTED             # ... three bytes on: the same cookie, of another MSS
    COOKIE_FIRST               # the one the cookie was made for
    COOKIE_EVIL                # the first of them, with a denied command
    HANGS_UP                   # the server's application does
    ABORTS                     # it closes with bytes unread: a RST
    REPEATS                    # the server's timer: what is not acknowledged, and SYN and ACK
    TICK                       # 51 seconds, four times between long waits: after two an orphan is gone, a cookie not
    LONG                       # as long as a server's clock takes to come round, 2^32 x 64 ns
    IDLE                       # longer than a flow is remembered
    EVENTS

NAMES = (
    "client: HELO, MAIL, RCPT, DATA", "client: EHLO, STARTTLS", "client: a TLS handshake begins", "two minutes",
    "client: SYN", "client: SYN with another ISN", "client: SYN with TCP MD5", "client: ACK",
    "client: closes its window but for a byte, or opens it", "client: denied command",
    "client: denied command with TCP MD5", "client: denied command with TCP-AO",
    "client: denied command with an old timestamp", "client: denied command without timestamp",
    "client: denied command, lost behind the gateway", "client: denied command where the server expects it",
    "client: end of data", "client: a byte ahead of a gap", "client: a byte beyond the window",
    "client: once more what the server has not got", "client: the same with the oldest ACK",
    "client: RST at the server's number", "client: RST at the engine's number", "client: RST elsewhere",
    "client: RST with TCP MD5", "client: FIN", "client: FIN with TCP MD5",
    "client: bare ACK, cookie for the engine's next byte", "client: bare ACK, cookie for where the server stopped",
    "client: bare ACK, cookie for what the server said", "client: bare ACK, cookie three bytes on",
    "client: bare ACK, cookie as it was given", "client: cookie for the engine's next byte, with a denied command",
    "server: hangs up", "server: closes with bytes unread", "server: repeats", "51 seconds", "274.9 seconds",
    "an hour and more",
)
ALPHABET = tuple(range(<int> SYN, <int> EVENTS))
OPENINGS = {
    "nothing yet": (),
    "greeted": (SYN, ACKS),
    "asked twice, message begun": (SYN, MINUTES, SYN, ACKS, SAYS_MAIL, ACKS),
    "message begun": (SYN, ACKS, SAYS_MAIL, ACKS),
    "message, a line of it lost": (SYN, ACKS, SAYS_MAIL, ACKS, EVIL_LOST),
    "message, server gone": (SYN, ACKS, SAYS_MAIL, ACKS, HANGS_UP),
    "behind STARTTLS": (SYN, ACKS, SAYS_STARTTLS, ACKS, SAYS_TLS),
    "behind STARTTLS, server gone": (SYN, ACKS, SAYS_STARTTLS, ACKS, SAYS_TLS, HANGS_UP),
}
FINDINGS = ("", "the server reads a denied verb as a command", "the client sees the greeting as the server wrote it")

cdef enum:
    OTHER = 2048               # from one ISN of the client's to the other
    MOST_PACKETS = 192         # of a course of events
    MOST_WAITING = 32
    BITS = 6                   # of an event in a path
    DEEPEST = 10
    MOST_TICKS = 4             # a cookie is dead after two minutes, and no limit of a flow's lies there
    MOST_FOUND = 64
    PACKET_ROOM = 20 + 60 + 1400

cdef enum Found:
    NOTHING = 0
    READ_DENIED
    SAW_GREETING
    IMPOSSIBLE = 255

cdef uint32_t ISN = 0x10000000
cdef uint64_t SECOND = 1000000000
cdef uint64_t ROUND = 274877906944
#: A denied command in the argument of an allowed one, which only who reads from its middle takes for one; and one.
cdef const char *EVIL_TEXT = b"NOOP EXPN root\r\nEXPN root\r\n"
cdef const char *MAIL_TEXT = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
cdef const char *TLS_TEXT = b"EHLO x\r\nSTARTTLS\r\n"
cdef const char *HELLO_TEXT = b"\x16\x03\x01"
cdef const char *END_TEXT = b"\r\n.\r\n"
cdef const char *AHEAD_TEXT = b"."

cdef struct Sent:
    uint32_t length
    uint8_t lost
    uint8_t to_server
    uint8_t data[PACKET_ROOM]

cdef Core *core = NULL
cdef Engine engine = None                  # keeps the core alive
cdef Operations operations
cdef kernel server
cdef Sent packets[MOST_PACKETS]
cdef uint32_t packet_count
cdef uint64_t first_id = 1
cdef uint64_t begun = 1000000000           # the engine's clock as this course began
cdef segment waiting[MOST_WAITING]
cdef uint32_t waiting_first, waiting_count
cdef uint8_t found
cdef bint cookie_known
cdef uint32_t cookie_isn, cookie_number
cdef bint narrow                           # the client has closed its window, at `edge`
cdef uint32_t edge
cdef int ticks                             # since the last long wait
cdef bint overrun                          # more packets than there is room for: a fault of the search
cdef list story = None

if operations_reserve(&operations, 64) < 0:
    raise MemoryError


# Between the engine and the wire.

cdef uint32_t build(const segment *one, uint8_t *at) noexcept nogil:
    cdef uint32_t options = 0, size
    memset(at, 0, 80)
    at[0] = 0x45
    at[6] = 0x40
    at[8] = 64
    at[9] = 6
    at[12] = at[16] = 10
    at[14 if one.to_server else 18] = 1
    at[18 if one.to_server else 14] = 2
    at[15] = at[19] = 2
    wire_put(at + 20, 40000 if one.to_server else 25, 2)
    wire_put(at + 22, 25 if one.to_server else 40000, 2)
    wire_put(at + 24, one.seq, 4)
    wire_put(at + 28, one.ack, 4)
    at[33] = one.flags
    wire_put(at + 34, one.window, 2)
    if one.timestamps:
        at[40] = at[41] = 1
        at[42] = 8
        at[43] = 10
        wire_put(at + 44, one.tsval, 4)
        wire_put(at + 48, 1, 4)
        options = 12
    if one.option == OPTION_MD5:
        at[40 + options] = at[41 + options] = 1
        at[42 + options] = 19
        at[43 + options] = 18
        options += 20
    elif one.option == OPTION_AO:
        at[40 + options] = 29
        at[41 + options] = 16
        options += 16
    at[32] = <uint8_t> ((20 + options) << 2)
    memcpy(at + 40 + options, one.payload, one.length)
    size = 40 + options + one.length
    wire_put(at + 2, size, 2)
    wire_complete(at, size)
    return size


cdef void read_options(const uint8_t *at, uint32_t length, segment *out) noexcept nogil:
    cdef uint32_t i = 0, size
    while i < length and at[i] != 0:
        if at[i] == 1:
            i += 1
            continue
        size = at[i + 1] if i + 1 < length else 0
        if size < 2 or i + size > length:
            return
        if at[i] == 8:
            out.timestamps = 1
            out.tsval = wire_get(at + i + 2, 4)
        elif at[i] == 19:
            out.option = OPTION_MD5
        elif at[i] == 29:
            out.option = OPTION_AO
        i += size


cdef void read(const uint8_t *at, uint32_t size, bint to_server, segment *out) noexcept nogil:
    cdef uint32_t header = (at[32] >> 4) * 4
    out.seq = wire_get(at + 24, 4)
    out.ack = wire_get(at + 28, 4)
    out.flags = at[33]
    out.window = <uint16_t> wire_get(at + 34, 2)
    out.option = OPTION_NONE
    out.timestamps = 0
    out.tsval = 0
    out.to_server = to_server
    read_options(at + 40, header - 20, out)
    out.length = <uint16_t> (size - 20 - header)
    memcpy(out.payload, at + 20 + header, out.length)


cdef void tell(text, const segment *one):
    cdef list flags = [name for bit, name in enumerate(("FIN", "SYN", "RST", "PSH", "ACK")) if one.flags >> bit & 1]
    base, other = (ISN, server.iss) if one.to_server else (server.iss, ISN)
    where = f"seq {nm_short(one.seq, base)}" + (f" ack {nm_short(one.ack, other)}" if one.flags & FLAG_ACK else "")
    option = ("", " MD5", " AO")[one.option] + ("" if one.timestamps or one.flags & FLAG_RST else " no timestamp")
    option += f" timestamp {one.tsval}" if one.timestamps and one.to_server and one.tsval < 1000 else ""
    payload = f" {bytes(one.payload[:one.length])!r}" if one.length else ""
    story.append(f"    {text} {' '.join(flags)} {where} window {one.window}{option}{payload}")


cdef nm_short(uint32_t number, uint32_t base):
    cdef int32_t distance = <int32_t> (number - base)
    return str(distance) if -100000 < distance < 100000 else hex(number)


cdef void carry_out() noexcept nogil:
    """What the engine has answered goes on its way."""
    cdef uint32_t i, place
    cdef Operation *operation
    cdef Sent *sent
    for i in range(operations.count):
        operation = &operations.items[i]
        if operation.kind == OP_DROP:
            if story is not None:
                with gil:
                    story.append("        dropped")
            continue
        if waiting_count == MOST_WAITING:
            overrun_now()
            return
        place = (waiting_first + waiting_count) % MOST_WAITING
        if operation.kind == OP_EMIT:
            read(operation.data, operation.length, operation.to_server, &waiting[place])
        else:
            sent = &packets[operation.id - first_id]
            if operation.kind == OP_ACCEPT:
                read(sent.data, sent.length, sent.to_server, &waiting[place])
            else:
                read(operation.data, operation.length, sent.to_server, &waiting[place])
            if sent.lost:
                continue
        waiting_more()
        if story is not None:
            with gil:
                if operation.kind == OP_EMIT:
                    tell("    the engine's own:", &waiting[place])
                elif operation.kind != OP_ACCEPT:
                    tell("    leaves as", &waiting[place])


cdef inline void waiting_more() noexcept nogil:
    global waiting_count
    waiting_count += 1


cdef inline void overrun_now() noexcept nogil:
    global overrun
    overrun = True


cdef void give(const segment *one, bint lost) noexcept nogil:
    """A packet comes to the gateway."""
    global packet_count
    cdef QueuedPacket queued
    cdef Sent *sent
    cdef uint8_t data[PACKET_ROOM]
    if packet_count == MOST_PACKETS:
        overrun_now()
        return
    if story is not None:
        with gil:
            tell(("client" if one.to_server else "server") + (" (lost behind the gateway)" if lost else ""), one)
    sent = &packets[packet_count]
    sent.length = build(one, sent.data)
    sent.lost = lost
    sent.to_server = one.to_server
    memcpy(data, sent.data, sent.length)
    memset(&queued, 0, sizeof(queued))
    queued.data = data
    queued.id = first_id + packet_count
    queued.captured = queued.length = sent.length
    queued.in_interface = 1 if one.to_server else 2
    queued.out_interface = 2 if one.to_server else 1
    packet_count += 1
    operations.count = 0
    core_process(core, &queued, begun + server.now, &operations)
    carry_out()


cdef void client_gets(const segment *one) noexcept nogil:
    global found, cookie_known, cookie_isn, cookie_number
    cdef uint32_t i
    if one.flags & FLAG_SYN and kernel_makes_cookies(&server):
        if not cookie_good():
            cookie_known = True
            cookie_isn = one.ack - 1
            cookie_number = one.seq
    if one.length >= 5:
        for i in range(one.length - 4):
            if memcmp(one.payload + i, APPLICATION_SECRET, 5) == 0:
                found = SAW_GREETING


cdef void server_answers() noexcept nogil:
    cdef uint32_t i
    for i in range(server.count):
        give(&server.out[i], False)
    server.count = 0


cdef void charge() noexcept nogil:
    """Until nothing is on its way any more."""
    global waiting_first, waiting_count, found, begun, cookie_known
    cdef segment one
    server_answers()
    while waiting_count:
        memcpy(&one, &waiting[waiting_first], sizeof(segment) - SEGMENT_PAYLOAD + waiting[waiting_first].length)
        waiting_first = (waiting_first + 1) % MOST_WAITING
        waiting_count -= 1
        if one.to_server:
            kernel_receive(&server, &one)
            server_answers()
        else:
            client_gets(&one)
    if server.application.fault and server.state >= KERNEL_ESTABLISHED:
        found = READ_DENIED
    cookie_known = cookie_good()
    if server.state == KERNEL_LISTEN and not cookie_known:
        server.last_rcv_nxt = 0                    # without a cookie nobody has a use for it
        if kernel_makes_cookies(&server) and flow_open() == NULL:
            # No number is left that came from a cookie: which minute it is does not matter any more.
            begun += server.now // (60 * SECOND) * (60 * SECOND)
            server.now %= 60 * SECOND
            server.issued = 0


# What the client knows, and does.

cdef Flow *flow_now() noexcept nogil:
    cdef uint32_t i
    for i in range(FLOW_STATES):
        if core.flows.oldest[i] != NULL:
            return core.flows.oldest[i]
    return NULL


cdef Flow *flow_open() noexcept nogil:
    """The same, if the engine still lets anything of it through."""
    cdef Flow *flow = flow_now()
    return flow if flow != NULL and flow.mode <= FLOW_BYPASSED else NULL


cdef inline bint cookie_good() noexcept nogil:
    return cookie_known and kernel_cookie_valid(&server, cookie_isn, cookie_number)


cdef inline uint32_t server_stopped() noexcept nogil:
    if server.state != KERNEL_LISTEN:
        return server.rcv_nxt
    return server.last_rcv_nxt if server.last_rcv_nxt else ISN + 1


cdef inline uint32_t engine_expects(Flow *flow) noexcept nogil:
    if flow != NULL:
        return flow.stream[1].next_seq
    return server.rcv_nxt if server.state != KERNEL_LISTEN else ISN + 1


cdef uint32_t best_ack(Flow *flow) noexcept nogil:
    """As much as both the engine and the server take for acknowledged, or what the server does."""
    cdef uint32_t followed
    cdef int32_t more
    if flow == NULL or not flow.stream[0].facts & SYN_SEEN:
        if server.state != KERNEL_LISTEN:
            return server.snd_nxt
        return cookie_number + 1 if cookie_good() else 0
    followed = flow.stream[0].next_seq + stream_ended(&flow.stream[0])
    if server.state == KERNEL_LISTEN:
        return followed
    more = <int32_t> (server.snd_nxt - followed)
    return followed if 0 <= more < (1 << 20) else server.snd_nxt


cdef void say(uint32_t seq, const uint8_t *data, uint32_t length, uint8_t flags, uint32_t ack, uint32_t timestamp,
              uint8_t option, bint lost) noexcept nogil:
    """A segment of the client's, and all that it brings about. ``timestamp`` 0: none."""
    cdef segment one
    one.seq = seq
    one.ack = ack
    one.flags = flags
    one.timestamps = timestamp != 0
    one.tsval = timestamp
    one.option = option
    one.window = 65535
    if narrow:
        one.window = <uint16_t> (edge - ack) if edge - ack < 65536 else 0
    one.to_server = 1
    one.length = <uint16_t> length
    memcpy(one.payload, data, length)
    give(&one, lost)
    charge()


cdef inline void data(uint32_t seq, const char *text, uint8_t option, uint32_t timestamp, bint lost) noexcept nogil:
    say(seq, <const uint8_t *> text, <uint32_t> strlen(text), FLAG_ACK | FLAG_PSH, best_ack(flow_open()), timestamp,
        option, lost)


cdef inline void plain(uint32_t seq, uint32_t ack, uint8_t flags) noexcept nogil:
    say(seq, NULL, 0, flags, ack, 1000, OPTION_NONE, False)


cdef bint again(uint32_t ack) noexcept nogil:
    cdef uint32_t at = server.rcv_nxt, length
    cdef uint8_t data[SEGMENT_PAYLOAD]
    cdef Flow *flow = flow_open()
    if flow == NULL or server.state < KERNEL_ESTABLISHED:
        return False
    length = flow.stream[1].next_seq - at
    if length == 0 or length > SEGMENT_PAYLOAD:
        return False
    memset(data, 46, length)                     # not what was said: what was decided stands, or nothing does
    say(at, data, length, FLAG_ACK | FLAG_PSH, ack, 1000, OPTION_NONE, False)
    return True


cdef bint cookie(uint32_t isn, bint evil) noexcept nogil:
    if not cookie_good() or server.state != KERNEL_LISTEN:
        return False
    if not kernel_cookie_valid(&server, isn, cookie_number + isn - cookie_isn):
        return False
    say(isn + 1, <const uint8_t *> EVIL_TEXT, <uint32_t> strlen(EVIL_TEXT) if evil else 0, FLAG_ACK,
        cookie_number + isn - cookie_isn + 1, 1000, OPTION_NONE, False)
    return True


cdef bint shifted_cookie() noexcept nogil:
    if not cookie_good() or server.state != KERNEL_LISTEN:
        return False
    if not kernel_cookie_valid(&server, cookie_isn + 3, cookie_number):
        return False
    plain(cookie_isn + 4, cookie_number + 1, FLAG_ACK)
    return True


cdef bint pass_time(uint64_t nanoseconds) noexcept nogil:
    """So long, or where cookies are made a little longer: the client picks the second in the minute that suits it."""
    cdef uint64_t minute = 60 * SECOND, ends = server.now + nanoseconds
    cdef int part
    if kernel_makes_cookies(&server) and (nanoseconds > minute or server.now // minute != ends // minute
                                          and server.now % minute != 51 * SECOND):
        nanoseconds += minute - 1 - (ends - 1) % minute
    for part in range(3):                          # as timers do, soon at first, then more and more seldom
        kernel_wait(&server, SECOND if part == 0 else 25 * SECOND if part == 1 else nanoseconds - 26 * SECOND)
        operations.count = 0
        core_expire(core, begun + server.now, &operations)
        carry_out()
        charge()
    return True


cdef inline void ticks_are(int count) noexcept nogil:
    global ticks
    ticks = count


cdef inline void narrow_now(bint on) noexcept nogil:
    global narrow, edge
    narrow = on
    edge = server.snd_una + 1 if on else 0


cdef bint act(int event) noexcept nogil:
    """One event, and all that it brings about; False where there is nothing to do."""
    cdef Flow *flow = flow_open()
    cdef uint32_t at = engine_expects(flow), ack = best_ack(flow)
    cdef bint connected = server.state >= KERNEL_ESTABLISHED
    if event == SAYS_MAIL:
        data(at, MAIL_TEXT, OPTION_NONE, 1000, False)
    elif event == SAYS_STARTTLS:
        data(at, TLS_TEXT, OPTION_NONE, 1000, False)
    elif event == SAYS_TLS:
        data(at, HELLO_TEXT, OPTION_NONE, 1000, False)
    elif event == MINUTES:
        return pass_time(120 * SECOND)
    elif event == SYN:
        plain(ISN, 0, FLAG_SYN)
    elif event == SYN_OTHER:
        plain(at - 1 if flow != NULL and at - 1 != ISN else ISN + OTHER, 0, FLAG_SYN)
    elif event == SYN_REFUSED:
        say(ISN, NULL, 0, FLAG_SYN, 0, 1000, OPTION_MD5, False)
    elif event == ACKS:
        plain(at, ack, FLAG_ACK)
    elif event == CLOSES_WINDOW:
        if not connected and not narrow:
            return False
        narrow_now(not narrow)
        say(at, NULL, 0, FLAG_ACK, server.snd_una if narrow else ack, 1000, OPTION_NONE, False)
    elif event == EVIL or event == EVIL_LOST:
        data(at, EVIL_TEXT, OPTION_NONE, 1000, event == EVIL_LOST)
    elif event == EVIL_MD5 or event == EVIL_AO:
        data(at, EVIL_TEXT, OPTION_MD5 if event == EVIL_MD5 else OPTION_AO, 1000, False)
    elif event == EVIL_OLD or event == EVIL_BARE:
        data(at, EVIL_TEXT, OPTION_NONE, 10 if event == EVIL_OLD else 0, False)
    elif event == EVIL_AT_SERVER:
        if not connected or server.rcv_nxt == at:
            return False
        data(server.rcv_nxt, EVIL_TEXT, OPTION_NONE, 1000, False)
    elif event == END:
        data(at, END_TEXT, OPTION_NONE, 1000, False)
    elif event == AHEAD:
        data(at + 3, AHEAD_TEXT, OPTION_NONE, 1000, False)
    elif event == BEYOND:
        data(at + (1 << 24), AHEAD_TEXT, OPTION_NONE, 1000, False)
    elif event == AGAIN:
        return again(ack)
    elif event == AGAIN_OLD_ACK:
        return server.iss + 1 != ack and again(server.iss + 1)
    elif event == RST_AT_SERVER:
        if server.state == KERNEL_LISTEN:
            return False
        plain(server.rcv_nxt, 0, FLAG_RST)
    elif event == RST_AT_ENGINE:
        if server.state != KERNEL_LISTEN and server.rcv_nxt == at:
            return False
        plain(at, 0, FLAG_RST)
    elif event == RST_ELSEWHERE:
        if server.state == KERNEL_LISTEN:
            return False
        at = server.rcv_nxt + 7
        if server.early_length:                    # the end of what SACK would name
            at = server.early_seq + server.early_length
        plain(at, 0, FLAG_RST)
    elif event == RST_REFUSED:
        say(at, NULL, 0, FLAG_RST, 0, 0, OPTION_MD5, False)
    elif event == FIN:
        say(at, NULL, 0, FLAG_FIN | FLAG_ACK, ack, 1000, OPTION_NONE, False)
    elif event == FIN_REFUSED:
        say(at, NULL, 0, FLAG_FIN | FLAG_ACK, ack, 1000, OPTION_MD5, False)
    elif event == COOKIE_AT_ENGINE or event == COOKIE_EVIL:
        return flow != NULL and cookie(at - 1, event == COOKIE_EVIL)
    elif event == COOKIE_AT_SERVER:
        return server_stopped() != at and cookie(server_stopped() - 1, False)
    elif event == COOKIE_AT_ACK:
        return flow != NULL and flow.stream[0].facts & SYN_SEEN and cookie(
            cookie_isn + flow.stream[0].next_seq - 1 - cookie_number, False)
    elif event == COOKIE_SHIFTED:
        return shifted_cookie()
    elif event == COOKIE_FIRST:
        return cookie(cookie_isn, False)
    elif event == HANGS_UP or event == ABORTS:
        if server.state != KERNEL_ESTABLISHED:
            return False
        if event == HANGS_UP:
            kernel_hang_up(&server)
        else:
            kernel_abort(&server)
        charge()
    elif event == REPEATS:
        kernel_repeat(&server)
        if not server.count:
            return False
        charge()
    elif event == TICK:
        ticks_are(ticks + 1)
        return ticks <= MOST_TICKS and pass_time(51 * SECOND)
    elif event == LONG:
        return server.model == ISN_CLOCK and pass_time(ROUND)
    elif event == IDLE:
        ticks_are(0)
        return pass_time(14 * ROUND if server.model == ISN_CLOCK else 68 * 60 * SECOND)
    return True


# A state's digest.

cdef void digest_store(digest *at, PageBuffer *store) noexcept nogil:
    cdef uint32_t place = 0, length
    cdef uint8_t *data
    digest_number(at, store.length)
    while place < store.length:
        length = store.length - place
        data = pagebuffer_span(store, place, &length)
        digest_bytes(at, data, length)
        place += length


cdef void digest_stream(digest *at, Stream *stream) noexcept nogil:
    cdef Edit *edit
    cdef OutOfOrder *ahead
    cdef Held *held
    digest_store(at, &stream.unacked)
    digest_number(at, stream.backlog != NULL)
    if stream.backlog == NULL:
        return
    edit = stream.backlog.edits
    while edit != NULL:
        digest_number(at, edit.seq)
        digest_bytes(at, edit + 1, edit.length)
        edit = edit.next
    ahead = stream.backlog.buffered
    while ahead != NULL:
        digest_number(at, ahead.seq + (<uint64_t> 1 << 32))
        digest_store(at, &ahead.data)
        ahead = ahead.next
    held = stream.backlog.held
    while held != NULL:
        digest_number(at, held.seq + (<uint64_t> 2 << 32))
        digest_number(at, packets[held.queued.id - first_id].lost)
        digest_number(at, begun + server.now - held.arrived)
        digest_bytes(at, held + 1, held.size)
        held = held.next


cdef void digest_dialogue(digest *at, Dialogue *dialogue) noexcept nogil:
    cdef Dialogue copy = dialogue[0]
    copy.command.kept = copy.reply.kept = NULL
    copy.exchange.more = NULL
    copy.older = copy.newer = NULL
    copy.flow = NULL
    copy.account.since = min(begun + server.now - dialogue.account.since, ROUND)
    digest_bytes(at, &copy, sizeof(copy))
    if dialogue.command.kept != NULL:
        digest_number(at, dialogue.command.kept.sent + 1)
        digest_bytes(at, dialogue.command.kept.data, dialogue.command.kept.length)
    if dialogue.reply.kept != NULL:
        digest_number(at, dialogue.reply.kept.sent + (1 << 16))
        digest_bytes(at, dialogue.reply.kept.data, dialogue.reply.kept.length)
    if dialogue.exchange.more != NULL:
        digest_bytes(at, dialogue.exchange.more, dialogue.exchange.capacity)


cdef void digest_flow(digest *at, Flow *flow) noexcept nogil:
    """All of it, but for addresses in memory, and what only events show."""
    cdef Flow copy
    cdef uint64_t now = begun + server.now
    cdef int side
    memcpy(&copy, flow, sizeof(Flow))
    copy.bucket_next = copy.older = copy.newer = NULL
    copy.identity.flow_id = 0
    copy.started = min(now - flow.started, ROUND)
    copy.seen = min(now - flow.seen, ROUND)
    copy.policy = NULL
    copy.dialogue = NULL
    memset(&copy.session.tally, 0, sizeof(copy.session.tally))
    copy.session.found = 0
    if flow.mode > FLOW_BYPASSED:
        # It has ended: it drops what comes, and answers with the packet's own numbers, until a SYN. Of its streams
        # where they are and began is left, and whatever else is noted there.
        for side in range(2):
            copy.stream[side].last_ack = copy.stream[side].fin_seq = copy.stream[side].window_end = 0
            copy.stream[side].max_window = 0
            copy.stream[side].fin = 0
            copy.stream[side].facts &= ~<uint8_t> WINDOW_KNOWN
        memset(&copy.session, 0, sizeof(copy.session))
        copy.end = 0
        copy.handshake &= ~<uint8_t> (CLIENT_ANSWERED | OTHER_SYN_SEEN)
    for side in range(2):
        copy.bytes[side] = 0
        copy.packets[side] = 0
        memset(&copy.stream[side].unacked, 0, sizeof(PageBuffer))
        copy.stream[side].backlog = NULL
    digest_bytes(at, &copy, sizeof(copy))
    for side in range(2):
        digest_stream(at, &flow.stream[side])
    if flow.dialogue != NULL:
        digest_dialogue(at, flow.dialogue)


cdef digest state_digest() noexcept nogil:
    cdef digest one
    cdef Flow *flow = flow_now()
    cdef uint32_t place
    digest_open(&one)
    for place in range(2):
        if core.cookies.noted[place]:
            digest_number(&one, place + min(begun + server.now - core.cookies.since, 2 * core.cookie_life))
            digest_bytes(&one, core.cookies.half[place], core.cookies.lines * LINE_BYTES)
    if flow != NULL:
        digest_flow(&one, flow)
    digest_number(&one, <uint64_t> edge << 32 | ticks << 16 | narrow << 8 | server.state)
    if server.model == ISN_FRESH:
        digest_number(&one, server.connections)
    elif server.model == ISN_CLOCK:
        digest_number(&one, <uint32_t> (server.now // 64))
        digest_number(&one, server.connections)
    else:
        digest_number(&one, server.now % (COOKIE_ROUND * 60 * SECOND))
        place = <uint32_t> (server.now // (60 * SECOND) % COOKIE_ROUND)
        digest_number(&one, server.issued >> place & 1 | (server.issued >> (place - 1) & 1) << 1 if place else
                      server.issued & 1)
        if cookie_good():
            digest_number(&one, <uint64_t> cookie_isn << 32 | cookie_number)
            digest_number(&one, server.last_rcv_nxt)
    if server.state != KERNEL_LISTEN:
        if not (server.state in (KERNEL_ESTABLISHED, KERNEL_CLOSE_WAIT)) or kernel_outstanding(&server):
            digest_number(&one, server.now - server.since)
        digest_number(&one, <uint64_t> server.irs << 32 | server.rcv_nxt)
        digest_number(&one, <uint64_t> server.iss << 32 | server.snd_una)
        digest_number(&one, <uint64_t> server.snd_nxt << 32 | server.snd_wnd)
        digest_number(&one, <uint64_t> server.ts_recent << 8 | server.timestamps << 1 | server.fin_sent)
        digest_number(&one, server.early_seq if server.early_length else 0)
        digest_bytes(&one, server.early, server.early_length)
    if server.state >= KERNEL_ESTABLISHED and server.state < KERNEL_FIN_WAIT2:
        digest_bytes(&one, &server.application, APPLICATION_HEAD)
        place = server.snd_una - server.iss - 1
        if place < server.application.said:
            digest_bytes(&one, server.application.out + place, server.application.said - place)
    return one


# Courses of events.

cdef void begin(uint8_t model, bint denies_ehlo) noexcept nogil:
    global packet_count, waiting_first, waiting_count, found, cookie_known, cookie_isn, cookie_number, begun, first_id
    cdef int side
    operations.count = 0
    core_finish(core, begun + server.now, &operations, False)
    begun += server.now + SECOND
    for side in range(2):                          # of the course before
        if core.cookies.noted[side]:
            memset(core.cookies.half[side], 0, core.cookies.lines * LINE_BYTES)
            core.cookies.noted[side] = 0
    first_id += packet_count
    packet_count = waiting_first = waiting_count = 0
    core.ring.head = core.ring.tail = 0            # nobody reads the records
    found = NOTHING
    cookie_known = False
    cookie_isn = cookie_number = 0
    narrow_now(False)
    ticks_are(0)
    kernel_open(&server, model, denies_ehlo)


cdef struct Search:
    uint8_t model
    uint8_t denies_ehlo
    uint8_t opening_length
    uint8_t opening[16]


cdef void run(const Search *search, uint64_t path) noexcept nogil:
    """The events of a path, behind the opening."""
    cdef int i
    begin(search.model, search.denies_ehlo)
    for i in range(search.opening_length):
        act(search.opening[i])
    ticks_are(0)
    while path:
        act(path & ((1 << BITS) - 1))
        path >>= BITS


cdef int grow(digest_set *places) noexcept nogil:
    cdef digest_set wider
    cdef uint64_t i
    wider.capacity = places.capacity * 2
    wider.count = 0
    wider.places = <digest *> calloc(wider.capacity, sizeof(digest))
    if wider.places == NULL:
        return -1
    for i in range(places.capacity):
        if places.places[i].a or places.places[i].b:
            digest_add(&wider, places.places[i])
    free(places.places)
    places[0] = wider
    return 0


cdef int widen(uint64_t **paths, uint64_t *room) noexcept nogil:
    cdef uint64_t *wider = <uint64_t *> calloc(room[0] * 2, sizeof(uint64_t))
    if wider == NULL:
        return -1
    memcpy(wider, paths[0], room[0] * sizeof(uint64_t))
    free(paths[0])
    paths[0] = wider
    room[0] *= 2
    return 0


cdef class Explorer:
    """Every course of events up to a depth, breadth first, of one opening before one kind of server."""

    cdef Search search
    cdef digest_set seen
    cdef uint64_t *here                        # paths of this depth
    cdef uint64_t *next
    cdef uint64_t here_count, next_count, next_room
    cdef uint8_t alphabet[64]
    cdef int letters
    cdef readonly int depth
    cdef readonly uint64_t transitions
    cdef readonly uint64_t sampled             # of so many states one is looked at whenever it is met; 0: none
    cdef readonly uint64_t compared            # how many pairs that were taken for one state have been compared
    cdef readonly list unlike                  # pairs that were not one: (events, events)
    cdef dict sample
    cdef readonly list found                   # (what, events), the shortest first

    def __cinit__(self, Engine core_engine, int model, bint denies_ehlo, opening, alphabet=ALPHABET,
                  uint64_t sampled=0):
        self.use(core_engine)
        self.search.model = model
        self.search.denies_ehlo = denies_ehlo
        self.search.opening_length = len(opening)
        for i, event in enumerate(opening):
            self.search.opening[i] = event
        self.letters = len(alphabet)
        for i, event in enumerate(alphabet):
            self.alphabet[i] = event
        self.seen.capacity = 1 << 16
        self.seen.places = <digest *> calloc(self.seen.capacity, sizeof(digest))
        self.next_room = 1 << 12
        self.here = <uint64_t *> calloc(1, sizeof(uint64_t))
        self.next = <uint64_t *> calloc(self.next_room, sizeof(uint64_t))
        if self.seen.places == NULL or self.here == NULL or self.next == NULL:
            raise MemoryError
        self.here_count = 1
        self.found = []
        self.unlike = []
        self.sample = {}
        self.sampled = sampled
        run(&self.search, 0)
        digest_add(&self.seen, state_digest())

    cdef use(self, Engine core_engine):
        global core, engine
        if core != NULL:
            core_finish(core, begun + server.now, &operations, False)
        engine = core_engine
        core = engine.core
        core.cookies.lines = 16                    # few connections, and all of it in each digest

    def __dealloc__(self):
        free(self.seen.places)
        free(self.here)
        free(self.next)

    @property
    def states(self):
        return self.seen.count

    @property
    def waiting(self):
        """States of this depth, whose events are still to come."""
        return self.here_count

    cdef digest ahead(self, uint64_t path) noexcept nogil:
        """What each event makes of the state a path leads to."""
        cdef digest out
        cdef digest one
        cdef int letter
        digest_open(&out)
        for letter in range(self.letters):
            run(&self.search, path)
            if act(self.alphabet[letter]):
                one = state_digest()
                digest_number(&out, one.a ^ found)
            else:
                digest_number(&out, 0)
        return out

    cdef void compare(self, uint64_t a, uint64_t b, uint64_t path) noexcept with gil:
        # A state of the sample has been met, perhaps not for the first time.
        one = self.ahead(path)
        first = self.sample.setdefault((a, b), (one.a, one.b, path))
        if first[2] != path:
            self.compared += 1
            if first[:2] != (one.a, one.b):
                self.unlike.append((self.events(first[2]), self.events(path)))

    cdef int step(self, uint64_t path, int *kinds) noexcept nogil:
        """Every event from one state; -1 without memory, else how many findings."""
        cdef int letter, what, count = 0
        cdef uint64_t longer
        cdef digest one
        cdef digest same
        run(&self.search, path)
        same = state_digest()
        for letter in range(self.letters):
            self.transitions += 1
            what = found if act(self.alphabet[letter]) else IMPOSSIBLE
            if overrun:
                return -1
            if what == IMPOSSIBLE:
                continue
            longer = path | <uint64_t> self.alphabet[letter] << (BITS * self.depth)
            one = state_digest()
            if what == NOTHING and one.a == same.a and one.b == same.b:
                continue                           # nothing has changed: the next event may begin here, too
            if what != NOTHING:
                run(&self.search, path)
                kinds[letter] = what
                count += 1
                continue
            if self.sampled and one.b % self.sampled == 0 and self.depth + 1 < DEEPEST:
                self.compare(one.a, one.b, longer)
            run(&self.search, path)
            if self.seen.count * 2 > self.seen.capacity and grow(&self.seen) < 0:
                return -1
            if not digest_add(&self.seen, one):
                continue
            if self.next_count == self.next_room and widen(&self.next, &self.next_room) < 0:
                return -1
            self.next[self.next_count] = longer
            self.next_count += 1
        return count

    def deepen(self):
        """One event more from every state of this depth; whether any are left."""
        cdef uint64_t i, path
        cdef int count, letter
        cdef int kinds[64]
        if self.depth == DEEPEST:
            raise ValueError("deeper than a path is long")
        for i in range(self.here_count):
            path = self.here[i]
            memset(kinds, 0, sizeof(kinds))
            with nogil:
                count = self.step(path, kinds)
            if count < 0:
                raise MemoryError("the search has no room")
            for letter in range(self.letters if count else 0):
                if kinds[letter] and len(self.found) < MOST_FOUND:
                    self.found.append((kinds[letter], self.events(path) + [self.alphabet[letter]]))
        free(self.here)
        self.here = self.next
        self.here_count = self.next_count
        self.next_room = 1 << 12
        self.next_count = 0
        self.next = <uint64_t *> calloc(self.next_room, sizeof(uint64_t))
        if self.next == NULL:
            raise MemoryError
        self.depth += 1
        return self.here_count > 0

    cdef list events(self, uint64_t path):
        cdef list out = []
        while path:
            out.append(path & ((1 << BITS) - 1))
            path >>= BITS
        return out

    def paths(self):
        """The events that lead to each state of this depth."""
        return [self.events(self.here[i]) for i in range(self.here_count)]

    def differ(self, one, other):
        """The events that make different states of two that were taken for one, by name."""
        cdef digest a
        cdef digest b
        cdef uint64_t paths[2]
        cdef int letter
        paths[0] = sum(event << (BITS * i) for i, event in enumerate(one))
        paths[1] = sum(event << (BITS * i) for i, event in enumerate(other))
        out = []
        for letter in range(self.letters):
            run(&self.search, paths[0])
            act(self.alphabet[letter])
            a = state_digest()
            run(&self.search, paths[1])
            act(self.alphabet[letter])
            b = state_digest()
            if a.a != b.a:
                out.append(NAMES[self.alphabet[letter]])
        return out

    def tell(self, events):
        """The story of a course of events, opening and all: lines."""
        global story
        cdef int event
        story = []
        begin(self.search.model, self.search.denies_ehlo)
        try:
            for number, event in enumerate(
                    [self.search.opening[i] for i in range(self.search.opening_length)] + list(events)):
                if number == self.search.opening_length:
                    ticks_are(0)
                story.append(NAMES[event])
                if not act(event):
                    story.append("    nothing happens")
                if server.application.fault or found:
                    story.append(f"  => {FINDINGS[found]}")
                    break
            return story
        finally:
            story = None
