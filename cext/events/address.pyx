# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Finds the address that every server reads in a MAIL or RCPT line, if there is one: the same as `events.addresses`.

Promises: an address is certain only where the line is exactly RFC 5321 4.1.2's syntax, and UTF-8. Does not know mails.
"""

from libc.string cimport memchr, memcpy, memset

from nfmailguard.cext.events.text cimport show

# Bits for a byte of a MAIL or RCPT line: the parts of an address or parameter it may occur in.
cdef enum:
    ATOM = 1
    DOMAIN = 2
    LITERAL = 4                        # the text of a domain in brackets (address literal)
    QUOTED = 8
    KEYWORD = 16
    VALUE = 32
    LETTER = 64
    FIRST = 128                        # first character of a parameter's keyword

cdef uint8_t BYTES[256]


cdef void fill_bytes() noexcept:
    cdef int byte
    memset(BYTES, 0, sizeof(BYTES))
    for byte in range(256):
        if 65 <= byte <= 90 or 97 <= byte <= 122:
            BYTES[byte] |= LETTER
        if BYTES[byte] & LETTER or 48 <= byte <= 57:
            BYTES[byte] |= ATOM | DOMAIN | LITERAL | KEYWORD | FIRST
        if byte >= 128:
            BYTES[byte] |= ATOM | DOMAIN
        if 33 <= byte <= 126:
            BYTES[byte] |= VALUE
        if byte >= 32 and byte != 127 and byte not in b'"\\<>':
            BYTES[byte] |= QUOTED
    for byte in b"!#$%&'*+/=?^_`{|}~.-":
        BYTES[byte] |= ATOM
    for byte in b"._-":
        BYTES[byte] |= DOMAIN
    for byte in b".:-":
        BYTES[byte] |= LITERAL
    BYTES[45] |= KEYWORD               # the hyphen


fill_bytes()


cdef inline uint32_t past(const uint8_t *line, uint32_t at, uint32_t length, uint8_t what) noexcept nogil:
    while at < length and BYTES[line[at]] & what:
        at += 1
    return at


cdef inline uint32_t past_spaces(const uint8_t *line, uint32_t at, uint32_t length) noexcept nogil:
    while at < length and line[at] == 32:
        at += 1
    return at


cdef uint32_t past_path(const uint8_t *line, uint32_t at, uint32_t length) noexcept nogil:
    """Skips a local part, and its domain if it has one; returns ``at`` where no path begins there."""
    cdef uint32_t begin = at, end
    if at < length and line[at] == 34:
        at = past(line, at + 1, length, QUOTED)
        if at == length or line[at] != 34:
            return begin
        at += 1
    else:
        at = past(line, at, length, ATOM)
    if at == begin or at == length or line[at] != 64:          # the character @
        return at
    at += 1
    if at < length and line[at] == 91:                         # the character [
        end = past(line, at + 1, length, LITERAL)
        return end + 1 if end > at + 1 and end < length and line[end] == 93 else begin
    end = past(line, at, length, DOMAIN)
    return end if end > at else begin


cdef bint are_parameters(const uint8_t *line, uint32_t at, uint32_t length) noexcept nogil:
    """Whether the rest of a line consists of parameters: keywords, each after a space, with or without a value."""
    cdef uint32_t begin
    while at < length:
        begin = at
        at = past_spaces(line, at, length)
        if at == length:
            return True
        if at == begin or not BYTES[line[at]] & FIRST:
            return False
        at = past(line, at, length, KEYWORD)
        if at < length and line[at] == 61:                     # the character =
            at = past(line, at + 1, length, VALUE)
    return True


cdef uint32_t past_keyword(const uint8_t *line, uint32_t at, uint32_t length) noexcept nogil:
    """The position after the keyword FROM or TO; 0: another word begins here."""
    if at + 4 <= length and (line[at] | 32) == 102 and (line[at + 1] | 32) == 114 and (
            line[at + 2] | 32) == 111 and (line[at + 3] | 32) == 109:
        return at + 4
    if at + 2 <= length and (line[at] | 32) == 116 and (line[at + 1] | 32) == 111:
        return at + 2
    return 0


cdef bint find_path(const uint8_t *line, uint32_t length, uint32_t *begin, uint32_t *end) noexcept nogil:
    """Whether the whole line has RFC 5321's syntax; if so, where its path begins and ends."""
    cdef uint32_t at = past(line, 0, length, LETTER), spaces
    if at != 4:
        return False
    spaces = past_spaces(line, at, length)
    at = past_keyword(line, spaces, length) if spaces > at else 0
    if at == 0:
        return False
    if at < length and line[at] == 32:
        at += 1
    if at == length or line[at] != 58:                         # the character :
        return False
    at = past_spaces(line, at + 1, length)
    if at < length and line[at] == 60:                         # the character <
        begin[0] = at + 1
        end[0] = past_path(line, at + 1, length)
        return end[0] < length and line[end[0]] == 62 and are_parameters(line, end[0] + 1, length)
    begin[0] = at
    end[0] = past_path(line, at, length)
    return end[0] > at and are_parameters(line, end[0], length)


cdef bint is_utf8(const uint8_t *line, uint32_t length) noexcept nogil:
    """Whether a line is UTF-8 by RFC 3629 4: shortest forms only, no surrogates, nothing beyond U+10FFFF."""
    cdef uint32_t at = 0, more, value, least
    while at < length:
        value = line[at]
        at += 1
        if value < 0x80:
            continue
        if 0xc2 <= value <= 0xdf:
            more, value, least = 1, value & 0x1f, 0x80
        elif 0xe0 <= value <= 0xef:
            more, value, least = 2, value & 0x0f, 0x800
        elif 0xf0 <= value <= 0xf4:
            more, value, least = 3, value & 0x07, 0x10000
        else:
            return False
        while more:
            if at == length or line[at] & 0xc0 != 0x80:
                return False
            value = value << 6 | (line[at] & 0x3f)
            at += 1
            more -= 1
        if value < least or value > 0x10ffff or 0xd800 <= value <= 0xdfff:
            return False
    return True


cdef inline bint is_blank(uint8_t byte) noexcept nogil:
    return byte == 32 or 9 <= byte <= 13


cdef uint32_t put_cut(uint8_t *out) noexcept nogil:
    memcpy(out, b" ...", CUT_SIZE)
    return CUT_SIZE


cdef bint address_of(const uint8_t *line, uint32_t length, bint cut, uint8_t *out, uint32_t *written) noexcept nogil:
    cdef uint32_t begin, end
    cdef const uint8_t *found
    if not cut and find_path(line, length, &begin, &end) and is_utf8(line, length):
        written[0] = show(out, line + begin, end - begin)
        return True
    found = <const uint8_t *> memchr(line, 58, length)
    if found == NULL:
        found = <const uint8_t *> memchr(line, 32, length)
    begin = length if found == NULL else <uint32_t> (found - line) + 1
    end = length
    while begin < end and is_blank(line[begin]):
        begin += 1
    while end > begin and is_blank(line[end - 1]):
        end -= 1
    written[0] = show(out, line + begin, end - begin)
    if cut:
        written[0] += put_cut(out + written[0])
    return False
