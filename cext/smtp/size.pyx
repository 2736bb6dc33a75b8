# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A message's two parts, header and body (RFC 5322 2.1): their sizes in bytes, and the header's To fields.

Promises: sizes grow at each line end, line ends included, so that no segmentation changes a count; the line with the
dot that ends the message belongs to neither part. Does not know MIME.
"""

from nfmailguard.cext.policy.findings cimport report
from nfmailguard.cext.policy.numbers cimport ACTION_PASS, DATA_TOO_LONG, HEADER_TOO_LONG, HEADER_TO_FIELDS_TOO_MANY
from nfmailguard.cext.smtp.name cimport upper

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept

cdef enum:
    CR = 13
    LF = 10

cdef enum FieldName:                   # values of Parts.name besides 0 to 3, the bytes of "To:" matched
    NO_NAME = 4                        # the line does not begin with "To:"
    NO_NAME_CR = 5                     # the line does not begin with "To:", but with a CR

cdef enum Marks:                       # bits of Parts.marks: findings already made in this message, and IN_BODY
    REPORTED_HEADER = 1
    REPORTED_BODY = 2
    REPORTED_FIELDS = 4
    IN_BODY = 8                        # the header has ended: lines belong to the body

cdef const char *NAME = b"TO:"


cdef inline void name_byte(Context *context, Parts *parts, uint8_t byte, uint64_t offset) noexcept nogil:
    if upper(byte) != <uint8_t> NAME[parts.name]:
        parts.name = NO_NAME_CR if byte == CR and parts.name == 0 else NO_NAME
        return
    parts.name += 1
    if parts.name < 3:
        return
    parts.name = NO_NAME
    if parts.to_fields < 0xffff:
        parts.to_fields += 1
    if context.policy.to_fields and parts.to_fields > context.policy.to_fields and (
            not parts.marks & REPORTED_FIELDS):
        parts.marks |= REPORTED_FIELDS
        report(context, HEADER_TO_FIELDS_TOO_MANY, True, 0, offset)


cdef void end_line(Context *context, Parts *parts, uint64_t offset) noexcept nogil:
    cdef bint body = parts.marks & IN_BODY != 0
    cdef uint32_t limit = context.policy.body_length if body else context.policy.header_length
    cdef uint8_t recorded = REPORTED_BODY if body else REPORTED_HEADER
    parts.bytes += parts.line + 1
    if limit and parts.bytes > limit and not parts.marks & recorded:
        parts.marks |= recorded
        report(context, DATA_TOO_LONG if body else HEADER_TOO_LONG, True, 0, offset)
    if not body and (parts.line == 0 or (parts.line == 1 and parts.name == NO_NAME_CR)):
        parts.marks |= IN_BODY
        parts.bytes = 0
    parts.line = 0
    parts.name = 0


cdef void part_bytes(Context *context, Parts *parts, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset, bint ended) noexcept nogil:
    cdef uint32_t stop
    while at < length and context.verdict == ACTION_PASS:
        stop = at + nm_next_lf(data + at, length - at)
        if ended and stop + 1 >= length:
            return                                 # the message's final line, a dot, is not counted
        if parts.marks & IN_BODY:
            parts.line += stop - at
        else:
            while at < stop:
                if parts.name < NO_NAME:
                    name_byte(context, parts, data[at], offset + at)
                    if context.verdict != ACTION_PASS:
                        return
                parts.line += 1
                at += 1
                if parts.name >= NO_NAME:
                    parts.line += stop - at    # the name is not one we count: the rest of this header line is skipped
                    break
        if stop == length:
            return
        end_line(context, parts, offset + stop)
        at = stop + 1
