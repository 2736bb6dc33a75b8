# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A message's two parts, header and body (RFC 5322 2.1): their octets, and the header's To fields.

Promises: counted as each line ends, line ends too, so that no segmentation changes a count; the
line that ends the message belongs to neither. Does not know MIME.
"""

from libc.string cimport memchr

from nfmailguard.cext.smtp cimport (
    ACTION_PASS,
    DATA_TOO_LONG,
    HEADER_TO_FIELDS_TOO_MANY,
    HEADER_TOO_LONG,
    report,
    upper,
)

cdef enum:
    CR = 13
    LF = 10
    NO_NAME = 4                        # Dialogue.part_name: the line does not begin with it
    REPORTED_HEADER = 1
    REPORTED_BODY = 2
    REPORTED_FIELDS = 4

cdef const char *NAME = b"TO:"


cdef inline void name_octet(Scene *scene, Dialogue *dialogue, uint8_t octet, uint64_t offset) noexcept nogil:
    if upper(octet) != <uint8_t> NAME[dialogue.part_name]:
        dialogue.part_name = NO_NAME
        return
    dialogue.part_name += 1
    if dialogue.part_name < 3:
        return
    dialogue.part_name = NO_NAME
    if dialogue.to_fields < 0xffff:
        dialogue.to_fields += 1
    if scene.ruling.to_fields and dialogue.to_fields > scene.ruling.to_fields and (
            not dialogue.part_reported & REPORTED_FIELDS):
        dialogue.part_reported |= REPORTED_FIELDS
        report(scene, HEADER_TO_FIELDS_TOO_MANY, True, 0, offset, NULL, 0, NULL, 0)


cdef void end_line(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef uint32_t limit = scene.ruling.body_length if dialogue.part_body else scene.ruling.header_length
    cdef uint8_t told = REPORTED_BODY if dialogue.part_body else REPORTED_HEADER
    dialogue.part_octets += dialogue.part_line + 1
    if limit and dialogue.part_octets > limit and not dialogue.part_reported & told:
        dialogue.part_reported |= told
        report(scene, DATA_TOO_LONG if dialogue.part_body else HEADER_TOO_LONG, True, 0, offset,
               NULL, 0, NULL, 0)
    if not dialogue.part_body and (dialogue.part_line == 0 or (dialogue.part_line == 1 and dialogue.part_cr)):
        dialogue.part_body = 1
        dialogue.part_octets = 0
    dialogue.part_line = 0
    dialogue.part_cr = 0
    dialogue.part_name = 0


cdef void part_octets(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t at, uint32_t length,
                      uint64_t offset, bint ended) noexcept nogil:
    cdef uint32_t stop
    cdef const uint8_t *end
    while at < length and scene.verdict == ACTION_PASS:
        end = <const uint8_t *> memchr(octets + at, LF, length - at)
        stop = <uint32_t> (end - octets) if end != NULL else length
        if ended and stop + 1 >= length:
            return                                 # the dot, and what ends it
        if dialogue.part_body:
            dialogue.part_line += stop - at
        else:
            while at < stop:
                if dialogue.part_line == 0:
                    dialogue.part_cr = octets[at] == CR
                if dialogue.part_name < NO_NAME:
                    name_octet(scene, dialogue, octets[at], offset + at)
                    if scene.verdict != ACTION_PASS:
                        return
                dialogue.part_line += 1
                at += 1
                if dialogue.part_name == NO_NAME:
                    dialogue.part_line += stop - at    # no other octet of the line matters
                    break
        if end == NULL:
            return
        end_line(scene, dialogue, offset + stop)
        at = stop + 1
