# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""File names in the headers of a message and of its MIME parts (RFC 2045 5.1, RFC 2183 2.3, RFC 2231 3).

Promises: decided byte by byte, so that no segmentation hides a file name, with a few bytes of memory per flow. Any
line that begins with two dashes is taken for the beginning of a MIME part (RFC 2046 5.1.1): lines may be read as part
of a header that are not, but no header line is missed. Does not know transfer encodings.
"""

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

cdef enum MimeState:                       # what the next byte of a header field belongs to
    MIME_NOTHING = 0                   # a field, or the rest of one, that is not checked
    MIME_FIELD                         # the header field's name
    MIME_BEFORE_COLON
    MIME_SKIP                          # what comes before the field's next parameter
    MIME_SKIP_QUOTED
    MIME_SKIP_ESCAPED
    MIME_BEFORE_NAME
    MIME_NAME
    MIME_AFTER_NAME
    MIME_BEFORE_VALUE
    MIME_TOKEN
    MIME_QUOTED
    MIME_ESCAPED

cdef enum MimeLine:                       # MimeLine: the position in the line
    LINE_START = 0
    LINE_DASH = 1                      # after a dash at the line's start
    LINE_REST = 2

cdef enum:
    TYPE = 1                           # bits of Mime.which: names the field may still have
    DISPOSITION = 2
    FILENAME = 4                       # bits of Mime.which: names the field's parameter may still have
    NAME = 8
    LONG_NAME = 9                      # longer than "filename" and "name": not counted further

cdef const char *CONTENT_TYPE = b"content-type"

cdef const char *CONTENT_DISPOSITION = b"content-disposition"

cdef const char *FILENAME_PARAMETER = b"filename"

cdef const char *NAME_PARAMETER = b"name"


cdef inline uint8_t lower(uint8_t byte) noexcept nogil:
    return byte + 32 if 65 <= byte <= 90 else byte


cdef inline bint blank(uint8_t byte) noexcept nogil:
    return byte == SPACE or byte == TAB


cdef bint is_filename(Mime *mime) noexcept nogil:
    return (mime.which & FILENAME and mime.name_length == 8) or (mime.which & NAME and mime.name_length == 4)


cdef void name_byte(Mime *mime, uint8_t byte) noexcept nogil:
    cdef uint8_t at = mime.name_length
    if mime.starred:
        return
    if byte == STAR:
        mime.starred = 1
        return
    if at >= 8 or <uint8_t> FILENAME_PARAMETER[at] != lower(byte):
        mime.which &= ~FILENAME
    if at >= 4 or <uint8_t> NAME_PARAMETER[at] != lower(byte):
        mime.which &= ~NAME
    if at < LONG_NAME:
        mime.name_length += 1


cdef void begin_value(Mime *mime) noexcept nogil:
    mime.counting = is_filename(mime)
    if mime.counting and not mime.starred:
        mime.counted = 0  # RFC 2231 3: the sections of one value (name*0, name*1) are counted together
    mime.state = MIME_BEFORE_VALUE


cdef inline void count_byte(Context *context, Mime *mime, uint64_t offset) noexcept nogil:
    if not mime.counting:
        return
    mime.counted += 1
    if mime.counted > context.policy.filename_length and not mime.reported:
        mime.reported = 1
        report(context, MIME_FILENAME_TOO_LONG, True, 0, offset)


cdef void field_byte(Mime *mime, uint8_t byte) noexcept nogil:
    cdef uint8_t at = mime.counted          # bytes of the header field's name so far
    if byte == COLON or blank(byte):
        if not ((mime.which & TYPE and at == 12) or (mime.which & DISPOSITION and at == 19)):
            mime.state = MIME_NOTHING
        else:
            mime.state = MIME_SKIP if byte == COLON else MIME_BEFORE_COLON
        mime.counted = 0
        return
    if at >= 12 or <uint8_t> CONTENT_TYPE[at] != lower(byte):
        mime.which &= ~TYPE
    if at >= 19 or <uint8_t> CONTENT_DISPOSITION[at] != lower(byte):
        mime.which &= ~DISPOSITION
    mime.counted += 1
    if mime.which == 0:
        mime.state = MIME_NOTHING


cdef void before_parameter(Mime *mime, uint8_t byte) noexcept nogil:
    """Reads a byte of a header field that comes before the names of its parameters."""
    cdef uint8_t state = mime.state
    if state == MIME_FIELD:
        field_byte(mime, byte)
    elif state == MIME_BEFORE_COLON:
        if byte == COLON:
            mime.state = MIME_SKIP
        elif not blank(byte):
            mime.state = MIME_NOTHING
    elif state == MIME_SKIP:
        if byte == SEMICOLON:
            mime.state = MIME_BEFORE_NAME
        elif byte == QUOTE:
            mime.state = MIME_SKIP_QUOTED
    elif state == MIME_SKIP_QUOTED:
        if byte == BACKSLASH:
            mime.state = MIME_SKIP_ESCAPED
        elif byte == QUOTE:
            mime.state = MIME_SKIP
    elif state == MIME_SKIP_ESCAPED:
        mime.state = MIME_SKIP_QUOTED
    elif state == MIME_BEFORE_NAME:
        if byte == EQUALS:
            mime.state = MIME_SKIP
        elif byte != SEMICOLON and not blank(byte):
            mime.state = MIME_NAME
            mime.which = FILENAME | NAME
            mime.name_length = mime.starred = 0
            name_byte(mime, byte)


cdef void parameter_byte(Context *context, Mime *mime, uint8_t byte, uint64_t offset) noexcept nogil:
    cdef uint8_t state = mime.state
    if state <= MIME_BEFORE_NAME:
        before_parameter(mime, byte)
    elif state == MIME_NAME or state == MIME_AFTER_NAME:
        if byte == EQUALS:
            begin_value(mime)
        elif byte == SEMICOLON:
            mime.state = MIME_BEFORE_NAME
        elif blank(byte):
            mime.state = MIME_AFTER_NAME
        elif state == MIME_AFTER_NAME:
            mime.state = MIME_SKIP
        else:
            name_byte(mime, byte)
    elif state == MIME_BEFORE_VALUE:
        if byte == QUOTE:
            mime.state = MIME_QUOTED
        elif byte == SEMICOLON:
            mime.state = MIME_BEFORE_NAME
        elif not blank(byte):
            mime.state = MIME_TOKEN
            count_byte(context, mime, offset)
    elif state == MIME_TOKEN:
        if byte == SEMICOLON:
            mime.state = MIME_BEFORE_NAME
        elif blank(byte):
            mime.state = MIME_SKIP
        else:
            count_byte(context, mime, offset)
    elif state == MIME_QUOTED:
        if byte == QUOTE:
            mime.state = MIME_SKIP
            return
        if byte == BACKSLASH:
            mime.state = MIME_ESCAPED
        count_byte(context, mime, offset)
    elif state == MIME_ESCAPED:
        mime.state = MIME_QUOTED
        count_byte(context, mime, offset)


cdef inline bint spells(const uint8_t *data, const char *name, uint32_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(length):
        if lower(data[i]) != <uint8_t> name[i]:
            return False
    return True


cdef uint32_t field_name(Mime *mime, const uint8_t *data, uint32_t length) noexcept nogil:
    """How many of the line's first bytes are Content-Disposition or Content-Type; they are read as by
    ``field_byte``."""
    cdef uint32_t size = 0
    if length >= 19 and spells(data, CONTENT_DISPOSITION, 19):
        size = 19
        mime.which = DISPOSITION
    elif length >= 12 and spells(data, CONTENT_TYPE, 12):
        size = 12
        mime.which = TYPE
    mime.counted = size
    return size


cdef uint32_t begin_line(Mime *mime, const uint8_t *data, uint32_t length) noexcept nogil:
    """Reads the beginning of a line if these bytes suffice to decide on it; returns how many bytes were read."""
    cdef uint8_t byte = data[0]
    mime.line = LINE_DASH if byte == DASH else LINE_REST
    if mime.header and not blank(byte):
        mime.state = MIME_FIELD if lower(byte) == c"c" else MIME_NOTHING    # both fields checked here begin with a C
        mime.which = TYPE | DISPOSITION
        mime.reported = 0
        return field_name(mime, data, length) if mime.state == MIME_FIELD else 0
    if mime.header and mime.state == MIME_FIELD:
        mime.state = MIME_NOTHING               # a field's name cannot continue on the next line
    return 0


cdef uint32_t rest_of_line(Context *context, Mime *mime, const uint8_t *data, uint32_t at, uint32_t length,
                           uint64_t offset) noexcept nogil:
    """Reads up to the line's end; returns the index reached."""
    if mime.header:
        while mime.state != MIME_NOTHING and at < length and data[at] != LF and context.verdict == ACTION_PASS:
            if data[at] != CR:
                parameter_byte(context, mime, data[at], offset + at)
            at += 1
    if mime.header and mime.state != MIME_NOTHING:
        return at
    return at + nm_next_lf(data + at, length - at)


cdef void mime_bytes(Context *context, Mime *mime, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset) noexcept nogil:
    cdef uint8_t byte
    cdef uint32_t run
    while at < length and context.verdict == ACTION_PASS:
        byte = data[at]
        if byte == LF:
            if mime.line == LINE_START:
                mime.header = 0           # RFC 5322 2.1: an empty line ends a header
            mime.line = LINE_START
            at += 1
        elif mime.line == LINE_REST:
            at = rest_of_line(context, mime, data, at, length, offset)
        elif byte == CR:
            at += 1
        elif mime.line == LINE_START:
            run = begin_line(mime, data + at, length - at)
            at += run
            if run == 0:
                if mime.header and mime.state != MIME_NOTHING:
                    parameter_byte(context, mime, byte, offset + at)
                at += 1
        else:
            mime.line = LINE_REST         # the second byte of a line that begins with a dash
            if byte == DASH:
                mime.header = 1
                mime.state = MIME_NOTHING
            elif mime.header and mime.state != MIME_NOTHING:
                parameter_byte(context, mime, byte, offset + at)
            at += 1
