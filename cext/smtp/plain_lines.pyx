# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Command lines as RFC 5321 4.1.2 writes them: a known verb that passes, its argument, CRLF, and nothing unusual.

Promises: such a line is read as ``command`` reads it byte by byte; any other line is left untouched. Illegal bytes of
an address become spaces, and nothing else is changed: a denied verb is read here only in monitor mode. Almost all
command lines are of this kind, and short lines cost most per byte, so a verb's properties are looked up only once.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memcpy

from nfmailguard.cext.policy.numbers cimport ACTION_BLANK, ADDRESS_ILLEGAL_CHARACTER, VERB_UNKNOWN
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.record cimport Record, ring_push
from nfmailguard.cext.smtp.argument cimport is_illegal, put
from nfmailguard.cext.smtp.redact cimport command_record, shown_of_words


cdef void tell(Context *context, uint8_t number, bint denied, const uint8_t *data, uint32_t verb, uint32_t end,
               uint64_t offset) noexcept nogil:
    cdef Record *record = command_record(context, number, offset, denied)
    if record == NULL:
        return
    if end == 4 and verb == 4 and number != context.grammar.verb_dot and number != VERB_UNKNOWN:
        record.before_length = 4                   # the usual case: a verb of four letters, without an argument
        memcpy(record.text, data, 4)
    elif number != VERB_UNKNOWN:
        record.before_length = <uint16_t> shown_of_words(context, number, data, verb, end, False, record.text)
    ring_push(context.ring)


cdef void blank_illegal(Context *context, uint8_t *data, uint32_t at, uint32_t end) noexcept nogil:
    cdef uint8_t bracket = 0
    if not applies(context.policy) or context.policy.action[ADDRESS_ILLEGAL_CHARACTER] != ACTION_BLANK:
        return
    while at < end:
        if is_illegal(context.policy.address_byte[data[at]], &bracket):
            put(context, data + at, c" ")
        at += 1
