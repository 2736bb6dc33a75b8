# Arguments of commands, octet by octet: addresses, chunk sizes, NULs, and how long lines are.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context, again, note_change, report_shown, shown
from nfmailguard.cext.policy.numbers cimport NOT_AGAIN
from nfmailguard.cext.policy.ruling cimport ADDRESS_CLOSES, ADDRESS_ILLEGAL, ADDRESS_OPENS
from nfmailguard.cext.smtp.command_line cimport PHASE_ARGUMENT, PHASE_SASL, Argument, CommandLine
from nfmailguard.cext.smtp.grammar cimport ARGUMENT_SECRET

cdef enum SizePhase:                   # of BDAT, in Argument.phase
    SIZE_FIRST = 0
    SIZE_ZERO = 1                      # a 0, behind which no digit follows
    SIZE_DIGITS = 2
    SIZE_BEHIND = 3                    # the space behind them
    SIZE_L = 4
    SIZE_LA = 5
    SIZE_LAS = 6
    SIZE_LAST = 7
    SIZE_INVALID = 8

cdef enum:                             # bits of CommandLine.reported
    REPORTED_LENGTH = 1
    REPORTED_CHARACTER = 2
    REPORTED_ADDRESS = 4
    REPORTED_NUL = 8
    REPORTED_CUT = 16

cdef enum:
    SEVEN_BITS = 5                     # of Argument.in_seven: MAIL's argument has said =7BIT

# How many bytes of "=7BIT" MAIL's argument ends in, or SEVEN_BITS; `matched` before these.
cdef uint8_t seven_bits_in(const uint8_t *data, uint32_t length, uint8_t matched) noexcept nogil
# Whether it says so.
cdef inline bint says_seven_bits(const uint8_t *data, uint32_t length, uint8_t matched) noexcept nogil:
    return seven_bits_in(data, length, matched) == SEVEN_BITS
# Whether a byte of an address, of this AddressByte, is illegal; `bracket`: < has come, and no > behind it.
cdef inline bint is_illegal(uint8_t kind, uint8_t *bracket) noexcept nogil:
    cdef bint illegal
    if kind == 0:
        return False
    illegal = kind & ADDRESS_ILLEGAL
    if kind & ADDRESS_OPENS:
        illegal |= bracket[0]
        bracket[0] = 1
    elif kind & ADDRESS_CLOSES:
        illegal |= not bracket[0]
        bracket[0] = 0
    return illegal

# The next octets of MAIL's or RCPT's argument; how many have been read, where a verdict ends the flow.
cdef uint32_t address_bytes(Context *context, CommandLine *command, uint8_t *data, uint32_t length,
                            uint64_t offset) noexcept nogil

# Whether BDAT's argument may end here.
cdef inline bint size_complete(const Argument *argument) noexcept nogil:
    return argument.phase in (SIZE_ZERO, SIZE_DIGITS, SIZE_LAST, SIZE_INVALID)

# Reports that BDAT's argument is none; whether the rest of the line is to be masked.
cdef bint invalid_size(Context *context, CommandLine *command, const uint8_t *byte, uint32_t length,
                       uint64_t offset) noexcept nogil
# The next octet of BDAT's argument.
cdef void size_byte(Context *context, CommandLine *command, uint8_t *at, uint64_t offset) noexcept nogil
# An octet has made the line longer: where it is longer than it may be, all from here on is masked.
cdef void measure_line(Context *context, CommandLine *command, uint8_t byte, uint64_t offset) noexcept nogil
# Whether the line's next octet may be a part of a secret.
cdef inline bint with_secret(Context *context, CommandLine *command) noexcept nogil:
    return command.phase == PHASE_SASL or (
        command.phase == PHASE_ARGUMENT and context.grammar.argument[command.verb] == ARGUMENT_SECRET)

# How many of a secret's next octets need not be measured one by one.
cdef uint32_t secret_stop(Context *context, CommandLine *command, const uint8_t *data, uint32_t stop) noexcept nogil
# Keeps the last of its octets; as `measure_line` does, of many.
cdef void note_tail(CommandLine *command, const uint8_t *data, uint32_t length) noexcept nogil
# One octet of a line behind AUTH.
cdef void sasl_byte(Context *context, CommandLine *command, uint8_t *at, uint64_t offset) noexcept nogil
# AUTH's line, or one behind it, ends here; any other is left alone.
cdef void end_secret(Context *context, CommandLine *command, uint64_t offset) noexcept nogil
# A NUL anywhere in a command line.
cdef void nul_byte(Context *context, CommandLine *command, uint8_t *at, uint64_t offset) noexcept nogil

# Reports an octet of a command line that has no place there, and what it becomes; `open`: it is no secret's.
cdef inline uint8_t report_byte(Context *context, uint8_t finding, uint8_t verb, uint64_t offset, uint8_t byte,
                                uint8_t becomes, bint open) noexcept nogil:
    cdef uint8_t action = again(context, finding, True)
    if action == NOT_AGAIN:
        action = report_shown(context, finding, True, verb, offset, shown(&byte, open, &becomes, 1))
    return action

cdef inline void put(Context *context, uint8_t *at, uint8_t byte) noexcept nogil:
    if at[0] != byte:
        note_change(context)
        at[0] = byte
