# Command lines with nothing odd about them.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context, omit_records
from nfmailguard.cext.policy.numbers cimport VERB_NOOP, VERB_RCPT
from nfmailguard.cext.policy.ruling cimport ADDRESS_CLOSES, ADDRESS_OPENS, CompiledPolicy, applies
from nfmailguard.cext.smtp.argument cimport says_seven_bits
from nfmailguard.cext.smtp.command_line cimport forget_verb
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.grammar cimport (
    TRAIT_ADDRESS, TRAIT_ANEW, TRAIT_FREE, TRAIT_PLAIN, TRAIT_RECORDED, TRAIT_SECRET, TRAIT_SENDER,
    TRAIT_UNREMARKABLE, TRAIT_WAITS,
)
from nfmailguard.cext.smtp.outstanding cimport Exchange, expect_reply, untold_of, wait_for_replies
from nfmailguard.cext.smtp.redact cimport note_words
from nfmailguard.cext.smtp.reply_effects cimport note_asked
from nfmailguard.cext.smtp.runs cimport KIND_DENIED, KIND_ILLEGAL, LineRules, found, tell_found, untold
from nfmailguard.cext.smtp.session cimport (
    Session, add_recipients, note_noop, note_secret_begun, note_secret_over, note_seven_bits, offer_chunking,
)
from nfmailguard.cext.smtp.text cimport forget_chunks

cdef extern from "scan.h" nogil:
    uint32_t nm_line_stop(const uint8_t *p, uint32_t length, bint nul) noexcept

# Where the CR of the CRLF stands that ends a line, before data[stop], with nothing odd behind its `verb` bytes; or 0.
cdef inline uint32_t plain_end(const uint8_t *data, uint32_t verb, uint32_t stop) noexcept nogil:
    cdef uint32_t end = verb
    if data[end] == c" ":
        end += 1
        end += nm_line_stop(data + end, stop - end, True)
    return end if end + 1 < stop and data[end] == c"\r" and data[end + 1] == c"\n" else 0

# Whether no byte of an address, which data[at:end] is, is illegal, each < stands before a > and each > behind a <
# (S-ASDM).
cdef inline bint is_plain_address(const CompiledPolicy *policy, const uint8_t *data, uint32_t at,
                                  uint32_t end) noexcept nogil:
    cdef uint8_t kind
    cdef uint8_t bracket = ADDRESS_OPENS
    while at < end:
        kind = policy.address_byte[data[at]]
        if kind:
            if kind != bracket:
                return False
            bracket ^= ADDRESS_OPENS | ADDRESS_CLOSES
        at += 1
    return True

# Makes spaces of those that are, where the policy has it so.
cdef void blank_illegal(Context *context, uint8_t *data, uint32_t at, uint32_t end) noexcept nogil

# A line has been read whose verb is `verb` bytes long, and which ends at `end`: its record, if it is told of.
cdef void tell(Context *context, uint8_t number, bint denied, const uint8_t *data, uint32_t verb, uint32_t end,
               uint64_t offset) noexcept nogil

# At the end of a line whose verb is known: whether what follows may be secret.
cdef inline void note_argument(Context *context, uint8_t number, uint16_t traits, const uint8_t *data, uint32_t verb,
                               uint32_t end) noexcept nogil:
    if traits & TRAIT_SECRET:
        note_secret_begun(context.session)
    elif traits & TRAIT_FREE and end > verb + 4:   # no mechanism is shorter
        note_words(context, number, data, verb, end)
    else:
        note_secret_over(context.session)

# And what it does to the session, where the verb passes.
cdef inline void note_session(Context *context, Dialogue *dialogue, uint8_t number, uint16_t traits,
                              const uint8_t *argument, uint32_t length) noexcept nogil:
    cdef Session *session = context.session
    if traits & (TRAIT_UNREMARKABLE | TRAIT_WAITS) or number == VERB_RCPT:
        if number == VERB_NOOP:
            note_noop(session, True)
        return
    forget_chunks(&dialogue.text)
    if traits & TRAIT_ANEW:
        offer_chunking(session, False)               # until this one's reply offers it
    if traits & TRAIT_SENDER:
        note_seven_bits(session, says_seven_bits(argument, length, 0))

# Whether its argument is within what the policy allows.
cdef inline bint is_within(Context *context, uint8_t number, uint32_t length) noexcept nogil:
    cdef const CompiledPolicy *policy = context.policy
    if number == VERB_RCPT:
        if policy.recipients and context.session.recipients >= policy.recipients:
            return False
    elif policy.sender_length and length > policy.sender_length:
        return False                               # it has to be measured
    return True

# A line that begins in a segment.
cdef struct Start:
    uint8_t *data
    uint64_t offset            # of its first byte in its direction
    uint32_t verb              # bytes of it that are no space, CR or LF
    uint32_t stop              # it has to end before data[stop]
    uint8_t number             # the verb that those bytes are

# Reads the line, if it ends with CRLF before data[stop], passes,
# has nothing odd but illegal characters in an address, and nobody is told of anything; how many bytes of it there are,
# or 0.
cdef inline uint32_t plain_line(Context *context, Dialogue *dialogue, LineRules *rules,
                                const Start *start) noexcept nogil:
    cdef uint8_t *data = start.data
    cdef uint32_t verb = start.verb
    cdef uint8_t number = start.number
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint16_t traits = context.grammar.traits[number]
    cdef uint32_t end
    cdef bint illegal = False
    cdef bint denied = not context.policy.allow[number]
    if not traits & TRAIT_PLAIN or (denied and (applies(context.policy) or not untold(context, rules, KIND_DENIED, 1))):
        return 0
    if traits & TRAIT_WAITS and context.policy.bug_data_bypass and applies(context.policy):
        return 0                                   # a message may begin with it
    end = plain_end(data, verb, start.stop)
    if end == 0:
        return 0
    if traits & TRAIT_ADDRESS:
        if not is_within(context, number, end - verb):
            return 0
        illegal = not is_plain_address(context.policy, data, verb + 1, end)
        if illegal:
            if not untold(context, rules, KIND_ILLEGAL, 1):
                return 0
            found(rules, KIND_ILLEGAL, 1)
    if denied:
        found(rules, KIND_DENIED, 1)
    add_recipients(context.session, number == VERB_RCPT)
    if traits & TRAIT_RECORDED:
        tell_found(context, rules)
        if untold_of(context, number):
            omit_records(context, 1)
        else:
            tell(context, number, False, data, verb, end, start.offset)
    note_argument(context, number, traits, data, verb, end)
    note_asked(context.session, &dialogue.reply, number, data, verb)
    note_session(context, dialogue, number, traits, data + verb, end - verb)
    if illegal:
        blank_illegal(context, data, verb + 1, end)
    if expect_reply(context, exchange, number, start.offset + end + 1) and traits & TRAIT_WAITS:
        forget_verb(&dialogue.command)
        wait_for_replies(exchange)
    return end + 2
