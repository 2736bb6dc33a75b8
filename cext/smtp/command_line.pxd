# The command line that is being read.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.numbers cimport VERB_UNKNOWN
from nfmailguard.cext.smtp.line cimport Line, line_begin

cdef enum:  # Phase: where the next octet of the client's stands in its line
    PHASE_START = 0
    PHASE_VERB = 1
    PHASE_ARGUMENT = 2
    PHASE_SASL = 3             # a line without a verb (RFC 4954 4)

# The argument of the line's verb; `argument` reads it.
cdef struct Argument:
    uint32_t counted           # bytes of an address so far; of BDAT, its size
    uint8_t phase              # AddressPhase; of BDAT, SizePhase
    uint8_t bracket            # < has come, and no > behind it
    uint8_t in_seven           # bytes of "=7BIT" that MAIL's argument ends in, all: it was said
    uint8_t tail[8]            # the last octets of a line with a secret, upper case

cdef struct CommandLine:
    Line *kept                 # its beginning; NULL between lines
    uint64_t offset            # stream offset of its first octet
    uint32_t length
    uint16_t verb_length       # 0xffff: so many or more
    uint8_t phase              # Phase
    uint8_t leading            # the verb has only space and control octets so far
    uint8_t mode               # MaskMode: what becomes of the verb being read
    uint8_t verb
    uint8_t denied
    uint8_t mask_rest          # the rest of the line becomes letters
    uint8_t after_cr
    uint8_t reported           # bits of Reported: findings already made in this line
    Argument argument

# Nothing of a line has been read.
cdef inline void begin_line(CommandLine *command, uint64_t offset) noexcept nogil:
    command.offset = offset
    command.length = 0
    command.verb_length = 0
    command.verb = VERB_UNKNOWN
    command.reported = 0
    command.denied = 0
    command.mask_rest = 0
    command.leading = 1

# What a line begins with has been read at once: its verb, all of it, and no more.
cdef inline void begin_with_verb(CommandLine *command, Line *kept, const uint8_t *data, uint32_t length,
                                 uint32_t room) noexcept nogil:
    command.kept = kept
    command.length = command.verb_length = <uint16_t> length
    command.leading = data[0] <= c" "
    line_begin(kept, data, length, room)

# The verb that has been read is masked so.
cdef inline void choose_mode(CommandLine *command, uint8_t mode) noexcept nogil:
    command.mode = mode
    command.phase = PHASE_VERB

# No byte of an argument has been read.
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

# A CR has come, and what follows it has not; now that is known.
cdef inline void keep_cr(CommandLine *command) noexcept nogil:
    command.after_cr = 1

cdef inline void take_cr(CommandLine *command) noexcept nogil:
    command.after_cr = 0

cdef inline void note_reported(CommandLine *command, uint8_t bits) noexcept nogil:
    command.reported |= bits

# The rest of the line is masked.
cdef inline void mask_from_here(CommandLine *command) noexcept nogil:
    command.mask_rest = 1

cdef inline void deny(CommandLine *command) noexcept nogil:
    command.denied = 1

# A line without a verb comes next: what 334 has asked for.
cdef inline void begin_sasl_line(CommandLine *command) noexcept nogil:
    command.phase = PHASE_SASL
    command.length = 0
    command.reported = 0
    command.mask_rest = 0

# None of its bytes counts any more; its beginning has been given back.
cdef inline void close_line(CommandLine *command) noexcept nogil:
    command.phase = PHASE_START

# Between two lines there is no verb.
cdef inline void forget_verb(CommandLine *command) noexcept nogil:
    command.verb = VERB_UNKNOWN

# What comes next is no line of commands.
cdef inline void leave_commands(CommandLine *command) noexcept nogil:
    command.phase = PHASE_START
    command.after_cr = 0
    command.reported = 0
