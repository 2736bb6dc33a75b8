# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Runs: the octets of a command line that are what stood before them, many at a time.

Promises: each is what ``command`` would make of it by itself, at a fraction of the cost; a run
stops in front of the first that may be more than one more octet of its verb or argument. A bare LF
or a NUL of which nothing more is told is no more than that. Does not know verbs.
"""

from nfmailguard.cext.argument cimport REPORTED_NUL, SIZE_INVALID, address_octet, put
from nfmailguard.cext.smtp cimport (
    ACTION_BLANK,
    ACTION_PASS,
    ARGUMENT_CHUNK_SIZE,
    ARGUMENT_RECIPIENT,
    ARGUMENT_SENDER,
    COMMAND_BARE_LF,
    COMMAND_NUL,
    PHASE_SASL,
    PHASE_VERB,
    SECRET_SAID,
    VERB_MAIL,
    Line,
    again,
    line_add,
)

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32


cdef void manner_of(Scene *scene, Manner *manner) noexcept nogil:
    manner.blank_lf = scene.ruling.apply and scene.ruling.action[COMMAND_BARE_LF] == ACTION_BLANK
    manner.blank_nul = scene.ruling.apply and scene.ruling.action[COMMAND_NUL] == ACTION_BLANK


cdef inline bint goes_on(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *at) noexcept nogil:
    """Whether an octet up to SPACE belongs to a run; a LF or NUL is blanked."""
    if at[0] == LF:
        if not manner.blank_lf or again(scene, COMMAND_BARE_LF, True) != ACTION_BLANK:
            return False
        put(scene, at, SPACE)
        scene.session.secret |= SECRET_SAID        # what follows was to be another line, maybe AUTH's
    elif at[0] == 0:
        if not dialogue.reported & REPORTED_NUL:
            return False
        if manner.blank_nul and dialogue.phase != PHASE_VERB:
            put(scene, at, SPACE)
    return at[0] != CR


cdef uint32_t verb_run(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets,
                       uint32_t stop) noexcept nogil:
    cdef Line *line = dialogue.command
    cdef uint32_t at = 0, place = dialogue.verb_length
    cdef uint8_t fate = dialogue.fate
    cdef uint8_t letter = scene.ruling.letter
    cdef bint leading = dialogue.leading
    cdef const char *noop = b"NOOP"
    if fate == FATE_OPEN:
        return 0
    while at < stop:
        if octets[at] > SPACE:
            if leading:
                break
        elif not leading and (octets[at] == SPACE or octets[at] == LF):
            break
        elif not goes_on(scene, dialogue, manner, octets + at):
            break
        line_add(line, octets[at])
        if fate == FATE_LETTER:
            put(scene, octets + at, letter)
        elif fate == FATE_NOOP:
            put(scene, octets + at, noop[place + at] if place + at < 4 else SPACE)
        at += 1
    if fate == FATE_PASS:
        line.sent += <uint16_t> at
    dialogue.verb_length = <uint16_t> (place + at) if place + at < 0xffff else 0xffff
    return at


cdef uint32_t argument_run(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets, uint32_t stop,
                           uint64_t offset) noexcept nogil:
    cdef Line *line = dialogue.command
    cdef uint32_t at = 0
    cdef uint8_t kind = scene.grammar.argument[dialogue.verb]
    cdef uint8_t letter = scene.ruling.letter
    cdef uint8_t octet, came
    cdef const uint8_t *illegal = scene.ruling.illegal
    cdef bint brackets = scene.ruling.brackets
    cdef bint masked = dialogue.mask_rest
    cdef bint address = (kind == ARGUMENT_SENDER or kind == ARGUMENT_RECIPIENT) and not masked and not dialogue.denied
    cdef bint measured = dialogue.verb == VERB_MAIL and scene.ruling.sender_length
    if kind == ARGUMENT_CHUNK_SIZE and not masked and not dialogue.denied and dialogue.address_phase != SIZE_INVALID:
        return 0
    while at < stop:
        came = octets[at]
        if came <= SPACE and not goes_on(scene, dialogue, manner, octets + at):
            break
        octet = octets[at]
        line_add(line, came)
        if masked:
            put(scene, octets + at, letter)
        elif address and (measured or illegal[octet] or (brackets and (octet == c"<" or octet == c">"))):
            address_octet(scene, dialogue, octets + at, offset + at)
            if scene.verdict != ACTION_PASS:
                return at + 1
        at += 1
    return at


cdef uint32_t line_run(Scene *scene, Dialogue *dialogue, const Manner *manner, uint8_t *octets, uint32_t at,
                       uint32_t length, uint64_t offset) noexcept nogil:
    cdef uint32_t stop = length - at, run
    if dialogue.phase == PHASE_SASL or dialogue.line_length >= scene.ruling.near_length:
        return 0                                   # each is measured
    if scene.ruling.near_length - dialogue.line_length < stop:
        stop = scene.ruling.near_length - dialogue.line_length
    if dialogue.phase == PHASE_VERB:
        run = verb_run(scene, dialogue, manner, octets + at, stop)
    else:
        run = argument_run(scene, dialogue, manner, octets + at, stop, offset + at)
    dialogue.line_length += run
    return run
