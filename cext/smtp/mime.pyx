# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""File names in the headers of a message and of its parts (RFC 2045 5.1, RFC 2183 2.3, RFC 2231 3).

Promises: decided octet by octet, so that no segmentation hides one; a few octets of memory a
flow. Where a part begins is taken from any line that begins with two dashes (RFC 2046 5.1.1):
more lines are read as a header than are one, never fewer. Does not know transfer encodings.
"""

from libc.string cimport memchr, memcmp

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
        dialogue.mime_count = 0                    # RFC 2231 3: the sections of one value count together
    dialogue.mime = MIME_BEFORE_VALUE


cdef inline void count_byte(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    if not dialogue.mime_counting:
        return
    dialogue.mime_count += 1
    if dialogue.mime_count > context.policy.filename_length and not dialogue.mime_reported:
        dialogue.mime_reported = 1
        report(context, MIME_FILENAME_TOO_LONG, True, 0, offset, NULL, 0, NULL, 0)


cdef void field_byte(Dialogue *dialogue, uint8_t byte) noexcept nogil:
    cdef uint8_t at = dialogue.mime_count          # octets of the name so far
    if byte == COLON or blank(byte):
        if not ((dialogue.mime_which & TYPE and at == 12) or (dialogue.mime_which & DISPOSITION and at == 19)):
            dialogue.mime = MIME_NOTHING
        else:
            dialogue.mime = MIME_SKIP if byte == COLON else MIME_BEFORE_COLON
        dialogue.mime_count = 0
        return
    if at >= 12 or <uint8_t> CONTENT_TYPE[at] != lower(byte):
        dialogue.mime_which &= ~TYPE
    if at >= 19 or <uint8_t> CONTENT_DISPOSITION[at] != lower(byte):
        dialogue.mime_which &= ~DISPOSITION
    dialogue.mime_count += 1
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


cdef void mime_bytes(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset) noexcept nogil:
    cdef uint8_t byte
    cdef const uint8_t *end
    while at < length:
        byte = data[at]
        if byte == LF:
            if dialogue.mime_line == LINE_START:
                dialogue.mime_header = 0           # RFC 5322 2.1: an empty line ends a header
            dialogue.mime_line = LINE_START
        elif byte == CR:
            pass
        elif dialogue.mime_line == LINE_REST and (not dialogue.mime_header or dialogue.mime == MIME_NOTHING):
            end = <const uint8_t *> memchr(data + at, LF, length - at)
            if end == NULL:
                return
            at = <uint32_t> (end - data)
            continue
        else:
            if dialogue.mime_line == LINE_START:
                if dialogue.mime_header and not blank(byte):
                    dialogue.mime = MIME_FIELD
                    dialogue.mime_which = TYPE | DISPOSITION
                    dialogue.mime_count = 0
                    dialogue.mime_reported = 0
                elif dialogue.mime_header and (dialogue.mime == MIME_FIELD):
                    dialogue.mime = MIME_NOTHING   # a name does not go on in another line
                dialogue.mime_line = LINE_DASH if byte == DASH else LINE_REST
            elif dialogue.mime_line == LINE_DASH:
                dialogue.mime_line = LINE_REST
                if byte == DASH:
                    dialogue.mime_header = 1
                    dialogue.mime = MIME_NOTHING
            if dialogue.mime_header and dialogue.mime != MIME_NOTHING:
                parameter_byte(context, dialogue, byte, offset + at)
                if context.verdict != ACTION_PASS:
                    return
        at += 1
