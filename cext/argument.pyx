# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Arguments of commands: what addresses, chunk sizes and NULs become.

Promises: an octet is decided from what stands before it in its line, so segmentation
decides nothing. Does not know verbs, lines or streams.
"""

from libc.stdint cimport INT32_MAX

from nfmailguard.cext.smtp cimport (
    ACTION_BLANK,
    ACTION_MASK,
    ADDRESS_ILLEGAL_CHARACTER,
    ADDRESS_TOO_LONG,
    BDAT_SIZE_INVALID,
    COMMAND_NUL,
    PHASE_ARGUMENT,
    VERB_BDAT,
    VERB_MAIL,
    report,
    upper,
)

cdef enum:
    SPACE = 32
    CLOSING_BRACKET = 62

cdef enum:                             # of Dialogue.reported
    REPORTED_CHARACTER = 2
    REPORTED_ADDRESS = 4

cdef enum AddressPhase:
    ADDRESS_BEFORE = 0
    ADDRESS_COLON = 1                  # behind FROM:, no word yet
    ADDRESS_PATH = 2                   # between < and >
    ADDRESS_WORD = 3                   # an address without brackets
    ADDRESS_BEHIND = 4


cdef void measure_address(Scene *scene, Dialogue *dialogue, uint8_t octet, uint64_t offset) noexcept nogil:
    # ASA class 5: the octets between < and >, or of the first word where there is no <.
    cdef uint8_t phase = dialogue.address_phase
    cdef uint8_t end = CLOSING_BRACKET if phase == ADDRESS_PATH else SPACE
    if octet == c"<" and phase != ADDRESS_PATH and phase != ADDRESS_BEHIND:
        dialogue.address_phase = ADDRESS_PATH
        dialogue.address_length = 0
    elif phase == ADDRESS_BEFORE:
        if octet == c":":
            dialogue.address_phase = ADDRESS_COLON
    elif phase == ADDRESS_COLON:
        if octet != SPACE:
            dialogue.address_phase = ADDRESS_WORD
            dialogue.address_length = 1
    elif phase == ADDRESS_PATH or phase == ADDRESS_WORD:
        if octet == end:
            dialogue.address_phase = ADDRESS_BEHIND
        else:
            dialogue.address_length += 1
    if dialogue.address_length > scene.ruling.sender_length and not dialogue.reported & REPORTED_ADDRESS:
        dialogue.reported |= REPORTED_ADDRESS
        report(scene, ADDRESS_TOO_LONG, True, dialogue.verb, offset, NULL, 0, NULL, 0)


cdef void address_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil:
    cdef uint8_t octet = at[0]
    cdef bint illegal = scene.ruling.illegal[octet]
    if scene.ruling.brackets:                      # S-ASDM: "> must be preceded by <"
        if octet == c"<":
            illegal |= dialogue.bracket
            dialogue.bracket = 1
        elif octet == c">":
            illegal |= not dialogue.bracket
            dialogue.bracket = 0
    if illegal:
        if not dialogue.reported & REPORTED_CHARACTER:
            dialogue.reported |= REPORTED_CHARACTER
            report_octet(scene, ADDRESS_ILLEGAL_CHARACTER, dialogue.verb, offset, octet, SPACE)
        if scene.ruling.apply and scene.ruling.action[ADDRESS_ILLEGAL_CHARACTER] == ACTION_BLANK:
            put(scene, at, SPACE)
    if dialogue.verb == VERB_MAIL and scene.ruling.sender_length:
        measure_address(scene, dialogue, octet, offset)


cdef void size_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil:
    # RFC 3030 2, to the letter: chunk-size is 1*DIGIT, [ SP "LAST" ]. What a server reads otherwise
    # (a leading 0 as octal, more than 31 bits as fewer, anything behind as nothing) is no size.
    cdef const char *last = b" LAST"
    cdef uint8_t octet = at[0]
    cdef uint8_t digit = <uint8_t> (octet - 48)
    cdef uint8_t phase = dialogue.address_phase
    if phase == SIZE_INVALID:
        return
    if digit <= 9 and phase == SIZE_FIRST:
        dialogue.chunk_left = digit
        dialogue.address_phase = SIZE_DIGITS if digit else SIZE_ZERO
    elif digit <= 9 and phase == SIZE_DIGITS and dialogue.chunk_left <= (<uint64_t> INT32_MAX - digit) // 10:
        dialogue.chunk_left = dialogue.chunk_left * 10 + digit
    elif octet == SPACE and (phase == SIZE_ZERO or phase == SIZE_DIGITS):
        dialogue.address_phase = SIZE_BEHIND
    elif SIZE_BEHIND <= phase < SIZE_LAST and upper(octet) == <uint8_t> last[phase - SIZE_BEHIND + 1]:
        dialogue.address_phase += 1
    else:
        dialogue.address_phase = SIZE_INVALID
        if report(scene, BDAT_SIZE_INVALID, True, VERB_BDAT, offset, &octet, 1, NULL, 0) == ACTION_MASK:
            dialogue.denied = 1
            dialogue.mask_rest = 1
            put(scene, at, scene.ruling.letter)


cdef void nul_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil:
    # RFC 5321 2.4, 4.1.2: never in a command; some servers leave it out, some end the line there.
    if not dialogue.reported & REPORTED_NUL:
        dialogue.reported |= REPORTED_NUL
        report_octet(scene, COMMAND_NUL, dialogue.verb, offset, 0, SPACE)
    # In a verb it stays what it is: such a verb is none, and is masked.
    if scene.ruling.apply and scene.ruling.action[COMMAND_NUL] == ACTION_BLANK and dialogue.phase >= PHASE_ARGUMENT:
        put(scene, at, SPACE)
