# Arguments of commands, octet by octet: addresses, chunk sizes, NULs, and how long lines are.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfmailguard.cext.smtp cimport NOT_AGAIN, Dialogue, Scene, again, note_change, report

cdef enum SizePhase:                   # of BDAT, in Dialogue.address_phase
    SIZE_FIRST = 0
    SIZE_ZERO = 1                      # a 0, behind which no digit follows
    SIZE_DIGITS = 2
    SIZE_BEHIND = 3                    # the space behind them
    SIZE_L = 4
    SIZE_LA = 5
    SIZE_LAS = 6
    SIZE_LAST = 7
    SIZE_INVALID = 8

cdef enum:                             # bits of Dialogue.reported; the others are argument's own
    REPORTED_LENGTH = 1
    REPORTED_NUL = 8
    REPORTED_CUT = 16

# The next octet of MAIL's or RCPT's argument.
cdef void address_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil
# Whether BDAT's argument may end here.
cdef inline bint size_complete(Dialogue *dialogue) noexcept nogil:
    return dialogue.address_phase in (SIZE_ZERO, SIZE_DIGITS, SIZE_LAST, SIZE_INVALID)

# Reports that BDAT's argument is none; whether the rest of the line is to be masked.
cdef bint invalid_size(Scene *scene, Dialogue *dialogue, const uint8_t *octet, uint32_t length,
                       uint64_t offset) noexcept nogil
# The next octet of BDAT's argument.
cdef void size_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil
# An octet has made the line longer: where it is longer than it may be, all from here on is masked.
cdef void measure_line(Scene *scene, Dialogue *dialogue, uint8_t octet, uint64_t offset) noexcept nogil
# One octet of a line behind AUTH.
cdef void sasl_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil
# AUTH's line, or one behind it, ends here; any other is left alone.
cdef void end_secret(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil
# A NUL anywhere in a command line.
cdef void nul_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil

# Reports an octet of a command line that has no place there, and what it becomes; `shown`: it is no secret's.
cdef inline uint8_t report_octet(Scene *scene, uint8_t finding, uint8_t verb, uint64_t offset, uint8_t octet,
                                 uint8_t becomes, bint shown) noexcept nogil:
    cdef uint8_t action = again(scene, finding, True)
    if action == NOT_AGAIN:
        action = report(scene, finding, True, verb, offset, &octet, shown, &becomes, 1)
    return action

cdef inline void put(Scene *scene, uint8_t *at, uint8_t octet) noexcept nogil:
    if at[0] != octet:
        note_change(scene)
        at[0] = octet
