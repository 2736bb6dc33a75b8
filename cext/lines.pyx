# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Command lines in a segment: what lies in it whole is read whole, and anything else octet by octet.

Promises: a verb read at once becomes what ``command`` makes of its octets, at a fraction of the
cost; one about whose octets somebody would be told something is left to it. Does not know what
a command means.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset

from nfmailguard.cext.argument cimport REPORTED_NUL, put, report_octet
from nfmailguard.cext.clean cimport clean_lines
from nfmailguard.cext.command cimport begin_line, end_line, end_of_verb, end_verb, ordinary_octet, settle_verb
from nfmailguard.cext.run cimport FATE_LETTER, FATE_NOOP, FATE_PASS, Manner, fill, line_run, manner_of, settle_counts
from nfmailguard.cext.message cimport chunk_waits
from nfmailguard.cext.secret cimport in_secret, note_glued
from nfmailguard.cext.smtp cimport (
    ACTION_BLANK,
    ACTION_MASK,
    ACTION_PASS,
    COMMAND_BARE_CR,
    COMMAND_BARE_LF,
    COMMAND_NUL,
    FORM_NOOP,
    INPUT_COMMANDS,
    PHASE_START,
    PHASE_VERB,
    VERB_UNKNOWN,
    Line,
    lend_line,
    quiet,
    repeat,
)
from nfmailguard.cext.verb cimport find_verb, refusal

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32


cdef struct Found:             # a verb that lies in the segment whole, and what is odd about it
    uint32_t length            # 0: there is none
    uint8_t end                # the octet behind it
    bint bare_cr               # it is a CR, and no LF stands behind that
    uint32_t lfs               # that become spaces, that behind it too
    uint32_t nuls


cdef inline void look_for_verb(const Manner *manner, const uint8_t *octets, uint32_t length,
                               Found *found) noexcept nogil:
    cdef uint32_t end = 0
    cdef uint32_t stop = length if length < manner.whole else manner.whole
    cdef bint leading = True
    cdef uint8_t octet
    found.length = found.lfs = found.nuls = 0
    found.bare_cr = False
    while end < stop:
        octet = octets[end]
        if octet > SPACE:
            leading = False
        elif octet == CR or (octet == SPACE and not leading):
            break
        elif octet == LF:
            if not manner.blank_lf:
                break
            found.lfs += 1
            if not leading:
                break
        elif octet == 0:
            found.nuls += 1
        end += 1
    if end == stop or (octets[end] == LF and leading):
        return
    if octets[end] == CR:
        if end + 1 == length:
            return
        found.bare_cr = octets[end + 1] != LF
    found.end = octets[end]
    found.length = end


cdef inline bint is_quiet(Scene *scene, const Manner *manner, const Found *found) noexcept nogil:
    # Whether nobody is told of any octet.
    return ((found.nuls == 0 or quiet(scene, COMMAND_NUL, 1))
            and (found.lfs + (found.end == LF) == 0 or quiet(scene, COMMAND_BARE_LF, found.lfs + (found.end == LF)))
            and (not found.bare_cr or (manner.blank_cr and quiet(scene, COMMAND_BARE_CR, 1))))


cdef void note_odd(Scene *scene, Dialogue *dialogue, const Found *found, uint8_t *octets) noexcept nogil:
    cdef uint32_t i
    if found.nuls:
        dialogue.reported |= REPORTED_NUL
        repeat(scene, COMMAND_NUL, 1, True)
    if found.lfs:
        repeat(scene, COMMAND_BARE_LF, found.lfs, True)
        for i in range(found.length):
            if octets[i] == LF:
                put(scene, octets + i, SPACE)


cdef inline void open_line(Dialogue *dialogue, Line *line, const Found *found, const uint8_t *octets,
                           uint32_t length) noexcept nogil:
    dialogue.command = line
    dialogue.line_length = dialogue.verb_length = line.length = <uint16_t> found.length
    dialogue.leading = octets[0] <= SPACE
    if found.length <= 16 <= length:
        memcpy(line.octets, octets, 16)            # without a call; what stands behind is overwritten
    else:
        memcpy(line.octets, octets, found.length)


cdef inline uint32_t ended_by_cr(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t verb, uint8_t finding,
                                 uint8_t *octets, uint32_t end, uint32_t length, uint64_t offset) noexcept nogil:
    # A CR ends the verb where what stands behind it becomes a LF, else the LF does, as octet by octet.
    if manner.blank_cr:
        settle_verb(scene, dialogue, verb, finding, octets + end, length - end, offset + end)
    else:
        settle_verb(scene, dialogue, verb, finding, octets + end + 1, 0, offset + end + 1)
    if scene.verdict != ACTION_PASS:
        return end + 1
    if octets[end + 1] != LF:
        repeat(scene, COMMAND_BARE_CR, 1, True)
        put(scene, octets + end + 1, LF)
    end_line(scene, dialogue, octets + end + 1, offset + end + 1)
    return end + 2


cdef uint32_t whole_verb(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets, uint32_t length,
                         uint64_t offset) noexcept nogil:
    """Reads a line's verb and the octet, or line's end, behind it; how many octets that are, 0: it is not for us."""
    cdef uint32_t i, end
    cdef uint8_t verb, finding
    cdef const char *noop = b"NOOP"
    cdef Line *line
    cdef Found found
    look_for_verb(manner, octets, length, &found)
    end = found.length
    if end == 0 or not is_quiet(scene, manner, &found):
        return 0
    line = lend_line(scene.lender)
    if line == NULL:
        return 0
    begin_line(scene, dialogue, offset)
    open_line(dialogue, line, &found, octets, length)      # as it came
    if found.nuls + found.lfs:
        note_odd(scene, dialogue, &found, octets)
    verb = find_verb(scene, octets, end) if octets[0] > SPACE else VERB_UNKNOWN
    finding = refusal(scene, dialogue, verb, end)
    dialogue.fate = FATE_PASS
    if not finding or not scene.ruling.apply or scene.ruling.action[finding] != ACTION_MASK:
        line.sent = <uint16_t> end
    elif scene.ruling.unknown == FORM_NOOP and end >= 4:
        dialogue.fate = FATE_NOOP
        for i in range(end):
            put(scene, octets + i, noop[i] if i < 4 else SPACE)
    else:
        dialogue.fate = FATE_LETTER
        fill(scene, octets, end, scene.ruling.letter)
    dialogue.phase = PHASE_VERB
    if found.end == CR:
        return ended_by_cr(scene, dialogue, manner, verb, finding, octets, end, length, offset)
    if found.end == LF and not manner.blank_lf:
        repeat(scene, COMMAND_BARE_LF, 1, True)
        settle_verb(scene, dialogue, verb, finding, octets + end, 0, offset + end)
        if scene.verdict == ACTION_PASS:
            end_line(scene, dialogue, octets + end, offset + end)
        return end + 1
    if found.end == LF:
        put(scene, octets + end, SPACE)
    dialogue.line_length += 1
    settle_verb(scene, dialogue, verb, finding, octets + end, length - end, offset + end)
    end_of_verb(scene, dialogue, octets + end)
    if found.lfs:
        note_glued(scene, dialogue, found.end == LF)
    return end + 1


cdef inline uint32_t whole_end(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets,
                               uint32_t length, uint64_t offset) noexcept nogil:
    # The CRLF that ends a line; how many octets, 0: it is none.
    if length < 2 or octets[1] != LF:
        return 0
    if dialogue.phase == PHASE_START:
        begin_line(scene, dialogue, offset)
    if dialogue.phase == PHASE_VERB and manner.blank_cr:
        end_verb(scene, dialogue, octets, length, offset)
        if scene.verdict != ACTION_PASS:
            return 1
    end_line(scene, dialogue, octets + 1, offset + 1)
    return 2


cdef inline bint one_octet(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets, uint32_t length,
                           uint64_t offset) noexcept nogil:
    """Reads one octet; whether a line ended with it."""
    cdef uint8_t octet = octets[0]
    cdef uint8_t carriage_return = CR
    cdef bint ended = False
    if dialogue.after_cr:
        dialogue.after_cr = 0
        if octet == LF:
            ended = True
        elif report_octet(scene, COMMAND_BARE_CR, dialogue.verb, offset, octet, LF,
                          not in_secret(scene, dialogue)) == ACTION_BLANK:
            # The CR has left, maybe in an earlier segment: make it the line end it looks like.
            put(scene, octets, LF)
            ended = True
        elif scene.verdict == ACTION_PASS:
            ordinary_octet(scene, dialogue, &carriage_return, 1, offset - 1)
    if ended:
        end_line(scene, dialogue, octets, offset)
    elif octet == CR:
        if dialogue.phase == PHASE_START:
            begin_line(scene, dialogue, offset)
        elif dialogue.phase == PHASE_VERB and manner.blank_cr:
            end_verb(scene, dialogue, octets, length, offset)
        dialogue.after_cr = 1
    elif octet == LF:
        if report_octet(scene, COMMAND_BARE_LF, dialogue.verb, offset, octet, SPACE,
                        not in_secret(scene, dialogue)) == ACTION_BLANK:
            put(scene, octets, SPACE)
            ordinary_octet(scene, dialogue, octets, length, offset)
            note_glued(scene, dialogue, True)
        elif scene.verdict == ACTION_PASS:
            end_line(scene, dialogue, octets, offset)
            ended = True
    elif scene.verdict == ACTION_PASS:
        ordinary_octet(scene, dialogue, octets, length, offset)
    return ended


cdef uint32_t other_octets(Scene *scene, Dialogue *dialogue, Manner *manner, uint8_t *octets, uint32_t length,
                           uint64_t offset, bint *ended) noexcept nogil:
    """Reads one octet or more of a line; whether it ended with them."""
    cdef uint32_t run = 0
    settle_counts(scene, manner)
    memset(manner.left, 0, sizeof(manner.left))    # from here on others count, too
    if not dialogue.after_cr:
        if octets[0] == CR:
            run = whole_end(scene, dialogue, manner, octets, length, offset)
        elif dialogue.phase != PHASE_START:
            run = line_run(scene, dialogue, manner, octets, 0, length, offset)
        else:
            run = whole_verb(scene, dialogue, manner, octets, length, offset)
    ended[0] = dialogue.phase == PHASE_START
    if run == 0:
        ended[0] = one_octet(scene, dialogue, manner, octets, length, offset)
        run = 1
    return run


cdef uint32_t command_octets(Scene *scene, Dialogue *dialogue, uint8_t *octets, uint32_t at, uint32_t length,
                             uint64_t offset) noexcept nogil:
    """Reads lines from ``at`` on until one changes how the client is to be read; the index behind it."""
    cdef uint32_t run
    cdef bint ended
    cdef Manner manner
    manner_of(scene, &manner)
    while at < length and scene.verdict == ACTION_PASS:
        run = 0
        if octets[at] | SPACE == c"b" and chunk_waits(scene.ruling, scene.session, dialogue, octets + at, length - at):
            break
        if dialogue.phase == PHASE_START and not dialogue.after_cr:
            run = clean_lines(scene, dialogue, &manner, octets + at, length - at, offset + at)
        if run == 0:
            run = other_octets(scene, dialogue, &manner, octets + at, length - at, offset + at, &ended)
            if ended and (dialogue.input != INPUT_COMMANDS or dialogue.waiting):
                at += run
                break
        at += run
    settle_counts(scene, &manner)
    return at
