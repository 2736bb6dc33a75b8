# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What a Mailguard elsewhere on the path has masked, recognised and restored: length for length (invariant 3).

Promises: only a line, or a reply, that lies in one segment as a whole is restored, and only if its length, the
session's state and, for a reply, the number and order of the masked parts fit; everything else is left as it came.
Message text is never restored. Rules: docs/restore.md. Does not know how a dialogue goes on.
"""

from libc.string cimport memchr, memcmp, memcpy

from nfmailguard.cext.policy.findings cimport note_change, report_shown, shown
from nfmailguard.cext.policy.network cimport in_networks
from nfmailguard.cext.policy.numbers cimport (
    LINE_BYTES_SHOWN, RESTORE_BANNER, RESTORE_COMMAND, RESTORE_KEYWORD, RESTORE_NOT_RECOVERABLE, VERB_EHLO,
    VERB_UNKNOWN,
)
from nfmailguard.cext.policy.ruling cimport RESTORE_COMMANDS, RESTORE_REPLIES, Candidate, Listing, applies
from nfmailguard.cext.smtp.name cimport upper
from nfmailguard.cext.smtp.outstanding cimport expected_verb
from nfmailguard.cext.smtp.session cimport note_restored

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32
    STAR = 42
    DASH = 45
    FEWEST = 4                 # number of stars, or X's, that no server and no client sends by chance
    EXCERPT = 120              # bytes of a line that a finding shows

cdef const char *CMAP = b"SMTP/cmap ready"

cdef const char *DOMAIN = b"._:-[]"

cdef const char **MECHANISMS = [
    b"PLAIN", b"LOGIN", b"CRAM-MD5", b"DIGEST-MD5", b"NTLM", b"GSSAPI", b"XOAUTH2", b"OAUTHBEARER", NULL,
]


cdef bint verb_masked(const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(length if length < LINE_BYTES_SHOWN else LINE_BYTES_SHOWN):
        if upper(data[i]) != c"X":
            return False
    return length >= FEWEST


cdef bint banner_masked(const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i, stars = 0
    if length > 15 and memcmp(data, CMAP, 15) == 0:
        for i in range(15, length):
            if data[i] != c"_":
                return False
        return True
    for i in range(length):
        if data[i] == STAR:
            stars += 1
        elif data[i] != c"2" and data[i] != c"0" and data[i] != SPACE:
            return False
    return stars >= FEWEST


cdef bint keyword_masked(const uint8_t *data, uint32_t length, uint32_t least) noexcept nogil:
    cdef uint32_t i
    if length == 2:  # A single X may be genuine, so the last letter has to fit exactly: `250 OK` becomes `250 XB`.
        return data[0] == c"X" and data[1] == c"A" + least % 26
    if length < 3 or length >= LINE_BYTES_SHOWN - 4:
        return False
    for i in range(length - 1):
        if data[i] != c"X":
            return False
    return c"A" + least <= data[length - 1] <= c"Z"


cdef void report_damage(Context *context, uint8_t finding, bint to_server, uint8_t verb, uint64_t offset,
                        const uint8_t *data, uint32_t length) noexcept nogil:
    length = length if length < EXCERPT else EXCERPT
    report_shown(context, finding, to_server, verb, offset, shown(data, length, NULL, 0))
    if context.policy.restore & (RESTORE_COMMANDS if to_server else RESTORE_REPLIES):
        report_shown(context, RESTORE_NOT_RECOVERABLE, to_server, verb, offset, shown(data, length, NULL, 0))


cdef void write(Context *context, uint8_t finding, uint8_t verb, uint8_t *data, const uint8_t *text,
                uint32_t length, uint64_t offset) noexcept nogil:
    # Overwrites `length` bytes of `data` with `text`, and reports it.
    cdef uint8_t before[EXCERPT]
    cdef uint32_t size = length if length < EXCERPT else EXCERPT
    memcpy(before, data, size)
    note_change(context)
    if applies(context.policy):
        memcpy(data, text, length)
    report_shown(context, finding, finding == RESTORE_COMMAND, verb, offset, shown(before, size, text, size))


cdef inline uint32_t line_length(const uint8_t *data, uint32_t length, bint *whole) noexcept nogil:
    # Returns the length of the line that begins at `data`, without its CRLF, if the CRLF is here (`whole`); else 0.
    cdef const uint8_t *end = <const uint8_t *> memchr(data, LF, length)
    whole[0] = end != NULL and end > data and (end - 1)[0] == CR
    return <uint32_t> (end - data) - 1 if whole[0] else 0


cdef bint is_domain(const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(length):
        if not (c"0" <= data[i] <= c"9" or c"A" <= upper(data[i]) <= c"Z"
                or (data[i] and memchr(DOMAIN, data[i], 6) != NULL)):
            return False
    return length > 0


cdef bint is_mechanism(const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t size, i = 0
    cdef const char *name
    while MECHANISMS[i] != NULL:
        name = MECHANISMS[i]
        size = 0
        while name[size] and size < length and upper(data[size]) == <uint8_t> name[size]:
            size += 1
        if name[size] == 0 and (size == length or data[size] == SPACE):
            return True
        i += 1
    return False


cdef void restore_command(Context *context, const Exchange *exchange, uint8_t *data, uint32_t length,
                          uint64_t offset) noexcept nogil:
    cdef bint whole
    cdef uint32_t size = 0
    cdef const uint8_t *argument
    cdef bint greeting
    cdef const char *verb = NULL
    if not context.policy.restore & RESTORE_COMMANDS or context.already_forwarded or exchange.count:
        return
    length = line_length(data, length, &whole)
    if not whole:
        return
    while size < length and data[size] != SPACE:
        size += 1
    argument = data + size + 1
    greeting = (context.session.state == context.grammar.state_greeted and size == 4 and size < length
                and is_domain(argument, length - size - 1))
    if verb_masked(data, size):
        if greeting:
            verb = b"EHLO"
        elif context.session.state != context.grammar.state_ready:
            pass
        elif size == 8 and length == 8:
            if context.policy.restore_starttls:
                verb = b"STARTTLS"
        elif size == 4 and size < length and context.policy.restore_auth and is_mechanism(argument, length - size - 1):
            verb = b"AUTH"
    elif greeting and context.policy.restore_noop and upper(data[0]) == c"N" and upper(data[1]) == c"O" and (
            upper(data[2]) == c"O" and upper(data[3]) == c"P"):
        verb = b"EHLO"
    if verb == NULL:
        return
    write(context, RESTORE_COMMAND, VERB_UNKNOWN, data, <const uint8_t *> verb, size, offset)
    note_restored(context.session, verb[0] == c"E")


cdef Listing *listing_of(Context *context) noexcept nogil:
    # What this server says where nothing is masked, as the policy lists it; NULL: the server is not listed.
    cdef uint32_t i
    cdef Listing *listing
    for i in range(context.policy.listing_count):
        listing = &context.policy.listings[i]
        if in_networks(listing.servers, listing.server_count, context.identity.family, context.identity.server):
            return listing
    return NULL


cdef bint contradicts(Listing *listing, uint32_t place, const uint8_t *ours, uint8_t theirs) noexcept nogil:
    # Whether `ours`, the listed greeting's byte at `place` (the byte before it is readable), contradicts the masked
    # byte `theirs`. S-Q295725, S-HVERA: rule B51 leaves every 2 and 0, and a space after a 0; the padding proves
    # nothing.
    cdef bint zero_space = ours[0] == SPACE and (ours - 1)[0] == c"0"
    if theirs == SPACE and not zero_space:
        return True
    return ours[0] != theirs and (
        ours[0] == c"2" or ours[0] == c"0" or theirs == c"2" or theirs == c"0" or theirs == SPACE
        or (zero_space and listing.spaces and place < listing.banner_length))


cdef void restore_greeting(Context *context, Listing *listing, uint8_t *data, uint32_t length,
                           uint64_t offset) noexcept nogil:
    cdef bint whole
    cdef uint32_t i
    cdef uint8_t text[LINE_BYTES_SHOWN]
    length = line_length(data, length, &whole)
    if not whole or length <= 4 or length > LINE_BYTES_SHOWN or listing.banner_length == 0:
        return
    if (data[3] != SPACE and data[3] != STAR) or not banner_masked(data + 4, length - 4):
        return
    text[0] = SPACE
    for i in range(length - 4):
        text[i + 1] = listing.banner[i] if i < listing.banner_length else SPACE
        if listing.digits and contradicts(listing, i, text + i + 1, data[i + 4]):
            return                                 # the masked greeting is not the listed one
    write(context, RESTORE_BANNER, VERB_UNKNOWN, data + 3, text, length - 3, offset)


cdef bint offer_fits(Listing *listing, const uint8_t *data, uint32_t length) noexcept nogil:
    # Whether a whole reply has as many masked lines as the listing, of the same lengths, ending in the letters from A
    # on.
    cdef bint whole, last = 0
    cdef uint32_t size, line = 0, masked = 0
    while not last:
        size = line_length(data, length, &whole)
        if not whole or size < 4 or memcmp(data, b"250", 3) != 0 or (data[3] != DASH and data[3] != SPACE):
            return False
        last = data[3] == SPACE
        if line and keyword_masked(data + 4, size - 4, masked) and data[size - 1] == c"A" + masked:
            if masked >= listing.count or listing.candidates[masked].length != size - 4:
                return False
            masked += 1
        data += size + 2
        length -= size + 2
        line += 1
    return masked == listing.count


cdef void restore_keywords(Context *context, Listing *listing, uint8_t *data, uint32_t length,
                           uint64_t offset) noexcept nogil:
    cdef bint whole, last = 0
    cdef uint32_t size, line = 0, masked = 0
    cdef Candidate *candidate
    if not offer_fits(listing, data, length):
        return
    while not last:
        size = line_length(data, length, &whole)
        last = data[3] == SPACE
        if line and keyword_masked(data + 4, size - 4, masked) and data[size - 1] == c"A" + masked:
            candidate = &listing.candidates[masked]
            if candidate.restored:
                write(context, RESTORE_KEYWORD, VERB_EHLO, data + 4, candidate.data, size - 4, offset)
            masked += 1
        data += size + 2
        offset += size + 2
        length -= size + 2
        line += 1


cdef void restore_reply(Context *context, const Exchange *exchange, uint8_t *data, uint32_t length,
                        uint64_t offset) noexcept nogil:
    cdef Listing *listing
    if not context.policy.restore & RESTORE_REPLIES or exchange.count == 0 or length < 4:
        return
    listing = listing_of(context)
    if listing == NULL:
        return
    if expected_verb(exchange) == VERB_EHLO:
        restore_keywords(context, listing, data, length, offset)
    elif expected_verb(exchange) == context.grammar.verb_greeting and memcmp(data, b"220", 3) == 0:
        restore_greeting(context, listing, data, length, offset)
