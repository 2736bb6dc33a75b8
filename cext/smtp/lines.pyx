# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Command lines in a segment: what lies in it as a whole is read in one step, and the rest byte by byte.

Promises: a verb read in one step becomes what ``command`` makes of its bytes, at a fraction of the cost; a verb with
a finding to be logged is left to ``command``. Does not know what a command means.
"""

from nfmailguard.cext.policy.findings cimport quiet, repeat
from nfmailguard.cext.policy.numbers cimport (
    ACTION_BLANK, ACTION_MASK, ACTION_PASS, COMMAND_BARE_CR, COMMAND_BARE_LF, COMMAND_NUL, VERB_UNKNOWN,
)
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.smtp.argument cimport REPORTED_NUL, put, report_byte
from nfmailguard.cext.smtp.command cimport end_line, end_of_verb, end_verb, ordinary_byte, settle_verb
from nfmailguard.cext.smtp.command_line cimport (
    PHASE_START, PHASE_VERB, CommandLine, begin_line, begin_with_verb, choose_mode, keep_cr, lengthen, note_reported,
    take_cr,
)
from nfmailguard.cext.smtp.grammar cimport INPUT_COMMANDS
from nfmailguard.cext.smtp.line cimport Line, alloc_line, line_let_through
from nfmailguard.cext.smtp.message cimport chunk_waits
from nfmailguard.cext.smtp.outstanding cimport Exchange
from nfmailguard.cext.smtp.redact cimport in_secret, note_glued
from nfmailguard.cext.smtp.runs cimport (
    MASK_LETTER, MASK_NONE, MASK_NOOP, LineRules, fill, forget_left, line_rules_of, line_run, settle_counts,
)
from nfmailguard.cext.smtp.session cimport note_secret_said
from nfmailguard.cext.smtp.verb cimport becomes_noop, find_verb, make_noop, refusal
from nfmailguard.cext.smtp.whole_lines cimport clean_lines

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32

cdef struct Found:             # a verb that lies in the segment as a whole, and what is unusual about it
    uint32_t length            # length of the verb in bytes; 0: no such verb
    uint8_t end                # the byte that follows the verb
    uint8_t verb               # the verb's number in the grammar's tables
    uint8_t finding            # finding that keeps the verb from passing; 0: it passes
    bint bare_cr               # 1: the byte after the verb is a CR without a LF
    uint32_t lfs               # LFs that become spaces, one right after the verb included
    uint32_t nuls


cdef inline void look_for_verb(const LineRules *rules, const uint8_t *data, uint32_t length,
                               Found *found) noexcept nogil:
    cdef uint32_t end = 0
    cdef uint32_t stop = length if length < rules.whole else rules.whole
    cdef bint leading = True
    cdef uint8_t byte
    found.length = found.lfs = found.nuls = 0
    found.bare_cr = False
    while end < stop:
        byte = data[end]
        if byte > SPACE:
            leading = False
        elif byte == CR or (byte == SPACE and not leading):
            break
        elif byte == LF:
            if not rules.blank_lf:
                break
            found.lfs += 1
            if not leading:
                break
        elif byte == 0:
            found.nuls += 1
        end += 1
    if end == stop or (data[end] == LF and leading):
        return
    if data[end] == CR:
        if end + 1 == length:
            return
        found.bare_cr = data[end + 1] != LF
    found.end = data[end]
    found.length = end


cdef inline bint is_quiet(Context *context, const LineRules *rules, const Found *found) noexcept nogil:
    # Whether none of the findings about unusual bytes would be logged: they are only counted.
    return ((found.nuls == 0 or quiet(context, COMMAND_NUL, 1))
            and (found.lfs + (found.end == LF) == 0 or quiet(context, COMMAND_BARE_LF, found.lfs + (found.end == LF)))
            and (not found.bare_cr or (rules.blank_cr and quiet(context, COMMAND_BARE_CR, 1))))


cdef void note_odd(Context *context, Dialogue *dialogue, const Found *found, uint8_t *data) noexcept nogil:
    cdef uint32_t i
    if found.nuls:
        note_reported(&dialogue.command, REPORTED_NUL)
        repeat(context, COMMAND_NUL, 1, True)
    if found.lfs:
        repeat(context, COMMAND_BARE_LF, found.lfs, True)
        for i in range(found.length):
            if data[i] == LF:
                put(context, data + i, SPACE)


cdef inline uint32_t ended_by_cr(Context *context, Dialogue *dialogue, const LineRules *rules, const Found *found,
                                 uint8_t *data, uint32_t length, uint64_t offset) noexcept nogil:
    cdef uint32_t end = found.length
    # Where a bare CR is turned into CRLF, the CR ends the verb, otherwise the LF does, as when read byte by byte.
    if rules.blank_cr:
        settle_verb(context, dialogue, found.verb, found.finding, data + end, length - end, offset + end)
    else:
        settle_verb(context, dialogue, found.verb, found.finding, data + end + 1, 0, offset + end + 1)
    if context.verdict != ACTION_PASS:
        return end + 1
    if data[end + 1] != LF:
        repeat(context, COMMAND_BARE_CR, 1, True)
        put(context, data + end + 1, LF)
    end_line(context, dialogue, data + end + 1, offset + end + 1)
    return end + 2


cdef uint32_t whole_verb(Context *context, Dialogue *dialogue, const LineRules *rules, uint8_t *data, uint32_t length,
                         uint64_t offset) noexcept nogil:
    """Reads a line's verb and the byte, or the line end, after it; returns how many bytes these are, or 0 where they
    have to be read byte by byte."""
    cdef CommandLine *command = &dialogue.command
    cdef uint32_t end
    cdef uint8_t mode = MASK_NONE
    cdef Line *line
    cdef Found found
    look_for_verb(rules, data, length, &found)
    end = found.length
    if end == 0 or not is_quiet(context, rules, &found):
        return 0
    line = alloc_line(context.line_pool)
    if line == NULL:
        return 0
    begin_line(command, offset)
    # `line` keeps the bytes as the client sent them, for events; masking, below, changes `data` in place.
    begin_with_verb(command, line, data, end, length)
    if found.nuls + found.lfs:
        note_odd(context, dialogue, &found, data)
    found.verb = find_verb(context, data, end) if data[0] > SPACE else VERB_UNKNOWN
    found.finding = refusal(context, &dialogue.exchange, found.verb, end)
    if not found.finding or not applies(context.policy) or context.policy.action[found.finding] != ACTION_MASK:
        line_let_through(line, end)
    elif becomes_noop(context.policy, data, end):
        mode = MASK_NOOP
        make_noop(context, data, end)
    else:
        mode = MASK_LETTER
        fill(context, data, end, context.policy.letter)
    choose_mode(command, mode)
    if found.end == CR:
        return ended_by_cr(context, dialogue, rules, &found, data, length, offset)
    if found.end == LF and not rules.blank_lf:
        repeat(context, COMMAND_BARE_LF, 1, True)
        settle_verb(context, dialogue, found.verb, found.finding, data + end, 0, offset + end)
        if context.verdict == ACTION_PASS:
            end_line(context, dialogue, data + end, offset + end)
        return end + 1
    if found.end == LF:
        put(context, data + end, SPACE)
    lengthen(command, 1)
    settle_verb(context, dialogue, found.verb, found.finding, data + end, length - end, offset + end)
    end_of_verb(context, dialogue, data + end)
    if found.lfs:
        note_glued(context, command, found.end == LF)
    return end + 1


cdef inline uint32_t whole_end(Context *context, Dialogue *dialogue, const LineRules *rules, uint8_t *data,
                               uint32_t length, uint64_t offset) noexcept nogil:
    # Reads the CRLF that ends a line; returns how many bytes were read, 0: there is no CRLF here.
    cdef CommandLine *command = &dialogue.command
    if length < 2 or data[1] != LF:
        return 0
    if command.phase == PHASE_START:
        begin_line(command, offset)
    if command.phase == PHASE_VERB and rules.blank_cr:
        end_verb(context, dialogue, data, length, offset)
        if context.verdict != ACTION_PASS:
            return 1
    end_line(context, dialogue, data + 1, offset + 1)
    return 2


cdef void plain_cr(Context *context, Dialogue *dialogue, uint8_t byte, uint64_t offset) noexcept nogil:
    # No LF has followed the CR, so the CR belongs to the line like any other byte.
    cdef CommandLine *command = &dialogue.command
    cdef uint8_t carriage_return = CR
    take_cr(command)
    report_byte(context, COMMAND_BARE_CR, command.verb, offset, byte, LF, not in_secret(context, command))
    ordinary_byte(context, dialogue, &carriage_return, 1, offset - 1)
    note_secret_said(context.session)            # some servers take what follows the CR for another line, maybe AUTH's


cdef inline bint one_byte(Context *context, Dialogue *dialogue, const LineRules *rules, uint8_t *data, uint32_t length,
                          uint64_t offset) noexcept nogil:
    """Reads one byte; returns whether a line ended with it."""
    cdef CommandLine *command = &dialogue.command
    cdef uint8_t byte = data[0]
    cdef uint8_t carriage_return = CR
    cdef bint ended = False
    if command.after_cr:
        take_cr(command)
        if byte == LF:
            ended = True
        elif report_byte(context, COMMAND_BARE_CR, command.verb, offset, byte, LF,
                         not in_secret(context, command)) == ACTION_BLANK:
            # The CR has been forwarded, maybe in an earlier segment: this byte becomes the LF of the line end it looks
            # like.
            put(context, data, LF)
            ended = True
        elif context.verdict == ACTION_PASS:
            ordinary_byte(context, dialogue, &carriage_return, 1, offset - 1)
    if ended:
        end_line(context, dialogue, data, offset)
    elif byte == CR:
        if command.phase == PHASE_START:
            begin_line(command, offset)
        elif command.phase == PHASE_VERB and rules.blank_cr:
            end_verb(context, dialogue, data, length, offset)
        keep_cr(command)
    elif byte == LF:
        if report_byte(context, COMMAND_BARE_LF, command.verb, offset, byte, SPACE,
                       not in_secret(context, command)) == ACTION_BLANK:
            put(context, data, SPACE)
            ordinary_byte(context, dialogue, data, length, offset)
            note_glued(context, command, True)
        elif context.verdict == ACTION_PASS:
            end_line(context, dialogue, data, offset)
            ended = True
    elif context.verdict == ACTION_PASS:
        ordinary_byte(context, dialogue, data, length, offset)
    return ended


cdef uint32_t other_bytes(Context *context, Dialogue *dialogue, LineRules *rules, uint8_t *data, uint32_t length,
                          uint64_t offset, bint *ended) noexcept nogil:
    """Reads one byte or more of a line, and returns how many; ``ended`` is set to whether the line ended with them."""
    cdef CommandLine *command = &dialogue.command
    cdef uint32_t run = 0
    settle_counts(context, rules)
    forget_left(rules)
    if command.after_cr and rules.plain_cr and data[0] != LF:
        plain_cr(context, dialogue, data[0], offset)
    if not command.after_cr:
        if data[0] == CR:
            run = whole_end(context, dialogue, rules, data, length, offset)
        if run == 0 and (data[0] != CR or rules.plain_cr):
            if command.phase != PHASE_START:
                run = line_run(context, command, rules, data, 0, length, offset)
            else:
                run = whole_verb(context, dialogue, rules, data, length, offset)
    ended[0] = command.phase == PHASE_START
    if run == 0:
        ended[0] = one_byte(context, dialogue, rules, data, length, offset)
        run = 1
    return run


cdef uint32_t command_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t at, uint32_t length,
                            uint64_t offset) noexcept nogil:
    """Reads lines from ``at`` on until one changes how the client's bytes are read; returns the index after it."""
    cdef CommandLine *command = &dialogue.command
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint32_t run
    cdef bint ended
    cdef LineRules rules
    line_rules_of(context, &rules)
    while at < length and context.verdict == ACTION_PASS:
        run = 0
        if data[at] | SPACE == c"b" and chunk_waits(context.policy, context.session, dialogue, data + at, length - at):
            break
        if command.phase == PHASE_START and not command.after_cr:
            run = clean_lines(context, dialogue, &rules, data + at, length - at, offset + at)
            ended = run != 0
        if run == 0:
            run = other_bytes(context, dialogue, &rules, data + at, length - at, offset + at, &ended)
        at += run
        if ended and (exchange.input != INPUT_COMMANDS or exchange.waiting):
            break
    settle_counts(context, &rules)
    return at
