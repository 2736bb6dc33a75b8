# Runs of octets within a command line, none of which changes how it is read.
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memset

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.argument cimport put
from nfmailguard.cext.smtp.command_line cimport CommandLine
from nfmailguard.cext.smtp.session cimport note_all_found

cdef enum MaskMode:                        # of the verb being read
    MASK_NONE = 0
    MASK_UNDECIDED = 1                      # cut by the segment's end: decided by prefix
    MASK_LETTER = 2
    MASK_NOOP = 3

cdef enum Kind:                        # findings that are counted together for a segment's lines
    KIND_DENIED = 0
    KIND_LF = 1
    KIND_CR = 2
    KIND_NUL = 3
    KIND_ILLEGAL = 4
    KIND_UPSTREAM = 5
    KIND_TOO_FAR = 6
    KINDS = 7

cdef struct LineRules:                    # how odd octets are taken
    bint blank_lf              # a LF becomes a space
    bint blank_nul             # behind a verb a NUL, likewise
    bint blank_cr              # what stands behind a CR becomes a LF
    bint plain_cr              # a CR without a LF is an octet as any other
    uint32_t whole             # octets of a verb, or a line, that may be read at once
    uint32_t left[KINDS]       # how many more of a kind would not be told, as far as it is known
    uint32_t counted           # of all kinds
    uint64_t found             # bits of those that are to be in Session.found, and are not
    uint64_t bit[KINDS]        # of each kind; 0 where nothing is made of it
    uint32_t count[KINDS]      # of them, those that are yet to be counted in the tally

# A record is to tell of what has been found: so far in these lines, too.
cdef inline void tell_found(Context *context, LineRules *rules) noexcept nogil:
    note_all_found(context.session, rules.found)
    rules.found = 0

# How many more would not be told is not known any more: others count from here on.
cdef inline void forget_left(LineRules *rules) noexcept nogil:
    memset(rules.left, 0, sizeof(rules.left))

# Counts in the tally what has been found; before anything else may look there, or at Session.found.
cdef inline void settle_counts(Context *context, LineRules *rules) noexcept nogil:
    if rules.counted:
        settle_each(context, rules)

cdef void settle_each(Context *context, LineRules *rules) noexcept nogil
# As `untold`, where more than is known is asked for.
cdef bint more_untold(Context *context, LineRules *rules, Kind kind, uint32_t number) noexcept nogil

# Whether so many more findings of a kind are told nobody and end nothing.
cdef inline bint untold(Context *context, LineRules *rules, Kind kind, uint32_t number) noexcept nogil:
    return rules.left[<int> kind] >= number or more_untold(context, rules, kind, number)

# Counts as many of them.
cdef inline void found(LineRules *rules, Kind kind, uint32_t number) noexcept nogil:
    rules.left[<int> kind] -= number
    rules.count[<int> kind] += number
    rules.counted += number
    rules.found |= rules.bit[<int> kind]

# Makes all of them `byte`.
cdef void fill(Context *context, uint8_t *data, uint32_t length, uint8_t byte) noexcept nogil

# Makes them the policy's letter; most are few.
cdef inline void mask_few(Context *context, uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    if length > 4:
        fill(context, data, length, context.policy.letter)
        return
    for i in range(length):
        put(context, data + i, context.policy.letter)

# As the policy has it; for a whole segment.
cdef void line_rules_of(Context *context, LineRules *rules) noexcept nogil
# Reads data[at:], as far as that is what they are, of a line that has begun; how many. Behind a CR there are none.
cdef uint32_t line_run(Context *context, CommandLine *command, const LineRules *rules, uint8_t *data, uint32_t at,
                       uint32_t length, uint64_t offset) noexcept nogil
