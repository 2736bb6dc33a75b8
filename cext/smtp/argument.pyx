# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Arguments of commands: what becomes of illegal bytes in addresses, invalid chunk sizes, NULs and overlong lines.

Promises: each byte is decided from the bytes before it in its line alone, so it makes no difference how a line is
cut into segments. Does not know verbs, lines or streams.
"""

from libc.stdint cimport INT32_MAX
from libc.string cimport memmove

from nfmailguard.cext.policy.findings cimport decide_flow, report
from nfmailguard.cext.policy.numbers cimport (
    ACTION_BLANK, ACTION_MASK, ACTION_PASS, ACTION_RESET, ADDRESS_ILLEGAL_CHARACTER, ADDRESS_TOO_LONG,
    BDAT_SIZE_INVALID, COMMAND_LINE_CUT, COMMAND_NUL, COMMAND_TOO_LONG, SECRET_BYTES, VERB_BDAT, VERB_MAIL,
)
from nfmailguard.cext.policy.ruling cimport CompiledPolicy, applies, gates
from nfmailguard.cext.smtp.command_line cimport (
    PHASE_ARGUMENT, PHASE_SASL, deny, lengthen, mask_from_here, note_reported,
)
from nfmailguard.cext.smtp.grammar cimport ARGUMENT_SENDER
from nfmailguard.cext.smtp.name cimport name_begins, upper

cdef extern from "scan.h" nogil:
    uint32_t nm_base64(const uint8_t *p, uint32_t length) noexcept
    bint nm_holds(const uint8_t *p, uint32_t length, uint8_t one, uint8_t other) noexcept
    uint32_t nm_next_bit(const uint8_t *bits, uint32_t begin, uint32_t end) noexcept

cdef enum:
    SPACE = 32
    CLOSING_BRACKET = 62
    FIRST_LETTERS = 4                  # some servers know a verb by this many first letters

cdef enum AddressPhase:
    ADDRESS_BEFORE = 0
    ADDRESS_COLON = 1                  # after the colon of FROM:, before the address
    ADDRESS_PATH = 2                   # inside an address between < and >
    ADDRESS_WORD = 3                   # inside an address without < and >
    ADDRESS_BEHIND = 4
    ADDRESS_QUOTED = 16                # bit added to PATH or WORD: inside a quoted string (RFC 5321 4.1.2)
    ADDRESS_ESCAPED = 32  # bit added to PATH or WORD: the previous byte was a backslash that escapes this one


cdef inline uint8_t seven_bits_behind(uint8_t matched, uint8_t byte) noexcept nogil:
    # Matches MAIL's parameter BODY=7BIT (RFC 6152 3). "=7BIT" has its = only at the beginning, so a match can only
    # restart there. Eighth bits are ignored: a server that clears them since an earlier mail clears them in this line
    # too.
    cdef const char *value = b"=7BIT"
    byte &= 127
    if matched == SEVEN_BITS:
        return SEVEN_BITS
    if upper(byte) == <uint8_t> value[matched]:
        return matched + 1
    return byte == c"="


cdef uint8_t seven_bits_in(const uint8_t *data, uint32_t length, uint8_t matched) noexcept nogil:
    cdef uint32_t i
    if matched == SEVEN_BITS or (matched == 0 and not nm_holds(data, length, c"=", c"=" | 128)):
        return matched                             # the usual case: no = here, or "=7BIT" already seen
    for i in range(length):
        matched = seven_bits_behind(matched, data[i])
    return matched


cdef inline void measure_address(Context *context, CommandLine *command, uint8_t byte, uint64_t offset) noexcept nogil:
    # Limit of ASA class 5: the bytes between < and >, or of the first word where there is no <. A > or space that is
    # quoted or escaped by a backslash does not end them; a < after them begins another address, as some servers accept
    # `x <a@b>` (sendmail).
    cdef uint8_t quoted = command.argument.phase & ADDRESS_QUOTED
    cdef uint8_t escaped = command.argument.phase & ADDRESS_ESCAPED
    cdef uint8_t phase = command.argument.phase - quoted - escaped
    if phase == ADDRESS_COLON and byte != SPACE:
        phase = ADDRESS_WORD
    command.argument.counted += 1
    if escaped:
        escaped = 0
    elif byte == c"\\" and (phase == ADDRESS_PATH or phase == ADDRESS_WORD):
        escaped = ADDRESS_ESCAPED
    elif byte == c'"' and (phase == ADDRESS_PATH or phase == ADDRESS_WORD):
        quoted ^= ADDRESS_QUOTED
    elif quoted:
        pass
    elif byte == c"<" and phase != ADDRESS_PATH:
        phase = ADDRESS_PATH
        command.argument.counted = 0
    elif phase == ADDRESS_BEFORE and byte == c":":
        phase = ADDRESS_COLON
    elif byte == (CLOSING_BRACKET if phase == ADDRESS_PATH else SPACE) and phase >= ADDRESS_PATH:
        phase = ADDRESS_BEHIND
    if phase != ADDRESS_PATH and phase != ADDRESS_WORD:
        command.argument.counted = 0
    command.argument.phase = phase | quoted | escaped
    if command.argument.counted > context.policy.sender_length and not command.reported & REPORTED_ADDRESS:
        note_reported(command, REPORTED_ADDRESS)
        report(context, ADDRESS_TOO_LONG, True, command.verb, offset)


cdef uint32_t address_bytes(Context *context, CommandLine *command, uint8_t *data, uint32_t length,
                            uint64_t offset) noexcept nogil:
    cdef bint blank = applies(context.policy) and context.policy.action[ADDRESS_ILLEGAL_CHARACTER] == ACTION_BLANK
    cdef bint measured = (command.verb == VERB_MAIL and context.policy.sender_length
                          and not command.reported & REPORTED_ADDRESS)
    cdef bint looked_at = blank or measured or not command.reported & REPORTED_CHARACTER
    cdef uint32_t at = 0
    cdef uint8_t byte
    if context.grammar.argument[command.verb] == ARGUMENT_SENDER:
        command.argument.in_seven = seven_bits_in(data, length, command.argument.in_seven)
    while looked_at and at < length and context.verdict == ACTION_PASS:
        byte = data[at]
        if is_illegal(context.policy.address_byte[byte], &command.argument.bracket):
            if not command.reported & REPORTED_CHARACTER:
                note_reported(command, REPORTED_CHARACTER)
                report_byte(context, ADDRESS_ILLEGAL_CHARACTER, command.verb, offset + at, byte, SPACE, True)
            if blank:
                put(context, data + at, SPACE)
        if measured:
            measure_address(context, command, byte, offset + at)
        at += 1
    return at if looked_at else length


cdef bint invalid_size(Context *context, CommandLine *command, const uint8_t *byte, uint32_t length,
                       uint64_t offset) noexcept nogil:
    # After digits some servers take them as the chunk size whatever follows (Exim: sscanf): such a flow is reset.
    cdef uint8_t phase = command.argument.phase
    command.argument.phase = SIZE_INVALID
    if report_shown(context, BDAT_SIZE_INVALID, True, VERB_BDAT, offset,
                    shown(byte, length, NULL, 0)) != ACTION_MASK:
        return False
    if phase != SIZE_FIRST and gates(context.policy) and context.verdict == ACTION_PASS:
        decide_flow(context, ACTION_RESET)
    return True


cdef void size_byte(Context *context, CommandLine *command, uint8_t *at, uint64_t offset) noexcept nogil:
    # Strictly RFC 3030 2: chunk-size is 1*DIGIT, then optionally SP "LAST". Sizes that servers read differently (a
    # leading 0 as octal, more than 31 bits truncated, trailing bytes ignored) are invalid.
    cdef const char *last = b" LAST"
    cdef uint8_t byte = at[0]
    cdef uint8_t digit = <uint8_t> (byte - 48)
    cdef uint8_t phase = command.argument.phase
    if phase == SIZE_INVALID:
        return
    if digit <= 9 and phase == SIZE_FIRST:
        command.argument.counted = digit
        command.argument.phase = SIZE_DIGITS if digit else SIZE_ZERO
    elif digit <= 9 and phase == SIZE_DIGITS and command.argument.counted <= (<uint32_t> INT32_MAX - digit) // 10:
        command.argument.counted = command.argument.counted * 10 + digit
    elif byte == SPACE and (phase == SIZE_ZERO or phase == SIZE_DIGITS):
        command.argument.phase = SIZE_BEHIND
    elif SIZE_BEHIND <= phase < SIZE_LAST and upper(byte) == <uint8_t> last[phase - SIZE_BEHIND + 1]:
        command.argument.phase += 1
    else:
        if invalid_size(context, command, &byte, 1, offset):
            deny(command)
            mask_from_here(command)
            put(context, at, context.policy.letter)


cdef void nul_byte(Context *context, CommandLine *command, uint8_t *at, uint64_t offset) noexcept nogil:
    # RFC 5321 2.4, 4.1.2: a NUL is never allowed in a command; some servers drop it, others end the line there.
    if not command.reported & REPORTED_NUL:
        note_reported(command, REPORTED_NUL)
        report_byte(context, COMMAND_NUL, command.verb, offset, 0, SPACE, True)
    # A NUL in a verb is left as it is: a verb with a NUL is unknown, and is masked as such.
    if (applies(context.policy) and context.policy.action[COMMAND_NUL] == ACTION_BLANK
            and command.phase >= PHASE_ARGUMENT):
        put(context, at, SPACE)


cdef inline bint is_base64(uint8_t byte) noexcept nogil:
    return nm_base64(&byte, 1)


cdef inline bint out_of_reach(Context *context, CommandLine *command, uint8_t byte) noexcept nogil:
    # Whether the line has become so long with this byte that some servers take the byte for the beginning of another
    # line, and may find a verb there. Base64 of a secret is accepted up to `longest_secret`: within base64 nothing ends
    # a verb but the line's end, which end_secret checks.
    if context.policy.longest_line == 0:
        return False
    if with_secret(context, command):
        return command.length > context.policy.longest_secret or (
            command.length > context.policy.longest_line and not is_base64(byte))
    if command.length <= context.policy.longest_line:
        return False
    if command.phase == PHASE_ARGUMENT and context.grammar.long_line[command.verb]:
        return command.length > context.policy.longest_parameters
    return True


cdef inline const uint8_t *last_letters(const CommandLine *command, uint32_t length) noexcept nogil:
    return command.argument.tail + sizeof(command.argument.tail) - length


cdef bint ends_in_verb(Context *context, CommandLine *command, uint32_t end) noexcept nogil:
    # Whether the line's first `end` bytes end in the letters of a verb, at a place where a server may have cut the
    # line.
    cdef uint32_t verb, i, length
    cdef const uint8_t *name
    for verb in range(1, context.grammar.verb_count):
        length = context.grammar.verbs[verb].length
        name = context.grammar.verbs[verb].data
        if length == 0 or length > sizeof(command.argument.tail):
            continue
        if end - length < context.policy.longest_line - 2:
            continue                               # no server cuts a long line before this place
        i = 0
        while i < length and name[i] == command.argument.tail[sizeof(command.argument.tail) - length + i]:
            i += 1
        if i == length:
            return True
    return False


cdef bint says_denied(Context *context, const uint8_t *letters, uint32_t length, bint whole) noexcept nogil:
    # Whether the letters, in upper case, are a denied verb or, unless `whole`, the beginning of a denied verb.
    cdef uint8_t verb = context.grammar.first_verb[letters[0]]
    while verb:
        if (not context.policy.allow[verb] and name_begins(&context.grammar.verbs[verb], letters, length)
                and (not whole or context.grammar.verbs[verb].length == length)):
            return True
        verb = context.grammar.next_verb[verb]
    return False


cdef bint begins_verb(Context *context, CommandLine *command) noexcept nogil:
    # Whether the last four bytes begin where a known server cuts a long line in two, and are the beginning of a denied
    # verb: some servers know verbs by four letters, whatever follows them (sendmail's MAIL, and many home-made
    # servers).
    cdef uint32_t begin = command.length - FIRST_LETTERS
    if (begin < context.policy.longest_line - 2 or begin >= SECRET_BYTES
            or not context.policy.cuts[begin >> 3] >> (begin & 7) & 1):
        return False
    return says_denied(context, last_letters(command, FIRST_LETTERS), FIRST_LETTERS, False)


cdef void cut_line(Context *context, CommandLine *command, uint64_t offset) noexcept nogil:
    note_reported(command, REPORTED_CUT)
    if report(context, COMMAND_LINE_CUT, True, command.verb, offset) == ACTION_MASK:
        mask_from_here(command)


cdef void refuse_secret(Context *context, CommandLine *command, uint64_t offset) noexcept nogil:
    cut_line(context, command, offset)
    # The verb's letters, or all but the last, have been forwarded already: only a reset keeps the rest from the server.
    if gates(context.policy) and context.verdict == ACTION_PASS:
        decide_flow(context, ACTION_RESET)


cdef void measure_line(Context *context, CommandLine *command, uint8_t byte, uint64_t offset) noexcept nogil:
    # RFC 5321 4.5.3.1.4: a server may take what follows the length limit for another command line.
    cdef bint secret = with_secret(context, command)
    if (context.policy.line_length and command.length > context.policy.line_length
            and not command.reported & REPORTED_LENGTH and command.phase != PHASE_SASL):
        note_reported(command, REPORTED_LENGTH)
        if context.policy.action[COMMAND_TOO_LONG] == ACTION_MASK:
            note_reported(command, REPORTED_CUT)
        if report(context, COMMAND_TOO_LONG, True, command.verb, offset) == ACTION_MASK:
            mask_from_here(command)
        if context.verdict != ACTION_PASS:
            return
    if not command.reported & REPORTED_CUT and out_of_reach(context, command, byte):
        if secret and ends_in_verb(context, command, command.length - 1):
            refuse_secret(context, command, offset)
        else:
            cut_line(context, command, offset)
    if secret:
        memmove(command.argument.tail, command.argument.tail + 1, sizeof(command.argument.tail) - 1)
        command.argument.tail[sizeof(command.argument.tail) - 1] = upper(byte)
        if context.policy.longest_line and not command.reported & REPORTED_CUT and begins_verb(context, command):
            refuse_secret(context, command, offset)


cdef void note_tail(CommandLine *command, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t size = sizeof(command.argument.tail), i
    cdef uint32_t new = length if length < size else size
    memmove(command.argument.tail, command.argument.tail + new, size - new)
    for i in range(new):
        command.argument.tail[size - new + i] = upper(data[length - new + i])


cdef uint32_t before_cut(Context *context, uint32_t length, const uint8_t *data, uint32_t stop) noexcept nogil:
    """How many of the bytes after a line's first `length` come before one with which begins_verb may be true."""
    cdef uint32_t begin = context.policy.longest_line - 2
    cdef uint32_t end = length + stop if length + stop < SECRET_BYTES else SECRET_BYTES
    if begin + FIRST_LETTERS <= length:
        begin = length + 1 - FIRST_LETTERS
    while begin + FIRST_LETTERS <= end:
        begin = nm_next_bit(context.policy.cuts, begin, end)
        if begin + FIRST_LETTERS > end:
            break
        if begin < length or context.grammar.first_verb[upper(data[begin - length])]:
            return begin + FIRST_LETTERS - 1 - length
        begin += 1
    return stop


cdef uint32_t secret_stop(Context *context, CommandLine *command, const uint8_t *data, uint32_t stop) noexcept nogil:
    cdef const CompiledPolicy *policy = context.policy
    cdef uint32_t length = command.length, at = 0
    if policy.longest_line == 0 or command.reported & REPORTED_CUT:
        return stop
    if length >= policy.longest_secret:
        return 0
    if policy.longest_secret - length < stop:
        stop = policy.longest_secret - length
    stop = before_cut(context, length, data, stop)
    if length < policy.longest_line:
        at = policy.longest_line - length
    return at + nm_base64(data + at, stop - at) if at < stop else stop


cdef inline bint spells_denied(Context *context, CommandLine *command, uint32_t length) noexcept nogil:
    # Whether a SASL response line so far is a denied verb and nothing else: Haraka 3.1 reads such a line as a command.
    if length == 0 or length > sizeof(command.argument.tail):
        return False
    return says_denied(context, last_letters(command, length), length, True)


cdef void sasl_byte(Context *context, CommandLine *command, uint8_t *at, uint64_t offset) noexcept nogil:
    """Reads one byte of a SASL response line, which follows AUTH (RFC 4954 4)."""
    cdef uint8_t byte = at[0]
    lengthen(command, 1)
    if byte == 0:
        nul_byte(context, command, at, offset)
    if (command.length <= sizeof(command.argument.tail) + 1 and not is_base64(byte)
            and spells_denied(context, command, command.length - 1) and not command.reported & REPORTED_CUT):
        refuse_secret(context, command, offset)
    if context.verdict == ACTION_PASS:
        measure_line(context, command, byte, offset)
    if command.mask_rest:
        put(context, at, context.policy.letter)


cdef void end_secret(Context *context, CommandLine *command, uint64_t offset) noexcept nogil:
    """AUTH's line, or a SASL response, has ended: a server that cuts long lines may read its last letters as a
    command."""
    if not with_secret(context, command) or command.reported & REPORTED_CUT:
        return
    if (0 < context.policy.longest_line < command.length
            and ends_in_verb(context, command, command.length)) or (
            command.phase == PHASE_SASL and spells_denied(context, command, command.length)):
        refuse_secret(context, command, offset)
