# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""File names in the headers of a message and of its parts (RFC 2045 5.1, RFC 2183 2.3, RFC 2231 3).

Promises: decided octet by octet, so that no segmentation hides one; a few octets of memory a
flow. Where a part begins is taken from any line that begins with two dashes (RFC 2046 5.1.1):
more lines are read as a header than are one, never fewer. Does not know transfer encodings.
"""

from libc.string cimport memchr, memcmp

from nfmailguard.cext.smtp cimport ACTION_PASS, MIME_FILENAME_TOO_LONG, report

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


cdef inline uint8_t lower(uint8_t octet) noexcept nogil:
    return octet + 32 if 65 <= octet <= 90 else octet


cdef inline bint blank(uint8_t octet) noexcept nogil:
    return octet == SPACE or octet == TAB


cdef bint is_filename(Dialogue *dialogue) noexcept nogil:
    cdef uint8_t length = dialogue.mime_name_length & ~STARRED
    return (length == 8 and memcmp(dialogue.mime_name, b"filename", 8) == 0) or (
        length == 4 and memcmp(dialogue.mime_name, b"name", 4) == 0)


cdef void name_octet(Dialogue *dialogue, uint8_t octet) noexcept nogil:
    if dialogue.mime_name_length & STARRED:
        return
    if octet == STAR:
        dialogue.mime_name_length |= STARRED
    elif dialogue.mime_name_length < 8:
        dialogue.mime_name[dialogue.mime_name_length] = lower(octet)
        dialogue.mime_name_length += 1
    else:
        dialogue.mime_name_length = 9              # too long for any of ours


cdef void begin_value(Dialogue *dialogue) noexcept nogil:
    dialogue.mime_counting = is_filename(dialogue)
    if dialogue.mime_counting and not dialogue.mime_name_length & STARRED:
        dialogue.mime_count = 0                    # RFC 2231 3: the sections of one value count together
    dialogue.mime = MIME_BEFORE_VALUE


cdef inline void count_octet(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    if not dialogue.mime_counting:
        return
    dialogue.mime_count += 1
    if dialogue.mime_count > scene.ruling.filename_length and not dialogue.mime_reported:
        dialogue.mime_reported = 1
        report(scene, MIME_FILENAME_TOO_LONG, True, 0, offset, NULL, 0, NULL, 0)


cdef void field_octet(Dialogue *dialogue, uint8_t octet) noexcept nogil:
    cdef uint8_t at = dialogue.mime_count          # octets of the name so far
    if octet == COLON or blank(octet):
        if not ((dialogue.mime_which & TYPE and at == 12) or (dialogue.mime_which & DISPOSITION and at == 19)):
            dialogue.mime = MIME_NOTHING
        else:
            dialogue.mime = MIME_SKIP if octet == COLON else MIME_BEFORE_COLON
        dialogue.mime_count = 0
        return
    if at >= 12 or <uint8_t> CONTENT_TYPE[at] != lower(octet):
        dialogue.mime_which &= ~TYPE
    if at >= 19 or <uint8_t> CONTENT_DISPOSITION[at] != lower(octet):
        dialogue.mime_which &= ~DISPOSITION
    dialogue.mime_count += 1
    if dialogue.mime_which == 0:
        dialogue.mime = MIME_NOTHING


cdef void parameter_octet(Scene *scene, Dialogue *dialogue, uint8_t octet, uint64_t offset) noexcept nogil:
    cdef uint8_t state = dialogue.mime
    if state == MIME_FIELD:
        field_octet(dialogue, octet)
    elif state == MIME_BEFORE_COLON:
        if octet == COLON:
            dialogue.mime = MIME_SKIP
        elif not blank(octet):
            dialogue.mime = MIME_NOTHING
    elif state == MIME_SKIP:
        if octet == SEMICOLON:
            dialogue.mime = MIME_BEFORE_NAME
        elif octet == QUOTE:
            dialogue.mime = MIME_SKIP_QUOTED
    elif state == MIME_SKIP_QUOTED:
        if octet == BACKSLASH:
            dialogue.mime = MIME_SKIP_ESCAPED
        elif octet == QUOTE:
            dialogue.mime = MIME_SKIP
    elif state == MIME_SKIP_ESCAPED:
        dialogue.mime = MIME_SKIP_QUOTED
    elif state == MIME_BEFORE_NAME:
        if octet == EQUALS:
            dialogue.mime = MIME_SKIP
        elif octet != SEMICOLON and not blank(octet):
            dialogue.mime = MIME_NAME
            dialogue.mime_name_length = 0
            name_octet(dialogue, octet)
    elif state == MIME_NAME or state == MIME_AFTER_NAME:
        if octet == EQUALS:
            begin_value(dialogue)
        elif octet == SEMICOLON:
            dialogue.mime = MIME_BEFORE_NAME
        elif blank(octet):
            dialogue.mime = MIME_AFTER_NAME
        elif state == MIME_AFTER_NAME:
            dialogue.mime = MIME_SKIP
        else:
            name_octet(dialogue, octet)
    elif state == MIME_BEFORE_VALUE:
        if octet == QUOTE:
            dialogue.mime = MIME_QUOTED
        elif octet == SEMICOLON:
            dialogue.mime = MIME_BEFORE_NAME
        elif not blank(octet):
            dialogue.mime = MIME_TOKEN
            count_octet(scene, dialogue, offset)
    elif state == MIME_TOKEN:
        if octet == SEMICOLON:
            dialogue.mime = MIME_BEFORE_NAME
        elif blank(octet):
            dialogue.mime = MIME_SKIP
        else:
            count_octet(scene, dialogue, offset)
    elif state == MIME_QUOTED:
        if octet == QUOTE:
            dialogue.mime = MIME_SKIP
            return
        if octet == BACKSLASH:
            dialogue.mime = MIME_ESCAPED
        count_octet(scene, dialogue, offset)
    elif state == MIME_ESCAPED:
        dialogue.mime = MIME_QUOTED
        count_octet(scene, dialogue, offset)


cdef void mime_octets(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t at, uint32_t length,
                      uint64_t offset) noexcept nogil:
    cdef uint8_t octet
    cdef const uint8_t *end
    while at < length:
        octet = octets[at]
        if octet == LF:
            if dialogue.mime_line == LINE_START:
                dialogue.mime_header = 0           # RFC 5322 2.1: an empty line ends a header
            dialogue.mime_line = LINE_START
        elif octet == CR:
            pass
        elif dialogue.mime_line == LINE_REST and (not dialogue.mime_header or dialogue.mime == MIME_NOTHING):
            end = <const uint8_t *> memchr(octets + at, LF, length - at)
            if end == NULL:
                return
            at = <uint32_t> (end - octets)
            continue
        else:
            if dialogue.mime_line == LINE_START:
                if dialogue.mime_header and not blank(octet):
                    dialogue.mime = MIME_FIELD
                    dialogue.mime_which = TYPE | DISPOSITION
                    dialogue.mime_count = 0
                    dialogue.mime_reported = 0
                elif dialogue.mime_header and (dialogue.mime == MIME_FIELD):
                    dialogue.mime = MIME_NOTHING   # a name does not go on in another line
                dialogue.mime_line = LINE_DASH if octet == DASH else LINE_REST
            elif dialogue.mime_line == LINE_DASH:
                dialogue.mime_line = LINE_REST
                if octet == DASH:
                    dialogue.mime_header = 1
                    dialogue.mime = MIME_NOTHING
            if dialogue.mime_header and dialogue.mime != MIME_NOTHING:
                parameter_octet(scene, dialogue, octet, offset + at)
                if scene.verdict != ACTION_PASS:
                    return
        at += 1
