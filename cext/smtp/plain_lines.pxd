# Command lines in the plain syntax of RFC 5321, with nothing unusual in them.
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

# The index of the CR of the CRLF that ends a line before data[stop], if no CR, LF or NUL comes between the verb, `verb`
# bytes long, and that CRLF; else 0.
cdef inline uint32_t plain_end(const uint8_t *data, uint32_t verb, uint32_t stop) noexcept nogil:
    cdef uint32_t end = verb
    if data[end] == c" ":
        end += 1
        end += nm_line_stop(data + end, stop - end, True)
    return end if end + 1 < stop and data[end] == c"\r" and data[end + 1] == c"\n" else 0

# Whether the address data[at:end] has no illegal byte, and its < and > alternate, beginning with a < (S-ASDM).
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

# Replaces the illegal bytes of the address data[at:end] with spaces, where the policy says so.
cdef void blank_illegal(Context *context, uint8_t *data, uint32_t at, uint32_t end) noexcept nogil

# Makes the event record, if any, of a line that has been read; its verb is `verb` bytes long, and it ends at `end`.
cdef void tell(Context *context, uint8_t number, bint denied, const uint8_t *data, uint32_t verb, uint32_t end,
               uint64_t offset) noexcept nogil

# At the end of a line whose verb is known: notes whether secrets may follow.
cdef inline void note_argument(Context *context, uint8_t number, uint16_t traits, const uint8_t *data, uint32_t verb,
                               uint32_t end) noexcept nogil:
    if traits & TRAIT_SECRET:
        note_secret_begun(context.session)
    elif traits & TRAIT_FREE and end > verb + 4:   # long enough for a SASL mechanism's name
        note_words(context, number, data, verb, end)
    else:
        note_secret_over(context.session)

# Notes what a command whose verb passes does to the session.
cdef inline void note_session(Context *context, Dialogue *dialogue, uint8_t number, uint16_t traits,
                              const uint8_t *argument, uint32_t length) noexcept nogil:
    cdef Session *session = context.session
    if traits & (TRAIT_UNREMARKABLE | TRAIT_WAITS) or number == VERB_RCPT:
        if number == VERB_NOOP:
            note_noop(session, True)
        return
    forget_chunks(&dialogue.text)
    if traits & TRAIT_ANEW:
        offer_chunking(session, False)               # until the reply to this command offers CHUNKING again
    if traits & TRAIT_SENDER:
        note_seven_bits(session, says_seven_bits(argument, length, 0))

# Whether one more recipient, or a sender's argument of this length, is within the policy's limits.
cdef inline bint is_within(Context *context, uint8_t number, uint32_t length) noexcept nogil:
    cdef const CompiledPolicy *policy = context.policy
    if number == VERB_RCPT:
        if policy.recipients and context.session.recipients >= policy.recipients:
            return False
    elif policy.sender_length and length > policy.sender_length:
        return False                               # the address has to be measured byte by byte
    return True

# Where a command line begins in the segment, and where it lies in the client's stream.
cdef struct Start:
    uint8_t *data
    uint64_t offset            # client stream offset of the line's first byte
    uint32_t verb              # bytes before the first space or control byte: the verb
    uint32_t stop              # the line has to end before data[stop] to be read here
    uint8_t number             # the verb's number; VERB_UNKNOWN: no verb

# Reads a command line in one step if it ends with CRLF before data[stop], its verb passes, nothing in it is unusual but
# illegal bytes in an address, and no finding about it would be logged. Returns its length in bytes; 0: it was not read.
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
        return 0                                   # message text may begin right after this command (CSCdr91002)
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
