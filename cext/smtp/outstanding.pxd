# Outstanding commands: sent by the client, not yet answered by the server.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.numbers cimport (
    UNTOLD, VERB_BDAT, VERB_EHLO, VERB_HELO, VERB_RCPT, VERB_UNKNOWN, VERB_XCLIENT,
)
from nfmailguard.cext.smtp.dialogue cimport Dialogue, is_untold

# The command whose reply has to be waited for, when `waiting`.
cdef uint8_t awaited_verb(Dialogue *dialogue) noexcept nogil
# No reply is awaited any more.
cdef void answer_all(Context *context, Dialogue *dialogue) noexcept nogil

# Of how many outstanding commands there is memory.
cdef inline uint32_t ring_size(const Dialogue *dialogue) noexcept nogil:
    return sizeof(dialogue.few) if dialogue.more == NULL else dialogue.capacity

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

# Puts a command behind the outstanding ones, which have room.
cdef inline void add_reply(Context *context, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    cdef uint32_t place = dialogue.first + dialogue.count, size = ring_size(dialogue)
    if place >= size:
        place -= size
    verb |= context.untold
    if dialogue.more == NULL:
        dialogue.few[place] = verb
    else:
        dialogue.more[place] = verb
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
    return (dialogue.more[dialogue.first] if dialogue.more != NULL else dialogue.few[dialogue.first]) & ~UNTOLD

cdef inline bint begins_anew(uint8_t verb) noexcept nogil:
    # RFC 5321 4.1.1.1; Postfix, XCLIENT_README. What EHLO offered holds no more.
    return verb == VERB_HELO or verb == VERB_EHLO or verb == VERB_XCLIENT

cdef inline uint8_t *slots(Dialogue *dialogue, uint32_t *size) noexcept nogil:
    size[0] = ring_size(dialogue)
    return dialogue.more if dialogue.more != NULL else dialogue.few

cdef inline bint keeps_reply(Context *context, const Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # Whether the reply to it, the oldest outstanding command, is: as it was, or as the word on a message.
    if not context.grammar.recorded[verb] or not is_untold(dialogue):
        return context.grammar.recorded[verb]
    if ends_message(context, dialogue, verb):
        return True
    context.omitted[0] += 1
    return False

cdef inline bint ends_message(const Context *context, const Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # Whether a reply to it is the word on a message.
    return verb == context.grammar.verb_end_of_data or (verb == VERB_BDAT and dialogue.last_chunk)
