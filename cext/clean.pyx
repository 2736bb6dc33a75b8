# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Command lines that lie in a segment whole, of which nobody is told anything: read at once.

Promises: such a line becomes what ``command`` makes of it octet by octet; first it is looked at, and
what is not for us is left as it was. Lines of a few octets are what costs most an octet: everything
here is done once a line, and nothing of the line is kept. Does not know how a line goes on in
another segment.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memcpy

from nfmailguard.cext.argument cimport put
from nfmailguard.cext.record cimport RECORD_COMMAND, Record, ring_push, ring_reserve
from nfmailguard.cext.restore cimport verb_masked
from nfmailguard.cext.run cimport (
    KIND_CR,
    KIND_DENIED,
    KIND_ILLEGAL,
    KIND_LF,
    KIND_NUL,
    KIND_UPSTREAM,
    fill,
    found,
    untold,
)
from nfmailguard.cext.secret cimport note_words, shown_of_words
from nfmailguard.cext.smtp cimport (
    ACTION_BLANK,
    ACTION_MASK,
    ACTION_PASS,
    ADDRESS_ILLEGAL_CHARACTER,
    ARGUMENT_IGNORED,
    ARGUMENT_RECIPIENT,
    ARGUMENT_SECRET,
    ARGUMENT_SENDER,
    ASKED_NOTHING,
    COMMAND_DENIED,
    FORM_NOOP,
    FORM_OK,
    FORM_XALL,
    SECRET_SAID,
    VERB_MAIL,
    VERB_NOOP,
    VERB_RCPT,
    VERB_RSET,
    VERB_UNKNOWN,
    Ruling,
    add_reply,
    begins_anew,
    expect_reply,
    has_room,
    note_asked,
    upper,
)
from nfmailguard.cext.verb cimport find_verb, refusal

cdef extern from "scan.h" nogil:
    uint32_t nm_line_stop(const uint8_t *p, uint32_t length, bint nul) noexcept

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32

cdef struct Clean:
    uint32_t verb              # its length
    uint32_t end               # where the line's CR or, alone, LF stands
    uint32_t lfs               # that become spaces
    uint32_t nuls
    uint32_t first             # LF that becomes a space, or NUL behind the verb, or before it
    uint32_t last              # behind the last of them; 0: there is none
    uint32_t illegal           # octets of an address
    uint8_t number             # the verb's
    uint8_t finding            # that keeps it from passing, or 0
    bint denied
    bint bare                  # no LF stands behind the CR, or no CR before the LF
    bint masked_upstream


cdef inline uint32_t verb_end(Clean *line, const uint8_t *octets, uint32_t at, uint32_t stop) noexcept nogil:
    """Behind the verb, of which ``at`` octets are ordinary, or ``stop``."""
    cdef uint8_t octet
    while at < stop:
        octet = octets[at]
        if octet <= SPACE:
            if octet == SPACE or octet == CR or octet == LF:
                break
            line.nuls += octet == 0
        at += 1
    return at


cdef inline uint32_t leading(Clean *line, const Manner *manner, const uint8_t *octets, uint32_t stop) noexcept nogil:
    """Behind what stands before the verb, or ``stop``."""
    cdef uint32_t at = 0
    while at < stop and octets[at] <= SPACE and octets[at] != CR:
        if octets[at] == LF:
            if not manner.blank_lf:
                return stop
            line.lfs += 1
            line.last = at + 1
        line.nuls += octets[at] == 0
        at += 1
    return at


cdef inline bint plain_end(Clean *line, const uint8_t *octets, uint32_t verb, uint32_t stop) noexcept nogil:
    """Whether the line, whose verb is ordinary, ends here with CRLF and has nothing odd in it."""
    cdef uint32_t end = verb
    if octets[end] == SPACE:
        end += 1
        end += nm_line_stop(octets + end, stop - end, True)
    if end + 1 >= stop or octets[end] != CR or octets[end + 1] != LF:
        return False
    line.verb = verb
    line.end = end
    line.lfs = line.nuls = line.illegal = line.first = line.last = 0
    line.bare = False
    return True


cdef inline bint find_end(Clean *line, const Manner *manner, const uint8_t *octets, uint32_t at,
                          uint32_t stop) noexcept nogil:
    """Whether the line ends here, and where; its first ``at`` octets are ordinary."""
    line.lfs = line.nuls = line.illegal = 0
    line.last = 0
    if at == 0:
        at = leading(line, manner, octets, stop)
    line.first = 0 if line.lfs else at
    line.verb = at = verb_end(line, octets, at, stop)
    while at < stop:
        if octets[at] == CR:
            line.end = at
            if at + 1 == stop:
                return False
            line.bare = octets[at + 1] != LF
            return not line.bare or manner.blank_cr
        if octets[at] == LF:
            if not manner.blank_lf:
                line.end = at
                line.bare = True
                return True
            line.lfs += 1
            line.last = at + 1
        elif octets[at] == 0:
            line.nuls += 1
            line.last = at + 1
        at += 1
        at += nm_line_stop(octets + at, stop - at, True)
    return False


cdef inline bint is_illegal(const Ruling *ruling, const Manner *manner, uint8_t octet,
                            bint *open_bracket) noexcept nogil:
    """As ``argument.address_octet`` has it, which sees LFs and NULs that have become spaces."""
    cdef bint illegal
    if octet == LF or (octet == 0 and manner.blank_nul):
        octet = SPACE
    illegal = ruling.illegal[octet]
    if ruling.brackets:
        if octet == c"<":
            illegal |= open_bracket[0]
            open_bracket[0] = True
        elif octet == c">":
            illegal |= not open_bracket[0]
            open_bracket[0] = False
    return illegal


cdef inline bint is_address(Scene *scene, const Clean *line) noexcept nogil:
    cdef uint8_t kind = scene.grammar.argument[line.number]
    return not line.denied and (kind == ARGUMENT_SENDER or kind == ARGUMENT_RECIPIENT)


cdef inline bint is_ours(Scene *scene, Dialogue *dialogue, const Manner *manner, Clean *line, const uint8_t *octets,
                         bint named) noexcept nogil:
    """Which verb it is, unless it is known; whether its line can be read here."""
    cdef const Ruling *ruling = scene.ruling
    cdef uint8_t number
    cdef uint32_t i
    cdef bint bracket = False
    if not named:
        line.number = find_verb(scene, octets, line.verb) if octets[0] > SPACE else VERB_UNKNOWN
    number = line.number
    line.finding = refusal(scene, dialogue, number, line.verb)
    line.denied = line.finding and ruling.apply and ruling.action[line.finding] == ACTION_MASK
    line.masked_upstream = (line.verb > 3 and number == VERB_UNKNOWN and upper(octets[0]) == c"X"
                            and verb_masked(octets, line.verb))
    if line.denied or scene.grammar.dull[number]:
        return True
    if number == VERB_RCPT:
        if ruling.recipients and scene.session.recipients >= ruling.recipients:
            return False
    elif scene.grammar.waits[number] or (
            number != VERB_MAIL and number != VERB_RSET and not begins_anew(number)):
        return False                               # how the client is read changes
    if is_address(scene, line):
        if number == VERB_MAIL and ruling.sender_length and line.end - line.verb > ruling.sender_length:
            return False                           # measured
        for i in range(line.verb + 1, line.end):
            line.illegal += is_illegal(ruling, manner, octets[i], &bracket)
    return True


cdef inline bint is_quiet(Scene *scene, Manner *manner, const Clean *line, const uint8_t *octets) noexcept nogil:
    """Whether nobody is told of anything."""
    if line.nuls + line.lfs and scene.grammar.told[line.number]:
        return False                               # what may be told of it has to be found out
    if line.finding and (line.finding != COMMAND_DENIED or not untold(scene, manner, KIND_DENIED, 1)):
        return False
    if line.masked_upstream and not untold(scene, manner, KIND_UPSTREAM, 1):
        return False
    if line.nuls + line.lfs + line.bare + line.illegal == 0:
        return True
    return ((line.nuls == 0 or untold(scene, manner, KIND_NUL, 1))
            and (line.lfs == 0 or untold(scene, manner, KIND_LF, line.lfs))
            and (not line.bare or untold(scene, manner, KIND_CR if octets[line.end] == CR else KIND_LF, 1))
            and (line.illegal == 0 or untold(scene, manner, KIND_ILLEGAL, 1)))


cdef inline void count_odd(Scene *scene, Manner *manner, const Clean *line, uint8_t *octets) noexcept nogil:
    """What is odd about octets is counted, and LFs and NULs become spaces."""
    cdef uint32_t i
    if line.nuls:
        found(manner, KIND_NUL, 1)
    if line.lfs:
        found(manner, KIND_LF, line.lfs)
    if line.bare:
        found(manner, KIND_CR if octets[line.end] == CR else KIND_LF, 1)
    if line.illegal:
        found(manner, KIND_ILLEGAL, 1)
    if line.nuls or line.lfs:
        scene.session.secret |= SECRET_SAID        # some of it may be another line, maybe AUTH's
    if line.last:
        for i in range(line.first, line.last):
            if octets[i] == LF or (octets[i] == 0 and i > line.verb and manner.blank_nul):
                put(scene, octets + i, SPACE)
    if line.bare and octets[line.end] == CR:
        put(scene, octets + line.end + 1, LF)


cdef void tell(Scene *scene, uint8_t number, bint denied, const uint8_t *octets, uint32_t verb, uint32_t end,
               uint64_t offset) noexcept nogil:
    cdef Record *record
    if scene.untold:
        scene.omitted[0] += 1
        return
    record = ring_reserve(scene.ring, RECORD_COMMAND, scene.identity, scene.now)
    if record == NULL:
        return
    record.to_server = 1
    record.state = scene.session.state
    record.verb = number
    record.a = offset
    record.b = denied
    record.c = scene.session.found
    scene.session.found = 0
    if end == 4 and verb == 4 and number != scene.grammar.verb_dot and number != VERB_UNKNOWN:
        record.before_length = 4                   # as nearly all that are a verb and nothing else
        memcpy(record.text, octets, 4)
    elif number != VERB_UNKNOWN:
        record.before_length = <uint16_t> shown_of_words(scene, number, octets, verb, end, False, record.text)
    ring_push(scene.ring)


cdef inline void mask_few(Scene *scene, uint8_t *octets, uint32_t length) noexcept nogil:
    cdef uint32_t i
    if length > 4:
        fill(scene, octets, length, scene.ruling.letter)
        return
    for i in range(length):
        put(scene, octets + i, scene.ruling.letter)


cdef inline void mask(Scene *scene, const Clean *line, uint8_t *octets) noexcept nogil:
    """A denied verb's octets become what the ruling says."""
    cdef const char *noop = b"NOOP"
    cdef uint32_t i
    if scene.ruling.unknown == FORM_NOOP and line.verb >= 4:
        for i in range(line.verb):
            put(scene, octets + i, noop[i] if i < 4 else SPACE)
    else:
        mask_few(scene, octets, line.verb)
    if scene.ruling.unknown == FORM_XALL and line.end > line.verb:
        fill(scene, octets + line.verb, line.end - line.verb, scene.ruling.letter)


cdef void blank_illegal(Scene *scene, const Manner *manner, uint8_t *octets, uint32_t at, uint32_t end) noexcept nogil:
    cdef uint32_t i
    cdef bint bracket = False
    if not scene.ruling.apply or scene.ruling.action[ADDRESS_ILLEGAL_CHARACTER] != ACTION_BLANK:
        return
    for i in range(at, end):
        if is_illegal(scene.ruling, manner, octets[i], &bracket):
            put(scene, octets + i, SPACE)


cdef inline void note_said(Scene *scene, const Clean *line, const uint8_t *octets) noexcept nogil:
    """As at any line's end: whether what follows may be secret."""
    cdef uint8_t kind = scene.grammar.argument[line.number]
    if line.number == VERB_UNKNOWN:
        # No verb that tells of secrets is shorter than 3 octets, and no mechanism than 4.
        if line.verb > 2 or line.end > line.verb + 4:
            note_words(scene, line.number, octets, line.verb, line.end)
    elif kind == ARGUMENT_SECRET or (kind == ARGUMENT_IGNORED and line.end > line.verb + 4):
        note_words(scene, line.number, octets, line.verb, line.end)
    else:
        scene.session.secret &= SECRET_SAID


cdef inline void note_session(Scene *scene, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    if verb == VERB_RCPT:
        scene.session.recipients += 1
        return
    dialogue.message_octets = 0                    # of chunks that no LAST followed
    if begins_anew(verb):
        scene.session.offered_chunking = 0         # until this one's reply offers it


cdef inline uint32_t any_line(Scene *scene, Dialogue *dialogue, Manner *manner, uint8_t *octets, uint32_t ordinary,
                              uint8_t number, uint32_t stop, uint64_t offset) noexcept nogil:
    """A line that can be read here; its first ``ordinary`` octets are no space, CR or LF, and spell ``number``."""
    cdef uint8_t verb
    cdef uint32_t end
    cdef Clean line
    line.number = number
    if not (0 < ordinary and ordinary + 1 < stop and plain_end(&line, octets, ordinary, stop)):
        if not find_end(&line, manner, octets, ordinary, stop) or line.verb == 0:
            return 0
    if not is_ours(scene, dialogue, manner, &line, octets, line.verb == ordinary):
        return 0
    if not is_quiet(scene, manner, &line, octets):
        return 0
    if line.nuls + line.lfs + line.bare + line.illegal:
        count_odd(scene, manner, &line, octets)
    if line.masked_upstream:
        found(manner, KIND_UPSTREAM, 1)
    if line.finding:
        found(manner, KIND_DENIED, 1)
    if scene.grammar.told[line.number]:
        scene.session.found |= manner.found
        manner.found = 0
        tell(scene, line.number, line.denied, octets, line.verb, line.end, offset)
    note_said(scene, &line, octets)
    verb = line.number
    if line.denied:
        verb = scene.grammar.verb_masked if scene.ruling.unknown == FORM_OK else VERB_UNKNOWN
    note_asked(scene.session, dialogue, verb, octets, line.verb)
    end = line.end + (octets[line.end] == CR)
    if line.denied:
        mask(scene, &line, octets)
    elif verb == VERB_NOOP:
        scene.session.noop_seen = 1
    elif not scene.grammar.dull[verb]:
        if line.illegal:
            blank_illegal(scene, manner, octets, line.verb + 1, line.end)
        note_session(scene, dialogue, verb)
    expect_reply(scene, dialogue, verb, offset + end)
    return end + 1


cdef inline bint is_dull(Scene *scene, Dialogue *dialogue, Manner *manner, uint8_t number, const uint8_t *octets,
                         uint32_t length, bint *denied) noexcept nogil:
    """Whether a verb is all that its line says, and nobody keeps it; it is counted."""
    cdef uint8_t finding = refusal(scene, dialogue, number, length)
    if scene.grammar.argument[number] == ARGUMENT_SECRET or octets[0] | 32 == c"e":
        return False
    denied[0] = finding and scene.ruling.apply and scene.ruling.action[finding] == ACTION_MASK
    if not denied[0]:
        if not (scene.grammar.dull[number] or number == VERB_RSET) or (number == VERB_UNKNOWN and not finding):
            return False
    if finding and (finding != COMMAND_DENIED or not untold(scene, manner, KIND_DENIED, 1)):
        return False
    if number == VERB_UNKNOWN and length > 3 and upper(octets[0]) == c"X" and verb_masked(octets, length):
        if not untold(scene, manner, KIND_UPSTREAM, 1):
            return False
        found(manner, KIND_UPSTREAM, 1)
    if finding:
        found(manner, KIND_DENIED, 1)
    return True


cdef inline bint dull_line(Scene *scene, Dialogue *dialogue, Manner *manner, uint8_t *octets,
                           uint32_t verb, uint8_t number) noexcept nogil:
    """Reads a line that is a verb and nothing else, as long as nothing but its reply is expected."""
    cdef uint8_t said = number
    cdef bint denied
    if not has_room(scene, dialogue) or (scene.grammar.told[number] and not scene.untold):
        return False
    if not is_dull(scene, dialogue, manner, number, octets, verb, &denied):
        return False
    if number != VERB_UNKNOWN:
        scene.session.secret &= SECRET_SAID
    elif verb >= 3:
        note_words(scene, number, octets, verb, verb)
    if denied:
        mask_few(scene, octets, verb)
        number = VERB_UNKNOWN
    elif number == VERB_NOOP:
        scene.session.noop_seen = 1
    elif number == VERB_RSET:
        dialogue.message_octets = 0
    scene.omitted[0] += scene.grammar.told[said]
    add_reply(scene, dialogue, number)
    return True


cdef inline bint empty_line(Scene *scene, Dialogue *dialogue) noexcept nogil:
    if not has_room(scene, dialogue):
        return False
    dialogue.verb = VERB_UNKNOWN
    note_asked(scene.session, dialogue, VERB_UNKNOWN, NULL, 0)
    add_reply(scene, dialogue, scene.grammar.verb_empty)
    return True


cdef uint32_t clean_lines(Scene *scene, Dialogue *dialogue, Manner *manner, uint8_t *octets, uint32_t length,
                          uint64_t offset) noexcept nogil:
    cdef uint32_t at = 0, run, verb, stop
    cdef uint8_t number
    cdef bint simple = scene.ruling.unknown <= FORM_XALL and scene.session.asked != ASKED_NOTHING
    if dialogue.body_as_commands or dialogue.waiting:
        return 0
    while at < length and scene.verdict == ACTION_PASS:
        stop = length - at if length - at < manner.whole else manner.whole
        verb = 0
        while verb < stop and octets[at + verb] > SPACE:
            verb += 1
        number = VERB_UNKNOWN
        if 0 < verb < stop:
            number = find_verb(scene, octets + at, verb)
            if simple and verb + 1 < stop and octets[at + verb] == CR and octets[at + verb + 1] == LF and (
                    dull_line(scene, dialogue, manner, octets + at, verb, number)):
                at += verb + 2
                continue
        elif octets[at] == CR and length - at > 1 and octets[at + 1] == LF and empty_line(scene, dialogue):
            at += 2
            continue
        run = any_line(scene, dialogue, manner, octets + at, verb, number, stop, offset + at)
        if run == 0:
            break
        at += run
    return at
