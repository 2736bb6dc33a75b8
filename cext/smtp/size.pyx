# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A message's two parts, header and body (RFC 5322 2.1): their octets, and the header's To fields.

Promises: counted as each line ends, line ends too, so that no segmentation changes a count; the
line that ends the message belongs to neither. Does not know MIME.
"""

from nfmailguard.cext.policy.findings cimport report
from nfmailguard.cext.policy.numbers cimport ACTION_PASS, DATA_TOO_LONG, HEADER_TOO_LONG, HEADER_TO_FIELDS_TOO_MANY
from nfmailguard.cext.smtp.name cimport upper

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept

cdef enum:
    CR = 13
    LF = 10
    NO_NAME = 4                        # Dialogue.part_name: the line does not begin with it
    REPORTED_HEADER = 1
    REPORTED_BODY = 2
    REPORTED_FIELDS = 4

cdef const char *NAME = b"TO:"


cdef inline void name_byte(Context *context, Dialogue *dialogue, uint8_t byte, uint64_t offset) noexcept nogil:
    if upper(byte) != <uint8_t> NAME[dialogue.part_name]:
        dialogue.part_name = NO_NAME
        return
    dialogue.part_name += 1
    if dialogue.part_name < 3:
        return
    dialogue.part_name = NO_NAME
    if dialogue.to_fields < 0xffff:
        dialogue.to_fields += 1
    if context.policy.to_fields and dialogue.to_fields > context.policy.to_fields and (
            not dialogue.part_reported & REPORTED_FIELDS):
        dialogue.part_reported |= REPORTED_FIELDS
        report(context, HEADER_TO_FIELDS_TOO_MANY, True, 0, offset, NULL, 0, NULL, 0)


cdef void end_line(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef uint32_t limit = context.policy.body_length if dialogue.part_body else context.policy.header_length
    cdef uint8_t recorded = REPORTED_BODY if dialogue.part_body else REPORTED_HEADER
    dialogue.part_bytes += dialogue.part_line + 1
    if limit and dialogue.part_bytes > limit and not dialogue.part_reported & recorded:
        dialogue.part_reported |= recorded
        report(context, DATA_TOO_LONG if dialogue.part_body else HEADER_TOO_LONG, True, 0, offset,
               NULL, 0, NULL, 0)
    if not dialogue.part_body and (dialogue.part_line == 0 or (dialogue.part_line == 1 and dialogue.part_cr)):
        dialogue.part_body = 1
        dialogue.part_bytes = 0
    dialogue.part_line = 0
    dialogue.part_cr = 0
    dialogue.part_name = 0


cdef void part_bytes(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset, bint ended) noexcept nogil:
    cdef uint32_t stop
    while at < length and context.verdict == ACTION_PASS:
        stop = at + nm_next_lf(data + at, length - at)
        if ended and stop + 1 >= length:
            return                                 # the dot, and what ends it
        if dialogue.part_body:
            dialogue.part_line += stop - at
        else:
            while at < stop:
                if dialogue.part_line == 0:
                    dialogue.part_cr = data[at] == CR
                if dialogue.part_name < NO_NAME:
                    name_byte(context, dialogue, data[at], offset + at)
                    if context.verdict != ACTION_PASS:
                        return
                dialogue.part_line += 1
                at += 1
                if dialogue.part_name == NO_NAME:
                    dialogue.part_line += stop - at    # no other octet of the line matters
                    break
        if stop == length:
            return
        end_line(context, dialogue, offset + stop)
        at = stop + 1
