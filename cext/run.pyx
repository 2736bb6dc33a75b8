# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Runs: the octets of a command line that are what stood before them, many at a time.

Promises: each is what ``command`` would make of it by itself, at a fraction of the cost; a run
stops in front of the first that may be more than one more octet of its verb or argument. A bare LF
or a NUL of which nothing more is told is no more than that. Does not know verbs.
"""

from libc.stdint cimport UINT32_MAX
from libc.string cimport memcpy, memset

from nfmailguard.cext.argument cimport REPORTED_CUT, REPORTED_LENGTH, REPORTED_NUL, SIZE_INVALID, address_octet, put
from nfmailguard.cext.smtp cimport (
    ACTION_BLANK,
    ACTION_DROP,
    ACTION_PASS,
    ADDRESS_ILLEGAL_CHARACTER,
    ARGUMENT_CHUNK_SIZE,
    ARGUMENT_RECIPIENT,
    ARGUMENT_SECRET,
    ARGUMENT_SENDER,
    COMMAND_BARE_CR,
    COMMAND_BARE_LF,
    COMMAND_DENIED,
    COMMAND_NUL,
    LINE_OCTETS,
    PHASE_ARGUMENT,
    PHASE_SASL,
    PHASE_VERB,
    SECRET_SAID,
    UPSTREAM_COMMAND_MASKED,
    VERB_MAIL,
    Line,
    Ruling,
    line_add,
    note_change,
    repeat,
)
from nfmailguard.cext.tally cimport tally_untold

cdef extern from "scan.h" nogil:
    uint32_t nm_line_stop(const uint8_t *p, uint32_t length, bint nul) noexcept
    bint nm_differs(const uint8_t *p, uint32_t length, uint8_t octet) noexcept
    size_t nm_blank_nuls(uint8_t *p, size_t length) noexcept

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32


cdef void manner_of(Scene *scene, Manner *manner) noexcept nogil:
    cdef const Ruling *ruling = scene.ruling
    manner.blank_lf = ruling.apply and ruling.action[COMMAND_BARE_LF] == ACTION_BLANK
    manner.blank_nul = ruling.apply and ruling.action[COMMAND_NUL] == ACTION_BLANK
    manner.blank_cr = ruling.apply and ruling.action[COMMAND_BARE_CR] == ACTION_BLANK
    manner.whole = manner.counted = 0
    manner.found = 0
    memset(manner.left, 0, sizeof(manner.left))
    memset(manner.count, 0, sizeof(manner.count))
    if not ruling.restore and not ruling.faithful:
        manner.whole = ruling.near_length if ruling.near_length < LINE_OCTETS else LINE_OCTETS


cdef inline uint8_t finding_of(int kind) noexcept nogil:
    if kind == KIND_DENIED:
        return COMMAND_DENIED
    if kind == KIND_LF:
        return COMMAND_BARE_LF
    if kind == KIND_CR:
        return COMMAND_BARE_CR
    if kind == KIND_NUL:
        return COMMAND_NUL
    return ADDRESS_ILLEGAL_CHARACTER if kind == KIND_ILLEGAL else UPSTREAM_COMMAND_MASKED


cdef void settle_each(Scene *scene, Manner *manner) noexcept nogil:
    cdef int kind
    for kind in range(KINDS):
        if manner.count[kind]:
            repeat(scene, finding_of(kind), manner.count[kind], False)
            manner.count[kind] = 0
    manner.counted = 0
    scene.session.found |= manner.found
    manner.found = 0


cdef bint more_untold(Scene *scene, Manner *manner, Kind kind, uint32_t number) noexcept nogil:
    cdef uint8_t finding = finding_of(kind)
    cdef uint8_t action = scene.ruling.action[finding]
    if manner.count[<int> kind]:
        repeat(scene, finding, manner.count[<int> kind], False)
        manner.count[<int> kind] = 0
    manner.bit[<int> kind] = <uint64_t> 1 << finding if action != ACTION_PASS else 0
    if action == ACTION_PASS:
        manner.left[<int> kind] = UINT32_MAX
    elif action < ACTION_DROP:
        manner.left[<int> kind] = tally_untold(&scene.session.tally, finding, scene.ruling.findings_told)
    return manner.left[<int> kind] >= number


cdef void fill(Scene *scene, uint8_t *octets, uint32_t length, uint8_t octet) noexcept nogil:
    if scene.edits == 0:
        if not nm_differs(octets, length, octet):
            return
        note_change(scene)
    memset(octets, octet, length)


cdef inline void keep(Line *line, const uint8_t *octets, uint32_t length) noexcept nogil:
    if length > <uint32_t> (LINE_OCTETS - line.length):
        length = LINE_OCTETS - line.length
    if length:
        memcpy(line.octets + line.length, octets, length)
        line.length += <uint16_t> length


cdef uint32_t blank_lfs(Scene *scene, const Manner *manner, uint8_t *octets, uint32_t stop) noexcept nogil:
    """How many LFs that nobody is told of stand here; they become spaces."""
    cdef uint32_t count = 0, untold
    if not manner.blank_lf:
        return 0
    untold = tally_untold(&scene.session.tally, COMMAND_BARE_LF, scene.ruling.findings_told)
    while count < stop and count < untold and octets[count] == LF:
        count += 1
    if count:
        repeat(scene, COMMAND_BARE_LF, count, True)
        fill(scene, octets, count, SPACE)
        scene.session.secret |= SECRET_SAID        # what follows was to be another line, maybe AUTH's
    return count


cdef uint32_t verb_run(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets,
                       uint32_t stop) noexcept nogil:
    cdef Line *line = dialogue.command
    cdef uint32_t at = 0, kept = 0, i, place = dialogue.verb_length
    cdef uint8_t fate = dialogue.fate
    cdef bint leading = dialogue.leading
    cdef const char *noop = b"NOOP"
    if fate == FATE_OPEN:
        return 0
    while at < stop:
        if octets[at] > SPACE:
            if leading:
                break
        elif octets[at] == CR or (octets[at] == 0 and not dialogue.reported & REPORTED_NUL):
            break
        elif octets[at] == LF:
            i = blank_lfs(scene, manner, octets + at, stop - at) if leading else 0
            if i == 0:
                break
            keep(line, octets + kept, at - kept)
            at += i
            kept = at
            while i and line.length < LINE_OCTETS:
                line_add(line, LF)                 # as it came
                i -= 1
            continue
        elif octets[at] == SPACE and not leading:
            break
        at += 1
    keep(line, octets + kept, at - kept)
    if fate == FATE_LETTER:
        fill(scene, octets, at, scene.ruling.letter)
    elif fate == FATE_NOOP:
        for i in range(at):
            put(scene, octets + i, noop[place + i] if place + i < 4 else SPACE)
    else:
        line.sent += <uint16_t> at
    dialogue.verb_length = <uint16_t> (place + at) if place + at < 0xffff else 0xffff
    return at


cdef uint32_t argument_run(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets, uint32_t stop,
                           uint64_t offset) noexcept nogil:
    cdef uint8_t kind = scene.grammar.argument[dialogue.verb]
    cdef Line *line = dialogue.command
    cdef uint32_t at = 0, i, glued = UINT32_MAX, before = line.length
    cdef const uint8_t *illegal = scene.ruling.illegal
    cdef bint reported = dialogue.reported & REPORTED_NUL
    cdef bint masked = dialogue.mask_rest
    cdef bint read = not masked and not dialogue.denied
    cdef bint address = read and (kind == ARGUMENT_SENDER or kind == ARGUMENT_RECIPIENT)
    cdef bint brackets = scene.ruling.brackets
    cdef bint measured = dialogue.verb == VERB_MAIL and scene.ruling.sender_length
    if read and kind == ARGUMENT_CHUNK_SIZE and dialogue.address_phase != SIZE_INVALID:
        return 0
    while at < stop:
        at += nm_line_stop(octets + at, stop - at, not reported)
        if at == stop or octets[at] != LF or (address and at):
            break
        i = blank_lfs(scene, manner, octets + at, stop - at)
        if i == 0:
            break
        glued = at if glued == UINT32_MAX else glued
        at += i
    if reported and manner.blank_nul:
        blank_nuls(scene, octets, at)
    if address:
        for i in range(at):
            if measured or illegal[octets[i]] or (brackets and (octets[i] == c"<" or octets[i] == c">")):
                keep(line, octets + i, 1)
                address_octet(scene, dialogue, octets + i, offset + i)
                if scene.verdict != ACTION_PASS:
                    return i + 1
            else:
                keep(line, octets + i, 1)
    else:
        keep(line, octets, at)
    if glued < <uint32_t> (line.length - before):
        line.octets[before + glued] = LF           # as it came
    if address:
        return at
    if masked:
        fill(scene, octets, at, scene.ruling.letter)
    return at


cdef void blank_nuls(Scene *scene, uint8_t *octets, uint32_t length) noexcept nogil:
    cdef uint32_t i = 0
    while i < length and octets[i]:
        i += 1
    if i < length:
        note_change(scene)
        nm_blank_nuls(octets + i, length - i)


cdef inline uint32_t unmeasured(Scene *scene, Dialogue *dialogue) noexcept nogil:
    """How long the line may become before its next octet has to be measured."""
    cdef const Ruling *ruling = scene.ruling
    cdef uint32_t longest = UINT32_MAX
    if dialogue.line_length < ruling.near_length:
        return ruling.near_length
    if dialogue.phase == PHASE_ARGUMENT and scene.grammar.argument[dialogue.verb] == ARGUMENT_SECRET:
        return 0                                   # each is
    if ruling.line_length and not dialogue.reported & REPORTED_LENGTH:
        longest = ruling.line_length
    if ruling.longest_line and not dialogue.reported & REPORTED_CUT:
        if dialogue.phase != PHASE_ARGUMENT or not scene.grammar.long_line[dialogue.verb]:
            return ruling.longest_line if ruling.longest_line < longest else longest
        if ruling.longest_parameters < longest:
            return ruling.longest_parameters
    return longest


cdef uint32_t line_run(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets, uint32_t at,
                       uint32_t length, uint64_t offset) noexcept nogil:
    cdef uint32_t stop = length - at, run
    if dialogue.phase == PHASE_SASL:
        return 0                                   # each is measured
    run = unmeasured(scene, dialogue)
    if run <= dialogue.line_length:
        return 0
    if run - dialogue.line_length < stop:
        stop = run - dialogue.line_length
    if dialogue.phase == PHASE_VERB:
        run = verb_run(scene, dialogue, manner, octets + at, stop)
    else:
        run = argument_run(scene, dialogue, manner, octets + at, stop, offset + at)
    dialogue.line_length += run
    return run
