# Outstanding commands: sent by the client, not yet answered by the server.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.numbers cimport UNTOLD, VERB_EHLO, VERB_HELO, VERB_RCPT, VERB_UNKNOWN, VERB_XCLIENT
from nfmailguard.cext.smtp.dialogue cimport Dialogue

cdef enum:
    RECIPIENTS_TOLD = 1000     # of a mail, whatever the server says to them; events name a hundred of them

# The command whose reply has to be waited for, when `waiting`.
cdef uint8_t awaited_verb(Dialogue *dialogue) noexcept nogil
# The memory for many outstanding commands, of which there are none any more.
cdef void free_ring(Context *context, Dialogue *dialogue) noexcept nogil

# No reply is awaited any more.
cdef inline void answer_all(Context *context, Dialogue *dialogue) noexcept nogil:
    dialogue.count = dialogue.first = dialogue.waiting = dialogue.greetings = dialogue.recipients = 0
    dialogue.pipelining_violation = 0
    if dialogue.more != NULL:
        free_ring(context, dialogue)

# Of how many outstanding commands there is memory.
cdef inline uint32_t ring_size(const Dialogue *dialogue) noexcept nogil:
    return sizeof(dialogue.few) if dialogue.more == NULL else dialogue.capacity

# That memory: `ring_size` verbs, each with UNTOLD or without.
cdef inline uint8_t *ring_of(const Dialogue *dialogue) noexcept nogil:
    return dialogue.more if dialogue.more != NULL else <uint8_t *> dialogue.few

# Whether no record tells of the oldest outstanding command.
cdef inline bint is_untold(const Dialogue *dialogue) noexcept nogil:
    return ring_of(dialogue)[dialogue.first] & UNTOLD != 0

# The reply to `verb`, the oldest outstanding command, has come.
cdef inline void answer_oldest(Context *context, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    if dialogue.count <= 1:
        answer_all(context, dialogue)
        return
    dialogue.greetings -= begins_anew(verb)
    dialogue.recipients -= verb == VERB_RCPT
    dialogue.first += 1
    if dialogue.first == ring_size(dialogue):
        dialogue.first = 0
    dialogue.count -= 1
    if dialogue.waiting:
        dialogue.waiting -= 1
        dialogue.pipelining_violation &= dialogue.waiting != 0

# Whether one more command may be outstanding, and has memory.
cdef inline bint has_room(Context *context, const Dialogue *dialogue) noexcept nogil:
    return dialogue.count < ring_size(dialogue) and dialogue.count < context.policy.outstanding_commands

# UNTOLD where no record is made of a command, nor of its reply: a recipient, that has been counted, behind those of the
# mail that are told, or any command as the context has it.
cdef inline uint8_t untold_of(const Context *context, uint8_t verb) noexcept nogil:
    return UNTOLD if verb == VERB_RCPT and context.session.recipients > RECIPIENTS_TOLD else context.untold

# Puts a command behind the outstanding ones, which have room.
cdef inline void add_reply(Context *context, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    cdef uint32_t place = dialogue.first + dialogue.count, size = ring_size(dialogue)
    if place >= size:
        place -= size
    ring_of(dialogue)[place] = verb | untold_of(context, verb)
    dialogue.count += 1

# As expect_reply, where there is no room left.
cdef bint expect_one_more(Context *context, Dialogue *dialogue, uint8_t verb, uint64_t offset) noexcept nogil

# A command line has ended: its reply is awaited. False when there are too many (reported).
cdef inline bint expect_reply(Context *context, Dialogue *dialogue, uint8_t verb, uint64_t offset) noexcept nogil:
    if not has_room(context, dialogue):
        return expect_one_more(context, dialogue, verb, offset)
    add_reply(context, dialogue, verb)
    dialogue.greetings += begins_anew(verb)
    dialogue.recipients += verb == VERB_RCPT
    return True

# The verb the reply that is coming in answers; VERB_UNKNOWN when nothing is outstanding.
cdef inline uint8_t expected_verb(const Dialogue *dialogue) noexcept nogil:
    if dialogue.count == 0:
        return VERB_UNKNOWN
    return ring_of(dialogue)[dialogue.first] & ~UNTOLD

cdef inline bint begins_anew(uint8_t verb) noexcept nogil:
    # RFC 5321 4.1.1.1; Postfix, XCLIENT_README. What EHLO offered holds no more.
    return verb == VERB_HELO or verb == VERB_EHLO or verb == VERB_XCLIENT
