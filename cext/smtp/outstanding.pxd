# Outstanding commands: sent by the client, not yet answered by the server.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.numbers cimport UNTOLD, VERB_EHLO, VERB_HELO, VERB_RCPT, VERB_UNKNOWN, VERB_XCLIENT
from nfmailguard.cext.smtp.grammar cimport INPUT_OPAQUE

cdef enum:
    RECIPIENTS_TOLD = 1000     # of a mail, whatever the server says to them; events name a hundred of them

# Who is to speak: the commands whose replies are to come, and how the client's next bytes are read.
cdef struct Exchange:
    uint8_t *more              # the outstanding commands when they are more than `few` holds
    uint16_t first             # index of the oldest
    uint16_t count
    uint16_t capacity          # of `more`
    uint16_t waiting           # replies to come before the client may go on
    uint16_t greetings         # of the outstanding commands, those that begin the session anew
    uint16_t recipients        # and those that add one
    uint8_t few[16]
    uint8_t input              # Input
    uint8_t tls_checked
    uint8_t body_as_commands   # the message is read as lines of commands
    uint8_t pipelining_violation  # the client did not wait; reported

# The client's next bytes are this Input.
cdef inline void read_as(Exchange *exchange, uint8_t input) noexcept nogil:
    exchange.input = input

# They are not looked at any more.
cdef inline void read_no_more(Exchange *exchange) noexcept nogil:
    exchange.input = INPUT_OPAQUE
    exchange.tls_checked = 1

# What stands behind TLS_STARTED has been looked at; it is to be.
cdef inline void take_tls(Exchange *exchange) noexcept nogil:
    exchange.tls_checked = 1

cdef inline void expect_tls(Exchange *exchange) noexcept nogil:
    exchange.tls_checked = 0

# Whether the client's next lines, of commands, are a message's (CSCdk46673).
cdef inline void read_body_as_commands(Exchange *exchange, bint body) noexcept nogil:
    exchange.body_as_commands = body

# The client has to wait for all replies to come; it may go on.
cdef inline void wait_for_replies(Exchange *exchange) noexcept nogil:
    exchange.waiting = exchange.count

cdef inline void go_on(Exchange *exchange) noexcept nogil:
    exchange.waiting = 0
    exchange.pipelining_violation = 0

# It did not wait, and that has been reported, or is not to be.
cdef inline void note_violation(Exchange *exchange) noexcept nogil:
    exchange.pipelining_violation = 1

# A dialogue that begins: the server's greeting is to come.
cdef inline void expect_greeting(Exchange *exchange, uint8_t verb) noexcept nogil:
    exchange.few[0] = verb
    exchange.count = 1

# The command whose reply has to be waited for, when `waiting`.
cdef uint8_t awaited_verb(Exchange *exchange) noexcept nogil
# The memory for many outstanding commands, of which there are none any more.
cdef void free_ring(Context *context, Exchange *exchange) noexcept nogil

# No reply is awaited any more.
cdef inline void answer_all(Context *context, Exchange *exchange) noexcept nogil:
    exchange.count = exchange.first = exchange.waiting = exchange.greetings = exchange.recipients = 0
    exchange.pipelining_violation = 0
    if exchange.more != NULL:
        free_ring(context, exchange)

# Of how many outstanding commands there is memory.
cdef inline uint32_t ring_size(const Exchange *exchange) noexcept nogil:
    return sizeof(exchange.few) if exchange.more == NULL else exchange.capacity

# That memory: `ring_size` verbs, each with UNTOLD or without.
cdef inline uint8_t *ring_of(const Exchange *exchange) noexcept nogil:
    return exchange.more if exchange.more != NULL else <uint8_t *> exchange.few

# Whether no record tells of the oldest outstanding command.
cdef inline bint is_untold(const Exchange *exchange) noexcept nogil:
    return ring_of(exchange)[exchange.first] & UNTOLD != 0

# The reply to `verb`, the oldest outstanding command, has come.
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

# Whether one more command may be outstanding, and has memory.
cdef inline bint has_room(Context *context, const Exchange *exchange) noexcept nogil:
    return exchange.count < ring_size(exchange) and exchange.count < context.policy.outstanding_commands

# UNTOLD where no record is made of a command, nor of its reply: a recipient, that has been counted, behind those of the
# mail that are told, or any command as the context has it.
cdef inline uint8_t untold_of(const Context *context, uint8_t verb) noexcept nogil:
    return UNTOLD if verb == VERB_RCPT and context.session.recipients > RECIPIENTS_TOLD else context.untold

# Puts a command behind the outstanding ones, which have room.
cdef inline void add_reply(Context *context, Exchange *exchange, uint8_t verb) noexcept nogil:
    cdef uint32_t place = exchange.first + exchange.count, size = ring_size(exchange)
    if place >= size:
        place -= size
    ring_of(exchange)[place] = verb | untold_of(context, verb)
    exchange.count += 1

# As expect_reply, where there is no room left.
cdef bint expect_one_more(Context *context, Exchange *exchange, uint8_t verb, uint64_t offset) noexcept nogil

# A command line has ended: its reply is awaited. False when there are too many (reported).
cdef inline bint expect_reply(Context *context, Exchange *exchange, uint8_t verb, uint64_t offset) noexcept nogil:
    if not has_room(context, exchange):
        return expect_one_more(context, exchange, verb, offset)
    add_reply(context, exchange, verb)
    exchange.greetings += begins_anew(verb)
    exchange.recipients += verb == VERB_RCPT
    return True

# The verb the reply that is coming in answers; VERB_UNKNOWN when nothing is outstanding.
cdef inline uint8_t expected_verb(const Exchange *exchange) noexcept nogil:
    if exchange.count == 0:
        return VERB_UNKNOWN
    return ring_of(exchange)[exchange.first] & ~UNTOLD

cdef inline bint begins_anew(uint8_t verb) noexcept nogil:
    # RFC 5321 4.1.1.1; Postfix, XCLIENT_README. What EHLO offered holds no more.
    return verb == VERB_HELO or verb == VERB_EHLO or verb == VERB_XCLIENT
