# Runs of bytes within a command line, none of which changes how the line is read.
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memset

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.argument cimport put
from nfmailguard.cext.smtp.command_line cimport CommandLine
from nfmailguard.cext.smtp.session cimport note_all_found

cdef enum MaskMode:                        # MaskMode: how the verb being read is masked
    MASK_NONE = 0
    MASK_UNDECIDED = 1                      # cut by the segment's end: decided byte by byte, by prefix
    MASK_LETTER = 2
    MASK_NOOP = 3

cdef enum Kind:                        # Kind: findings that are counted together for all lines of a segment
    KIND_DENIED = 0
    KIND_LF = 1
    KIND_CR = 2
    KIND_NUL = 3
    KIND_ILLEGAL = 4
    KIND_UPSTREAM = 5
    KIND_TOO_FAR = 6
    KINDS = 7

cdef struct LineRules:                    # how unusual bytes in command lines are treated, for one segment
    bint blank_lf              # 1: a bare LF becomes a space
    bint blank_nul             # 1: a NUL after the verb becomes a space
    bint blank_cr              # 1: the byte after a bare CR becomes a LF
    bint plain_cr              # 1: a CR without a LF is a byte like any other
    uint32_t whole             # bytes up to which a verb, or a line, may be read in one step
    uint32_t left[KINDS]       # how many more findings of a kind are known to be only counted, not logged
    uint32_t counted           # sum of `count` over all kinds
    uint64_t found             # bits of findings that are still to be added to Session.found
    uint64_t bit[KINDS]        # bit of each kind in `found`; 0 where the policy ignores the finding
    uint32_t count[KINDS]      # findings of each kind that are not yet counted in the tally

# Before an event record that reports findings: adds those made in this segment's lines to Session.found.
cdef inline void tell_found(Context *context, LineRules *rules) noexcept nogil:
    note_all_found(context.session, rules.found)
    rules.found = 0

# Forgets `left`: findings are counted elsewhere from here on, so it may be wrong.
cdef inline void forget_left(LineRules *rules) noexcept nogil:
    memset(rules.left, 0, sizeof(rules.left))

# Counts this segment's findings in the tally; has to come before anything else reads the tally or Session.found.
cdef inline void settle_counts(Context *context, LineRules *rules) noexcept nogil:
    if rules.counted:
        settle_each(context, rules)

cdef void settle_each(Context *context, LineRules *rules) noexcept nogil
# As `untold`, where the number in `left` is not enough to answer.
cdef bint more_untold(Context *context, LineRules *rules, Kind kind, uint32_t number) noexcept nogil

# Whether `number` more findings of a kind would only be counted: none of them logged, and none ending the flow.
cdef inline bint untold(Context *context, LineRules *rules, Kind kind, uint32_t number) noexcept nogil:
    return rules.left[<int> kind] >= number or more_untold(context, rules, kind, number)

# Counts `number` more findings of a kind, for which `untold` was true.
cdef inline void found(LineRules *rules, Kind kind, uint32_t number) noexcept nogil:
    rules.left[<int> kind] -= number
    rules.count[<int> kind] += number
    rules.counted += number
    rules.found |= rules.bit[<int> kind]

# Overwrites all bytes with `byte`.
cdef void fill(Context *context, uint8_t *data, uint32_t length, uint8_t byte) noexcept nogil

# Overwrites the bytes with the policy's mask letter; made for few bytes, the usual case.
cdef inline void mask_few(Context *context, uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i
    if length > 4:
        fill(context, data, length, context.policy.letter)
        return
    for i in range(length):
        put(context, data + i, context.policy.letter)

# Sets the rules for a segment from the policy.
cdef void line_rules_of(Context *context, LineRules *rules) noexcept nogil
# Reads a run of bytes at data[at:] that only continue a line that has begun; returns how many. Not for the byte after a
# CR.
cdef uint32_t line_run(Context *context, CommandLine *command, const LineRules *rules, uint8_t *data, uint32_t at,
                       uint32_t length, uint64_t offset) noexcept nogil
