# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Runs: bytes of a command line that only continue its verb or argument, handled many at a time.

Promises: each byte becomes what ``command`` would make of it alone, at a fraction of the cost; a run stops before the
first byte that may be more than one more byte of its verb or argument. A bare LF, or a NUL, whose finding is only
counted does not stop a run. Does not know verbs.
"""

from libc.stdint cimport UINT32_MAX
from libc.string cimport memset

from nfmailguard.cext.policy.findings cimport note_change, repeat
from nfmailguard.cext.policy.numbers cimport (
    ACTION_BLANK, ACTION_DROP, ACTION_PASS, ADDRESS_ILLEGAL_CHARACTER, COMMAND_BARE_CR, COMMAND_BARE_LF,
    COMMAND_DENIED, COMMAND_NUL, COMMAND_PIPELINED_TOO_FAR, LINE_BYTES_SHOWN, UPSTREAM_COMMAND_MASKED,
)
from nfmailguard.cext.policy.ruling cimport CompiledPolicy, applies
from nfmailguard.cext.policy.tally cimport tally_untold
from nfmailguard.cext.smtp.argument cimport (
    REPORTED_CHARACTER, REPORTED_CUT, REPORTED_LENGTH, REPORTED_NUL, SIZE_INVALID, address_bytes,
    note_tail, put, secret_stop, with_secret,
)
from nfmailguard.cext.smtp.command_line cimport PHASE_ARGUMENT, PHASE_SASL, PHASE_VERB, lengthen, lengthen_verb
from nfmailguard.cext.smtp.grammar cimport ARGUMENT_CHUNK_SIZE, ARGUMENT_RECIPIENT, ARGUMENT_SENDER
from nfmailguard.cext.smtp.line cimport Line, line_add, line_add_all, line_let_through, line_restore
from nfmailguard.cext.smtp.session cimport note_secret_said

cdef extern from "scan.h" nogil:
    uint32_t nm_line_stop(const uint8_t *p, uint32_t length, bint nul) noexcept
    bint nm_differs(const uint8_t *p, uint32_t length, uint8_t byte) noexcept
    size_t nm_blank_nuls(uint8_t *p, size_t length) noexcept

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32


cdef void line_rules_of(Context *context, LineRules *rules) noexcept nogil:
    cdef const CompiledPolicy *policy = context.policy
    rules.blank_lf = applies(policy) and policy.action[COMMAND_BARE_LF] == ACTION_BLANK
    rules.blank_nul = applies(policy) and policy.action[COMMAND_NUL] == ACTION_BLANK
    rules.blank_cr = applies(policy) and policy.action[COMMAND_BARE_CR] == ACTION_BLANK
    rules.plain_cr = not applies(policy)
    rules.whole = rules.counted = 0
    rules.found = 0
    memset(rules.left, 0, sizeof(rules.left))
    memset(rules.count, 0, sizeof(rules.count))
    if not policy.restore and not policy.per_packet:
        rules.whole = policy.near_length if policy.near_length < LINE_BYTES_SHOWN else LINE_BYTES_SHOWN


cdef inline uint8_t finding_of(int kind) noexcept nogil:
    if kind == KIND_DENIED:
        return COMMAND_DENIED
    if kind == KIND_LF:
        return COMMAND_BARE_LF
    if kind == KIND_CR:
        return COMMAND_BARE_CR
    if kind == KIND_NUL:
        return COMMAND_NUL
    if kind == KIND_TOO_FAR:
        return COMMAND_PIPELINED_TOO_FAR
    return ADDRESS_ILLEGAL_CHARACTER if kind == KIND_ILLEGAL else UPSTREAM_COMMAND_MASKED


cdef void settle_each(Context *context, LineRules *rules) noexcept nogil:
    cdef int kind
    for kind in range(KINDS):
        if rules.count[kind]:
            repeat(context, finding_of(kind), rules.count[kind], False)
            rules.count[kind] = 0
    rules.counted = 0
    tell_found(context, rules)


cdef bint more_untold(Context *context, LineRules *rules, Kind kind, uint32_t number) noexcept nogil:
    cdef uint8_t finding = finding_of(kind)
    cdef uint8_t action = context.policy.action[finding]
    if rules.count[<int> kind]:
        repeat(context, finding, rules.count[<int> kind], False)
        rules.count[<int> kind] = 0
    rules.bit[<int> kind] = <uint64_t> 1 << finding if action != ACTION_PASS else 0
    if action == ACTION_PASS:
        rules.left[<int> kind] = UINT32_MAX
    elif action < ACTION_DROP:
        rules.left[<int> kind] = tally_untold(&context.session.tally, finding, context.policy.findings_told)
    return rules.left[<int> kind] >= number


cdef void fill(Context *context, uint8_t *data, uint32_t length, uint8_t byte) noexcept nogil:
    if context.edits == 0:
        if not nm_differs(data, length, byte):
            return
        note_change(context)
    memset(data, byte, length)


cdef uint32_t blank_lfs(Context *context, const LineRules *rules, uint8_t *data, uint32_t stop) noexcept nogil:
    """Returns how many LFs stand here whose findings are only counted, not logged; they become spaces."""
    cdef uint32_t count = 0, untold
    if not rules.blank_lf:
        return 0
    untold = tally_untold(&context.session.tally, COMMAND_BARE_LF, context.policy.findings_told)
    while count < stop and count < untold and data[count] == LF:
        count += 1
    if count:
        repeat(context, COMMAND_BARE_LF, count, True)
        fill(context, data, count, SPACE)
        note_secret_said(context.session)        # what follows the LF was meant as another line, maybe AUTH's
    return count


cdef uint32_t plain_crs(Context *context, const LineRules *rules, const uint8_t *data, uint32_t stop,
                        uint32_t length) noexcept nogil:
    """How many CRs here end no line and have findings that are only counted; `length` bytes may be read."""
    cdef uint32_t count = 0, untold
    if not rules.plain_cr or stop == 0 or data[0] != CR:
        return 0
    untold = UINT32_MAX
    if context.policy.action[COMMAND_BARE_CR] != ACTION_PASS:
        untold = tally_untold(&context.session.tally, COMMAND_BARE_CR, context.policy.findings_told)
    if stop == length:
        stop -= 1                                  # whether a LF follows the last CR is not known yet
    while count < stop and count < untold and data[count] == CR and data[count + 1] != LF:
        count += 1
    if count:
        repeat(context, COMMAND_BARE_CR, count, True)
        note_secret_said(context.session)        # some servers take what follows the CR for another line, maybe AUTH's
    return count


cdef uint32_t verb_run(Context *context, CommandLine *command, const LineRules *rules, uint8_t *data,
                       uint32_t stop, uint32_t length) noexcept nogil:
    cdef Line *line = command.kept
    cdef uint32_t at = 0, kept = 0, i, place = command.verb_length
    cdef uint8_t mode = command.mode
    cdef bint leading = command.leading
    cdef const char *noop = b"NOOP"
    if mode == MASK_UNDECIDED:
        return 0
    while at < stop:
        if data[at] > SPACE:
            if leading:
                break
        elif data[at] == CR:
            i = plain_crs(context, rules, data + at, stop - at, length - at)
            if i == 0:
                break
            at += i
            continue
        elif data[at] == 0 and not command.reported & REPORTED_NUL:
            break
        elif data[at] == LF:
            i = blank_lfs(context, rules, data + at, stop - at) if leading else 0
            if i == 0:
                break
            line_add_all(line, data + kept, at - kept)
            at += i
            kept = at
            while i and line.length < LINE_BYTES_SHOWN:
                line_add(line, LF)                 # the LF is kept as it came, not as a space
                i -= 1
            continue
        elif data[at] == SPACE and not leading:
            break
        at += 1
    line_add_all(line, data + kept, at - kept)
    if mode == MASK_LETTER:
        fill(context, data, at, context.policy.letter)
    elif mode == MASK_NOOP:
        for i in range(at):
            put(context, data + i, noop[place + i] if place + i < 4 else SPACE)
    else:
        line_let_through(line, at)
    lengthen_verb(command, at)
    return at


cdef inline bint reads_address(Context *context, const CommandLine *command, uint8_t kind) noexcept nogil:
    # Whether an address's next bytes may still be reported or changed; a sender's are also searched for BODY=7BIT.
    return kind == ARGUMENT_SENDER or (kind == ARGUMENT_RECIPIENT and (
        not command.reported & REPORTED_CHARACTER or (
            applies(context.policy) and context.policy.action[ADDRESS_ILLEGAL_CHARACTER] == ACTION_BLANK)))


cdef uint32_t argument_run(Context *context, CommandLine *command, const LineRules *rules, uint8_t *data, uint32_t stop,
                           uint32_t length, uint64_t offset) noexcept nogil:
    cdef uint8_t kind = context.grammar.argument[command.verb]
    cdef Line *line = command.kept
    cdef uint32_t at = 0, i, glued = UINT32_MAX, before = line.length
    cdef bint reported = command.reported & REPORTED_NUL
    cdef bint masked = command.mask_rest
    cdef bint read = not masked and not command.denied
    cdef bint address = read and reads_address(context, command, kind)
    if read and kind == ARGUMENT_CHUNK_SIZE and command.argument.phase != SIZE_INVALID:
        return 0
    while at < stop:
        at += nm_line_stop(data + at, stop - at, not reported)
        i = plain_crs(context, rules, data + at, stop - at, length - at)
        if i:
            at += i
            continue
        if at == stop or data[at] != LF or (address and at):
            break
        i = blank_lfs(context, rules, data + at, stop - at)
        if i == 0:
            break
        glued = at if glued == UINT32_MAX else glued
        at += i
    if reported and rules.blank_nul:
        blank_nuls(context, data, at)
    line_add_all(line, data, at)
    if glued < <uint32_t> (line.length - before):
        line_restore(line, before + glued, LF)
    if address:
        return address_bytes(context, command, data, at, offset)
    if masked:
        fill(context, data, at, context.policy.letter)
    return at


cdef void blank_nuls(Context *context, uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i = 0
    while i < length and data[i]:
        i += 1
    if i < length:
        note_change(context)
        nm_blank_nuls(data + i, length - i)


cdef uint32_t sasl_run(Context *context, CommandLine *command, const LineRules *rules, uint8_t *data,
                       uint32_t stop, uint32_t length) noexcept nogil:
    cdef bint reported = command.reported & REPORTED_NUL
    cdef uint32_t at = 0, count = 1
    while at < stop and count:
        at += nm_line_stop(data + at, stop - at, not reported)
        count = plain_crs(context, rules, data + at, stop - at, length - at)
        if count == 0:
            count = blank_lfs(context, rules, data + at, stop - at)
        at += count
    note_tail(command, data, at)
    if command.mask_rest:
        fill(context, data, at, context.policy.letter)
    elif reported and rules.blank_nul:
        blank_nuls(context, data, at)
    return at


cdef inline uint32_t unmeasured(Context *context, CommandLine *command) noexcept nogil:
    """How long the line may become before its next byte has to be measured."""
    cdef const CompiledPolicy *policy = context.policy
    cdef uint32_t longest = UINT32_MAX
    if command.phase == PHASE_SASL:
        return longest
    if command.length < policy.near_length:
        return policy.near_length
    if policy.line_length and not command.reported & REPORTED_LENGTH:
        longest = policy.line_length
    if policy.longest_line and not command.reported & REPORTED_CUT and not with_secret(context, command):
        if command.phase != PHASE_ARGUMENT or not context.grammar.long_line[command.verb]:
            return policy.longest_line if policy.longest_line < longest else longest
        if policy.longest_parameters < longest:
            return policy.longest_parameters
    return longest


cdef uint32_t line_run(Context *context, CommandLine *command, const LineRules *rules, uint8_t *data, uint32_t at,
                       uint32_t length, uint64_t offset) noexcept nogil:
    cdef uint32_t stop = length - at, run = unmeasured(context, command)
    cdef bint secret = with_secret(context, command) and (
        command.phase == PHASE_SASL or command.length >= context.policy.near_length)
    if run <= command.length or (command.phase == PHASE_SASL and command.length <= sizeof(command.argument.tail)):
        return 0                                   # here the letters may be a verb: bytes are read one by one
    if run - command.length < stop:
        stop = run - command.length
    if secret:
        stop = secret_stop(context, command, data + at, stop)
    if command.phase == PHASE_SASL:
        run = sasl_run(context, command, rules, data + at, stop, length - at)
    elif command.phase == PHASE_VERB:
        run = verb_run(context, command, rules, data + at, stop, length - at)
    else:
        run = argument_run(context, command, rules, data + at, stop, length - at, offset + at)
        if secret:
            note_tail(command, data + at, run)
    lengthen(command, run)
    return run
