# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Command lines as RFC 5321 4.1.2 writes them: a verb that is known and passes, its argument, CRLF, and nothing odd.

Promises: such a line is read as ``command`` reads it byte by byte, and not one byte is changed; any other is left as
it was. Nearly all lines are such lines, and short ones are what costs most a byte: what has to be known of a verb is
looked up once.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memcpy

from nfmailguard.cext.policy.numbers cimport VERB_RCPT, VERB_UNKNOWN
from nfmailguard.cext.policy.ruling cimport ADDRESS_CLOSES, ADDRESS_OPENS, CompiledPolicy
from nfmailguard.cext.record cimport Record, ring_push
from nfmailguard.cext.smtp.grammar cimport TRAIT_ADDRESS, TRAIT_PLAIN, TRAIT_RECORDED, TRAIT_WAITS
from nfmailguard.cext.smtp.outstanding cimport expect_reply, untold_of
from nfmailguard.cext.smtp.redact cimport command_record, shown_of_words
from nfmailguard.cext.smtp.reply_effects cimport note_asked


cdef void tell(Context *context, uint8_t number, bint denied, const uint8_t *data, uint32_t verb, uint32_t end,
               uint64_t offset) noexcept nogil:
    cdef Record *record = command_record(context, number, offset, denied)
    if record == NULL:
        return
    if end == 4 and verb == 4 and number != context.grammar.verb_dot and number != VERB_UNKNOWN:
        record.before_length = 4                   # as nearly all that are a verb and nothing else
        memcpy(record.text, data, 4)
    elif number != VERB_UNKNOWN:
        record.before_length = <uint16_t> shown_of_words(context, number, data, verb, end, False, record.text)
    ring_push(context.ring)


cdef inline bint is_plain_address(const CompiledPolicy *policy, const uint8_t *data, uint32_t length) noexcept nogil:
    """Whether no byte is illegal, each < stands before a > and each > behind a < (S-ASDM)."""
    cdef uint32_t i
    cdef uint8_t kind
    cdef uint8_t bracket = ADDRESS_OPENS
    for i in range(length):
        kind = policy.address_byte[data[i]]
        if kind:
            if kind != bracket:
                return False
            bracket ^= ADDRESS_OPENS | ADDRESS_CLOSES
    return True


cdef inline bint is_within(Context *context, uint8_t number, const uint8_t *data, uint32_t verb,
                           uint32_t end) noexcept nogil:
    """Whether its address is within what the policy allows."""
    cdef const CompiledPolicy *policy = context.policy
    if number == VERB_RCPT:
        if policy.recipients and context.session.recipients >= policy.recipients:
            return False
    elif policy.sender_length and end - verb > policy.sender_length:
        return False                               # it has to be measured
    return end == verb or is_plain_address(policy, data + verb + 1, end - verb - 1)


cdef uint32_t plain_line(Context *context, Dialogue *dialogue, LineRules *rules, const uint8_t *data, uint32_t verb,
                         uint8_t number, uint32_t stop, uint64_t offset) noexcept nogil:
    cdef uint16_t traits = context.grammar.traits[number]
    cdef uint32_t end
    if not traits & TRAIT_PLAIN or not context.policy.allow[number]:
        return 0
    if traits & TRAIT_WAITS and context.policy.bug_data_bypass and context.policy.apply:
        return 0                                   # a message may begin with it
    end = plain_end(data, verb, stop)
    if end == 0:
        return 0
    if traits & TRAIT_ADDRESS and not is_within(context, number, data, verb, end):
        return 0
    context.session.recipients += number == VERB_RCPT
    if traits & TRAIT_RECORDED:
        context.session.found |= rules.found
        rules.found = 0
        if untold_of(context, number):
            context.omitted[0] += 1
        else:
            tell(context, number, False, data, verb, end, offset)
    note_argument(context, number, traits, data, verb, end)
    note_asked(context.session, dialogue, number, data, verb)
    note_session(context, dialogue, number, traits, data + verb, end - verb)
    if expect_reply(context, dialogue, number, offset + end + 1) and traits & TRAIT_WAITS:
        dialogue.verb = VERB_UNKNOWN
        dialogue.waiting = dialogue.count
    return end + 2
