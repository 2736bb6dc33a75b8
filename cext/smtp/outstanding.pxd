# Outstanding commands: sent by the client, not yet answered by the server.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.numbers cimport UNTOLD, VERB_EHLO, VERB_HELO, VERB_RCPT, VERB_UNKNOWN, VERB_XCLIENT
from nfmailguard.cext.smtp.grammar cimport INPUT_OPAQUE

cdef enum:
    RECIPIENTS_TOLD = 1000  # RCPT commands of one mail that are recorded, whatever their replies; events name a hundred

# The commands whose replies are outstanding, and how the client's next bytes are read.
cdef struct Exchange:
    uint8_t *more              # ring for more outstanding commands than `few` holds, from the pool; or NULL
    uint16_t first             # index of the oldest outstanding command in the ring
    uint16_t count
    uint16_t capacity          # number of commands `more` has room for
    uint16_t waiting           # replies to come before the client may go on; 0: it need not wait
    uint16_t greetings         # outstanding commands that begin the session anew
    uint16_t recipients        # outstanding commands that add a recipient (RCPT)
    uint8_t few[16]
    uint8_t input              # Input: how the client's next bytes are read
    uint8_t tls_checked
    uint8_t body_as_commands   # 1: the message's lines are read as commands (CSCdk46673)
    uint8_t pipelining_violation  # 1: the client did not wait for a reply; reported, or not to be reported

# Sets how the client's next bytes are read: one of Input.
cdef inline void read_as(Exchange *exchange, uint8_t input) noexcept nogil:
    exchange.input = input

# The client's bytes are not inspected any more.
cdef inline void read_no_more(Exchange *exchange) noexcept nogil:
    exchange.input = INPUT_OPAQUE
    exchange.tls_checked = 1

# take_tls: the first byte after TLS_STARTED has been checked; expect_tls: it is still to be checked.
cdef inline void take_tls(Exchange *exchange) noexcept nogil:
    exchange.tls_checked = 1

cdef inline void expect_tls(Exchange *exchange) noexcept nogil:
    exchange.tls_checked = 0

# Sets whether the client's next lines, read as commands, belong to a message (CSCdk46673).
cdef inline void read_body_as_commands(Exchange *exchange, bint body) noexcept nogil:
    exchange.body_as_commands = body

# wait_for_replies: the client has to wait for all outstanding replies; go_on: it need not wait.
cdef inline void wait_for_replies(Exchange *exchange) noexcept nogil:
    exchange.waiting = exchange.count

cdef inline void go_on(Exchange *exchange) noexcept nogil:
    exchange.waiting = 0
    exchange.pipelining_violation = 0

# The client did not wait for a reply, and that has been reported, or is not to be reported.
cdef inline void note_violation(Exchange *exchange) noexcept nogil:
    exchange.pipelining_violation = 1

# At the beginning of a dialogue: the server's greeting is expected as the reply to the pseudo-verb `verb`.
cdef inline void expect_greeting(Exchange *exchange, uint8_t verb) noexcept nogil:
    exchange.few[0] = verb
    exchange.count = 1

# The verb whose reply the client has to wait for; VERB_UNKNOWN where it need not wait.
cdef uint8_t awaited_verb(Exchange *exchange) noexcept nogil
# Frees the ring for many outstanding commands, when no command is outstanding any more.
cdef void free_ring(Context *context, Exchange *exchange) noexcept nogil

# Forgets all outstanding commands: no reply is awaited any more.
cdef inline void answer_all(Context *context, Exchange *exchange) noexcept nogil:
    exchange.count = exchange.first = exchange.waiting = exchange.greetings = exchange.recipients = 0
    exchange.pipelining_violation = 0
    if exchange.more != NULL:
        free_ring(context, exchange)

# How many outstanding commands the ring has room for.
cdef inline uint32_t ring_size(const Exchange *exchange) noexcept nogil:
    return sizeof(exchange.few) if exchange.more == NULL else exchange.capacity

# The ring of outstanding commands: `ring_size` verbs, each with or without the UNTOLD bit.
cdef inline uint8_t *ring_of(const Exchange *exchange) noexcept nogil:
    return exchange.more if exchange.more != NULL else <uint8_t *> exchange.few

# Whether no event record was made of the oldest outstanding command.
cdef inline bint is_untold(const Exchange *exchange) noexcept nogil:
    return ring_of(exchange)[exchange.first] & UNTOLD != 0

# The reply to `verb`, the oldest outstanding command, has come: removes that command.
cdef inline void answer_oldest(Context *context, Exchange *exchange, uint8_t verb) noexcept nogil:
    if exchange.count <= 1:
        answer_all(context, exchange)
        return
    exchange.greetings -= begins_anew(verb)
    exchange.recipients -= verb == VERB_RCPT
    exchange.first += 1
    if exchange.first == ring_size(exchange):
        exchange.first = 0
    exchange.count -= 1
    if exchange.waiting:
        exchange.waiting -= 1
        exchange.pipelining_violation &= exchange.waiting != 0

# Whether the ring has room for one more outstanding command, and the policy allows it.
cdef inline bint has_room(Context *context, const Exchange *exchange) noexcept nogil:
    return exchange.count < ring_size(exchange) and exchange.count < context.policy.outstanding_commands

# Returns UNTOLD where no record is made of a command and of its reply: for a RCPT, counted already, beyond the first
# RECIPIENTS_TOLD of its mail, or for any command if `context.untold` says so.
cdef inline uint8_t untold_of(const Context *context, uint8_t verb) noexcept nogil:
    return UNTOLD if verb == VERB_RCPT and context.session.recipients > RECIPIENTS_TOLD else context.untold

# Adds a command as the newest outstanding one; there must be room for it.
cdef inline void add_reply(Context *context, Exchange *exchange, uint8_t verb) noexcept nogil:
    cdef uint32_t place = exchange.first + exchange.count, size = ring_size(exchange)
    if place >= size:
        place -= size
    ring_of(exchange)[place] = verb | untold_of(context, verb)
    exchange.count += 1

# As expect_reply, where the ring is full or the policy's limit is reached.
cdef bint expect_one_more(Context *context, Exchange *exchange, uint8_t verb, uint64_t offset) noexcept nogil

# A command line has ended: its reply is awaited. False when too many are outstanding (reported) or memory is short.
cdef inline bint expect_reply(Context *context, Exchange *exchange, uint8_t verb, uint64_t offset) noexcept nogil:
    if not has_room(context, exchange):
        return expect_one_more(context, exchange, verb, offset)
    add_reply(context, exchange, verb)
    exchange.greetings += begins_anew(verb)
    exchange.recipients += verb == VERB_RCPT
    return True

# The verb that the reply coming in answers; VERB_UNKNOWN when no command is outstanding.
cdef inline uint8_t expected_verb(const Exchange *exchange) noexcept nogil:
    if exchange.count == 0:
        return VERB_UNKNOWN
    return ring_of(exchange)[exchange.first] & ~UNTOLD

cdef inline bint begins_anew(uint8_t verb) noexcept nogil:
    # RFC 5321 4.1.1.1; Postfix, XCLIENT_README: after these commands, what EHLO's reply offered is valid no more.
    return verb == VERB_HELO or verb == VERB_EHLO or verb == VERB_XCLIENT
