# Verbs: which verb a command line has, and whether it may pass.
from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport memchr, memcpy

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.numbers cimport BDAT_NOT_OFFERED, COMMAND_DENIED, FORM_NOOP, VERB_BDAT, VERB_UNKNOWN
from nfmailguard.cext.policy.ruling cimport CompiledPolicy, gates
from nfmailguard.cext.smtp.argument cimport put
from nfmailguard.cext.smtp.command_line cimport CommandLine
from nfmailguard.cext.smtp.name cimport NAME_BYTES, name_begins, upper
from nfmailguard.cext.smtp.outstanding cimport Exchange

cdef inline uint8_t find_verb(Context *context, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint8_t i
    cdef uint32_t four
    if length and data[0] == c".":
        return context.grammar.verb_dot
    if length == 0 or length > NAME_BYTES:
        return VERB_UNKNOWN
    i = context.grammar.first_of[data[0] & 31][length]
    if length == 4:                                # four letters, the usual length: compared in one step
        memcpy(&four, data, 4)
        while i and four & context.grammar.first_mask[i] != context.grammar.first_four[i]:
            i = context.grammar.next_of[i]
        return i
    while i and not name_begins(&context.grammar.verbs[i], data, length):
        i = context.grammar.next_of[i]
    return i

cdef inline bint verb_possible(Context *context, const Exchange *exchange, const uint8_t *data,
                               uint32_t length) noexcept nogil:
    # Whether an allowed verb begins with the bytes of `data`. A lone dot is possible only as a message's end
    # (CSCdk46673).
    cdef uint8_t i
    if length == 1 and data[0] == c".":
        return exchange.body_as_commands
    if context.policy.allow[VERB_UNKNOWN]:
        return True
    i = context.grammar.first_verb[upper(data[0])]
    while i:
        if context.policy.allow[i] and name_begins(&context.grammar.verbs[i], data, length):
            return True
        i = context.grammar.next_verb[i]
    return False

cdef inline uint8_t refusal(Context *context, const Exchange *exchange, uint8_t verb, uint32_t length) noexcept nogil:
    # The finding that keeps a verb of `length` bytes from passing, or 0. A word that begins with a dot never passes,
    # unless a message is read as commands and the word, a lone dot, ends it there.
    if verb == context.grammar.verb_dot:
        return 0 if exchange.body_as_commands and length == 1 else COMMAND_DENIED
    if not context.policy.allow[verb]:
        return COMMAND_DENIED
    if verb == VERB_BDAT and gates(context.policy) and (context.policy.seven_bits or not (
            context.session.offered_chunking and context.grammar.takes_chunk[context.session.state])):
        return BDAT_NOT_OFFERED
    return 0

cdef inline bint spelled_out(Context *context, const uint8_t *data, uint32_t length) noexcept nogil:
    # Whether the bytes are a whole verb that passes.
    cdef uint8_t verb = find_verb(context, data, length)
    return verb != VERB_UNKNOWN and context.policy.allow[verb]

cdef inline bint becomes_noop(const CompiledPolicy *policy, const uint8_t *data, uint32_t length) noexcept nogil:
    # Whether a denied verb of `length` bytes is made NOOP; not where a CR would stay in the middle of the word.
    return policy.unknown == FORM_NOOP and length >= 4 and memchr(data, c"\r", 4) == NULL

cdef inline void make_noop(Context *context, uint8_t *data, uint32_t length) noexcept nogil:
    cdef const char *noop = b"NOOP"
    cdef uint32_t i
    for i in range(length):
        put(context, data + i, noop[i] if i < 4 else c" ")

# Reports the finding of a verb that has been read. `rest`: what follows the verb in this segment, `length` bytes.
cdef uint8_t report_verb(Context *context, CommandLine *command, uint8_t finding, uint8_t verb, const uint8_t *rest,
                         uint32_t length) noexcept nogil
