# Arguments of commands, byte by byte: addresses, chunk sizes, NUL bytes, and the length of command lines.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context, again, note_change, report_shown, shown
from nfmailguard.cext.policy.numbers cimport NOT_AGAIN
from nfmailguard.cext.policy.ruling cimport ADDRESS_CLOSES, ADDRESS_ILLEGAL, ADDRESS_OPENS
from nfmailguard.cext.smtp.command_line cimport PHASE_ARGUMENT, PHASE_SASL, Argument, CommandLine
from nfmailguard.cext.smtp.grammar cimport ARGUMENT_SECRET

cdef enum SizePhase:  # how far BDAT's argument has been read: chunk size, then optionally LAST; kept in Argument.phase
    SIZE_FIRST = 0
    SIZE_ZERO = 1                      # the chunk size is a single 0, after which no digit may follow
    SIZE_DIGITS = 2
    SIZE_BEHIND = 3                    # the space after the chunk size has been read; LAST may follow
    SIZE_L = 4
    SIZE_LA = 5
    SIZE_LAS = 6
    SIZE_LAST = 7
    SIZE_INVALID = 8

cdef enum:                             # bits of CommandLine.reported: findings already made in this command line
    REPORTED_LENGTH = 1
    REPORTED_CHARACTER = 2
    REPORTED_ADDRESS = 4
    REPORTED_NUL = 8
    REPORTED_CUT = 16

cdef enum:
    SEVEN_BITS = 5                     # value of Argument.in_seven: MAIL's argument contains "=7BIT"

# How many bytes of "=7BIT" MAIL's argument now ends in, or SEVEN_BITS once it contained all of it; `matched` is that
# value before the bytes of `data`.
cdef uint8_t seven_bits_in(const uint8_t *data, uint32_t length, uint8_t matched) noexcept nogil
# Whether MAIL's argument contains "=7BIT", in what was read of it before (`matched`) and the bytes of `data`.
cdef inline bint says_seven_bits(const uint8_t *data, uint32_t length, uint8_t matched) noexcept nogil:
    return seven_bits_in(data, length, matched) == SEVEN_BITS
# Whether a byte of an address is illegal. `kind` is its AddressByte class; `bracket` is 1 after a < that no > has
# closed.
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

# Checks the next bytes of MAIL's or RCPT's argument, and blanks illegal ones where the policy says so. Returns how many
# bytes were read: fewer than `length` only where a verdict ends the flow.
cdef uint32_t address_bytes(Context *context, CommandLine *command, uint8_t *data, uint32_t length,
                            uint64_t offset) noexcept nogil

# Whether BDAT's argument is complete, so that the line may end here; an invalid argument, already reported, counts as
# complete.
cdef inline bint size_complete(const Argument *argument) noexcept nogil:
    return argument.phase in (SIZE_ZERO, SIZE_DIGITS, SIZE_LAST, SIZE_INVALID)

# Reports that BDAT's argument is not a valid chunk size; returns whether the rest of the line is to be masked.
cdef bint invalid_size(Context *context, CommandLine *command, const uint8_t *byte, uint32_t length,
                       uint64_t offset) noexcept nogil
# Reads the next byte of BDAT's argument.
cdef void size_byte(Context *context, CommandLine *command, uint8_t *at, uint64_t offset) noexcept nogil
# A byte has been added to the command line: if the line is now longer than allowed, it is reported, and all bytes from
# here on are masked where the policy says so.
cdef void measure_line(Context *context, CommandLine *command, uint8_t byte, uint64_t offset) noexcept nogil
# Whether the next byte of the line may be part of a secret: AUTH's argument, or a SASL response line.
cdef inline bint with_secret(Context *context, CommandLine *command) noexcept nogil:
    return command.phase == PHASE_SASL or (
        command.phase == PHASE_ARGUMENT and context.grammar.argument[command.verb] == ARGUMENT_SECRET)

# How many of a secret's next bytes need not be checked one by one with measure_line.
cdef uint32_t secret_stop(Context *context, CommandLine *command, const uint8_t *data, uint32_t stop) noexcept nogil
# Keeps the last bytes of a secret in Argument.tail, upper case, for many bytes at once; measure_line does so for one.
cdef void note_tail(CommandLine *command, const uint8_t *data, uint32_t length) noexcept nogil
# Reads one byte of a SASL response line (a line without a verb, after AUTH).
cdef void sasl_byte(Context *context, CommandLine *command, uint8_t *at, uint64_t offset) noexcept nogil
# Checks at the end of AUTH's line, or of a SASL response line, whether a server may read its last letters as a command.
# Does nothing for other lines.
cdef void end_secret(Context *context, CommandLine *command, uint64_t offset) noexcept nogil
# Reports a NUL byte in a command line; in an argument it becomes a space where the policy says so.
cdef void nul_byte(Context *context, CommandLine *command, uint8_t *at, uint64_t offset) noexcept nogil

# Reports a byte that is not allowed in a command line, and the byte that replaces it. `open`: the byte may be shown, as
# it is not part of a secret.
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
