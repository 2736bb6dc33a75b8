# The state of the command line that is being read.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.numbers cimport VERB_UNKNOWN
from nfmailguard.cext.smtp.line cimport Line, line_begin

cdef enum:  # Phase: the part of a command line that the client's next byte belongs to
    PHASE_START = 0
    PHASE_VERB = 1
    PHASE_ARGUMENT = 2
    PHASE_SASL = 3             # a line without a verb: a SASL response (RFC 4954 4)

# How far the argument of the line's verb has been read; module `argument` reads it.
cdef struct Argument:
    uint32_t counted           # bytes of MAIL's address so far; for BDAT, the chunk size
    uint8_t phase              # AddressPhase for MAIL's argument; SizePhase for BDAT's
    uint8_t bracket            # 1: a < of the address has not been closed by a > yet
    uint8_t in_seven           # bytes of "=7BIT" that MAIL's argument ends in, or SEVEN_BITS
    uint8_t tail[8]            # the last bytes of a line with a secret (AUTH), upper case

cdef struct CommandLine:
    Line *kept                 # the line's first bytes as they came; NULL between lines
    uint64_t offset            # client stream offset of the line's first byte
    uint32_t length
    uint16_t verb_length       # bytes of the verb; 0xffff: that many or more
    uint8_t phase              # Phase: the part of the line the next byte belongs to
    uint8_t leading            # 1: only spaces and control bytes have come so far, no letter of the verb
    uint8_t mode               # MaskMode: how the verb being read is masked
    uint8_t verb
    uint8_t denied
    uint8_t mask_rest          # 1: the rest of the line is overwritten with the mask letter
    uint8_t after_cr
    uint8_t reported           # REPORTED_ bits: findings already made in this line, not to be repeated
    Argument argument

# Begins a command line: no byte of it has been read.
cdef inline void begin_line(CommandLine *command, uint64_t offset) noexcept nogil:
    command.offset = offset
    command.length = 0
    command.verb_length = 0
    command.verb = VERB_UNKNOWN
    command.reported = 0
    command.denied = 0
    command.mask_rest = 0
    command.leading = 1

# Begins a line whose verb, all of it and no more, has been read in one step; `room` bytes may be read at `data`.
cdef inline void begin_with_verb(CommandLine *command, Line *kept, const uint8_t *data, uint32_t length,
                                 uint32_t room) noexcept nogil:
    command.kept = kept
    command.length = command.verb_length = <uint16_t> length
    command.leading = data[0] <= c" "
    line_begin(kept, data, length, room)

# Sets how the verb that has been read is masked.
cdef inline void choose_mode(CommandLine *command, uint8_t mode) noexcept nogil:
    command.mode = mode
    command.phase = PHASE_VERB

# Begins the argument: no byte of it has been read.
cdef inline void begin_argument(CommandLine *command, uint8_t verb) noexcept nogil:
    command.phase = PHASE_ARGUMENT
    command.verb = verb
    command.argument.phase = 0
    command.argument.counted = 0
    command.argument.bracket = 0
    command.argument.in_seven = 0

cdef inline void lengthen(CommandLine *command, uint32_t length) noexcept nogil:
    command.length += length

cdef inline void lengthen_verb(CommandLine *command, uint32_t length) noexcept nogil:
    length += command.verb_length
    command.verb_length = <uint16_t> length if length < 0xffff else 0xffff

# keep_cr: a CR has come, and the byte after it has not; take_cr: the byte after the CR has come.
cdef inline void keep_cr(CommandLine *command) noexcept nogil:
    command.after_cr = 1

cdef inline void take_cr(CommandLine *command) noexcept nogil:
    command.after_cr = 0

cdef inline void note_reported(CommandLine *command, uint8_t bits) noexcept nogil:
    command.reported |= bits

# Masks the line from the next byte on.
cdef inline void mask_from_here(CommandLine *command) noexcept nogil:
    command.mask_rest = 1

cdef inline void deny(CommandLine *command) noexcept nogil:
    command.denied = 1

# Begins a line without a verb: the SASL response that a 334 reply has asked for.
cdef inline void begin_sasl_line(CommandLine *command) noexcept nogil:
    command.phase = PHASE_SASL
    command.length = 0
    command.reported = 0
    command.mask_rest = 0

# Ends a line whose kept first bytes have been given back: none of its bytes counts any more.
cdef inline void close_line(CommandLine *command) noexcept nogil:
    command.phase = PHASE_START

# Forgets the line's verb: between two command lines there is none.
cdef inline void forget_verb(CommandLine *command) noexcept nogil:
    command.verb = VERB_UNKNOWN

# The client's next bytes are not command lines, but a message or TLS.
cdef inline void leave_commands(CommandLine *command) noexcept nogil:
    command.phase = PHASE_START
    command.after_cr = 0
    command.reported = 0
