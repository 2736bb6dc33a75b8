# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""File names in the headers of a message and of its parts (RFC 2045 5.1, RFC 2183 2.3, RFC 2231 3).

Promises: decided octet by octet, so that no segmentation hides one; a few octets of memory a
flow. Where a part begins is taken from any line that begins with two dashes (RFC 2046 5.1.1):
more lines are read as a header than are one, never fewer. Does not know transfer encodings.
"""

from libc.string cimport memcmp

from nfmailguard.cext.policy.findings cimport report
from nfmailguard.cext.policy.numbers cimport ACTION_PASS, MIME_FILENAME_TOO_LONG

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32
    TAB = 9
    QUOTE = 34
    STAR = 42
    DASH = 45
    COLON = 58
    SEMICOLON = 59
    EQUALS = 61
    BACKSLASH = 92

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept

cdef enum Mime:                        # what the next octet of a header's field belongs to
    MIME_NOTHING = 0                   # a field that is not looked at
    MIME_FIELD                         # the field's name
    MIME_BEFORE_COLON
    MIME_SKIP                          # what stands in front of the next parameter
    MIME_SKIP_QUOTED
    MIME_SKIP_ESCAPED
    MIME_BEFORE_NAME
    MIME_NAME
    MIME_AFTER_NAME
    MIME_BEFORE_VALUE
    MIME_TOKEN
    MIME_QUOTED
    MIME_ESCAPED

cdef enum Line:                        # where in its line
    LINE_START = 0
    LINE_DASH = 1                      # behind a dash at its start
    LINE_REST = 2

cdef enum:
    TYPE = 1                           # bits of Dialogue.mime_which: names the field may still have
    DISPOSITION = 2
    STARRED = 0x80                     # of Dialogue.mime_name_length: RFC 2231, behind the name

cdef const char *CONTENT_TYPE = b"content-type"

cdef const char *CONTENT_DISPOSITION = b"content-disposition"


cdef inline uint8_t lower(uint8_t byte) noexcept nogil:
    return byte + 32 if 65 <= byte <= 90 else byte


cdef inline bint blank(uint8_t byte) noexcept nogil:
    return byte == SPACE or byte == TAB


cdef bint is_filename(Dialogue *dialogue) noexcept nogil:
    cdef uint8_t length = dialogue.mime_name_length & ~STARRED
    return (length == 8 and memcmp(dialogue.mime_name, b"filename", 8) == 0) or (
        length == 4 and memcmp(dialogue.mime_name, b"name", 4) == 0)


cdef void name_byte(Dialogue *dialogue, uint8_t byte) noexcept nogil:
    if dialogue.mime_name_length & STARRED:
        return
    if byte == STAR:
        dialogue.mime_name_length |= STARRED
    elif dialogue.mime_name_length < 8:
        dialogue.mime_name[dialogue.mime_name_length] = lower(byte)
        dialogue.mime_name_length += 1
    else:
        dialogue.mime_name_length = 9              # too long for any of ours


cdef void begin_value(Dialogue *dialogue) noexcept nogil:
    dialogue.mime_counting = is_filename(dialogue)
    if dialogue.mime_counting and not dialogue.mime_name_length & STARRED:
        dialogue.counted = 0                    # RFC 2231 3: the sections of one value count together
    dialogue.mime = MIME_BEFORE_VALUE


cdef inline void count_byte(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    if not dialogue.mime_counting:
        return
    dialogue.counted += 1
    if dialogue.counted > context.policy.filename_length and not dialogue.mime_reported:
        dialogue.mime_reported = 1
        report(context, MIME_FILENAME_TOO_LONG, True, 0, offset, NULL, 0, NULL, 0)


cdef void field_byte(Dialogue *dialogue, uint8_t byte) noexcept nogil:
    cdef uint8_t at = dialogue.counted          # octets of the name so far
    if byte == COLON or blank(byte):
        if not ((dialogue.mime_which & TYPE and at == 12) or (dialogue.mime_which & DISPOSITION and at == 19)):
            dialogue.mime = MIME_NOTHING
        else:
            dialogue.mime = MIME_SKIP if byte == COLON else MIME_BEFORE_COLON
        dialogue.counted = 0
        return
    if at >= 12 or <uint8_t> CONTENT_TYPE[at] != lower(byte):
        dialogue.mime_which &= ~TYPE
    if at >= 19 or <uint8_t> CONTENT_DISPOSITION[at] != lower(byte):
        dialogue.mime_which &= ~DISPOSITION
    dialogue.counted += 1
    if dialogue.mime_which == 0:
        dialogue.mime = MIME_NOTHING


cdef void parameter_byte(Context *context, Dialogue *dialogue, uint8_t byte, uint64_t offset) noexcept nogil:
    cdef uint8_t state = dialogue.mime
    if state == MIME_FIELD:
        field_byte(dialogue, byte)
    elif state == MIME_BEFORE_COLON:
        if byte == COLON:
            dialogue.mime = MIME_SKIP
        elif not blank(byte):
            dialogue.mime = MIME_NOTHING
    elif state == MIME_SKIP:
        if byte == SEMICOLON:
            dialogue.mime = MIME_BEFORE_NAME
        elif byte == QUOTE:
            dialogue.mime = MIME_SKIP_QUOTED
    elif state == MIME_SKIP_QUOTED:
        if byte == BACKSLASH:
            dialogue.mime = MIME_SKIP_ESCAPED
        elif byte == QUOTE:
            dialogue.mime = MIME_SKIP
    elif state == MIME_SKIP_ESCAPED:
        dialogue.mime = MIME_SKIP_QUOTED
    elif state == MIME_BEFORE_NAME:
        if byte == EQUALS:
            dialogue.mime = MIME_SKIP
        elif byte != SEMICOLON and not blank(byte):
            dialogue.mime = MIME_NAME
            dialogue.mime_name_length = 0
            name_byte(dialogue, byte)
    elif state == MIME_NAME or state == MIME_AFTER_NAME:
        if byte == EQUALS:
            begin_value(dialogue)
        elif byte == SEMICOLON:
            dialogue.mime = MIME_BEFORE_NAME
        elif blank(byte):
            dialogue.mime = MIME_AFTER_NAME
        elif state == MIME_AFTER_NAME:
            dialogue.mime = MIME_SKIP
        else:
            name_byte(dialogue, byte)
    elif state == MIME_BEFORE_VALUE:
        if byte == QUOTE:
            dialogue.mime = MIME_QUOTED
        elif byte == SEMICOLON:
            dialogue.mime = MIME_BEFORE_NAME
        elif not blank(byte):
            dialogue.mime = MIME_TOKEN
            count_byte(context, dialogue, offset)
    elif state == MIME_TOKEN:
        if byte == SEMICOLON:
            dialogue.mime = MIME_BEFORE_NAME
        elif blank(byte):
            dialogue.mime = MIME_SKIP
        else:
            count_byte(context, dialogue, offset)
    elif state == MIME_QUOTED:
        if byte == QUOTE:
            dialogue.mime = MIME_SKIP
            return
        if byte == BACKSLASH:
            dialogue.mime = MIME_ESCAPED
        count_byte(context, dialogue, offset)
    elif state == MIME_ESCAPED:
        dialogue.mime = MIME_QUOTED
        count_byte(context, dialogue, offset)


cdef inline bint spells(const uint8_t *data, const char *name, uint32_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(length):
        if lower(data[i]) != <uint8_t> name[i]:
            return False
    return True


cdef uint32_t field_name(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    """How many of the line's first bytes are the name of a field of ours; they are read, as by ``field_byte``."""
    cdef uint32_t size = 0
    if length >= 19 and spells(data, CONTENT_DISPOSITION, 19):
        size = 19
        dialogue.mime_which = DISPOSITION
    elif length >= 12 and spells(data, CONTENT_TYPE, 12):
        size = 12
        dialogue.mime_which = TYPE
    dialogue.counted = size
    return size


cdef uint32_t begin_line(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    """Reads a line's beginning, if that can be told at once; how much of it."""
    cdef uint8_t byte = data[0]
    dialogue.mime_line = LINE_DASH if byte == DASH else LINE_REST
    if dialogue.mime_header and not blank(byte):
        dialogue.mime = MIME_FIELD if lower(byte) == c"c" else MIME_NOTHING    # no other field is ours
        dialogue.mime_which = TYPE | DISPOSITION
        dialogue.mime_reported = 0
        return field_name(dialogue, data, length) if dialogue.mime == MIME_FIELD else 0
    if dialogue.mime_header and dialogue.mime == MIME_FIELD:
        dialogue.mime = MIME_NOTHING               # a name does not go on in another line
    return 0


cdef uint32_t rest_of_line(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t at, uint32_t length,
                           uint64_t offset) noexcept nogil:
    """Reads up to the line's end."""
    if dialogue.mime_header:
        while dialogue.mime != MIME_NOTHING and at < length and data[at] != LF and context.verdict == ACTION_PASS:
            if data[at] != CR:
                parameter_byte(context, dialogue, data[at], offset + at)
            at += 1
    if dialogue.mime_header and dialogue.mime != MIME_NOTHING:
        return at
    return at + nm_next_lf(data + at, length - at)


cdef void mime_bytes(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset) noexcept nogil:
    cdef uint8_t byte
    cdef uint32_t run
    while at < length and context.verdict == ACTION_PASS:
        byte = data[at]
        if byte == LF:
            if dialogue.mime_line == LINE_START:
                dialogue.mime_header = 0           # RFC 5322 2.1: an empty line ends a header
            dialogue.mime_line = LINE_START
            at += 1
        elif dialogue.mime_line == LINE_REST:
            at = rest_of_line(context, dialogue, data, at, length, offset)
        elif byte == CR:
            at += 1
        elif dialogue.mime_line == LINE_START:
            run = begin_line(dialogue, data + at, length - at)
            at += run
            if run == 0:
                if dialogue.mime_header and dialogue.mime != MIME_NOTHING:
                    parameter_byte(context, dialogue, byte, offset + at)
                at += 1
        else:
            dialogue.mime_line = LINE_REST         # behind a dash
            if byte == DASH:
                dialogue.mime_header = 1
                dialogue.mime = MIME_NOTHING
            elif dialogue.mime_header and dialogue.mime != MIME_NOTHING:
                parameter_byte(context, dialogue, byte, offset + at)
            at += 1
