# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Command lines that lie in one segment as a whole, with no finding to be logged: read in one step.

Promises: such a line becomes what ``command`` makes of it byte by byte; it is examined first, and any other line is
left untouched. Short lines cost most per byte, so everything here is done once per line, and no copy of the line is
kept. Does not know how a line goes on in another segment.
"""

from nfmailguard.cext.policy.findings cimport omit_records
from nfmailguard.cext.policy.numbers cimport (
    ACTION_MASK, ACTION_PASS, COMMAND_DENIED, FORM_OK, FORM_XALL, VERB_MAIL, VERB_NOOP, VERB_RCPT, VERB_RSET,
    VERB_UNKNOWN,
)
from nfmailguard.cext.policy.ruling cimport CompiledPolicy, applies
from nfmailguard.cext.smtp.argument cimport put
from nfmailguard.cext.smtp.command_line cimport forget_verb
from nfmailguard.cext.smtp.grammar cimport (
    INPUT_COMMANDS, TRAIT_ADDRESS, TRAIT_SECRET, TRAIT_RECORDED, TRAIT_UNREMARKABLE, TRAIT_WAITS,
)
from nfmailguard.cext.smtp.name cimport upper
from nfmailguard.cext.smtp.odd_words cimport odd_word
from nfmailguard.cext.smtp.outstanding cimport (
    Exchange, add_reply, begins_anew, expect_reply, has_room, untold_of, wait_for_replies,
)
from nfmailguard.cext.smtp.plain_lines cimport (
    Start, blank_illegal, is_plain_address, note_argument, note_session, plain_end, plain_line, tell,
)
from nfmailguard.cext.smtp.redact cimport another_line_begins, note_word, note_words
from nfmailguard.cext.smtp.reply_effects cimport note_asked
from nfmailguard.cext.smtp.runs cimport (
    KIND_CR, KIND_DENIED, KIND_ILLEGAL, KIND_LF, KIND_NUL, KIND_UPSTREAM, fill, found, mask_few, tell_found, untold,
)
from nfmailguard.cext.smtp.session cimport (
    ASKED_NOTHING, add_recipients, note_noop, note_secret_begun, note_secret_over, note_secret_said,
)
from nfmailguard.cext.smtp.text cimport forget_chunks
from nfmailguard.cext.smtp.unmask cimport verb_masked
from nfmailguard.cext.smtp.verb cimport becomes_noop, find_verb, make_noop, refusal

cdef extern from "scan.h" nogil:
    uint32_t nm_line_stop(const uint8_t *p, uint32_t length, bint nul) noexcept
    uint32_t nm_word_end(const uint8_t *p, uint32_t length) noexcept

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32

cdef struct Clean:
    uint32_t verb              # length of the verb in bytes
    uint32_t end               # index of the line's CR or, where it ends without one, its LF
    uint32_t lfs               # LFs that become spaces
    uint32_t nuls
    uint32_t crs               # CRs that end no line and count as any other byte
    uint32_t odd               # unusual bytes: the sum of lfs, nuls and crs
    uint32_t first             # index at or before the first LF or NUL that becomes a space
    uint32_t last              # index after the last LF or NUL to be blanked; 0: there is none
    uint8_t number             # the verb's number
    uint8_t finding            # finding that keeps the verb from passing; 0: it passes
    bint denied
    bint illegal               # 1: the address has an illegal byte
    bint bare                  # 1: the line ends in a CR without LF, or in a LF without CR
    bint masked_upstream


cdef inline bint is_plain_cr(const LineRules *rules, const uint8_t *data, uint32_t at, uint32_t stop) noexcept nogil:
    return rules.plain_cr and data[at] == CR and at + 1 < stop and data[at + 1] != LF


cdef inline uint32_t verb_end(Clean *line, const LineRules *rules, const uint8_t *data, uint32_t at,
                              uint32_t stop) noexcept nogil:
    """Returns the index after the verb, whose first ``at`` bytes are ordinary, or ``stop``."""
    cdef uint8_t byte
    while at < stop:
        byte = data[at]
        if byte <= SPACE:
            if byte == SPACE or byte == LF or (byte == CR and not is_plain_cr(rules, data, at, stop)):
                break
            if byte == 0:
                line.nuls += 1
            elif byte == CR:
                line.crs += 1
        at += 1
    return at


cdef inline uint32_t leading(Clean *line, const LineRules *rules, const uint8_t *data, uint32_t stop) noexcept nogil:
    """Returns the index after the spaces and control bytes before the verb, or ``stop``."""
    cdef uint32_t at = 0
    while at < stop and data[at] <= SPACE and (data[at] != CR or is_plain_cr(rules, data, at, stop)):
        if data[at] == LF:
            if not rules.blank_lf:
                return stop
            line.lfs += 1
            line.last = at + 1
        line.nuls += data[at] == 0
        line.crs += data[at] == CR
        at += 1
    return at


cdef inline bint is_plain(Clean *line, const uint8_t *data, uint32_t verb, uint32_t stop) noexcept nogil:
    """Whether the line, whose verb is ordinary, ends here with CRLF and has nothing unusual in it."""
    line.end = plain_end(data, verb, stop)
    if line.end == 0:
        return False
    line.verb = verb
    line.lfs = line.nuls = line.crs = line.illegal = line.first = line.last = 0
    line.bare = False
    return True


cdef inline bint find_end(Clean *line, const LineRules *rules, const uint8_t *data, uint32_t at,
                          uint32_t stop) noexcept nogil:
    """Whether the line's end is here; sets where. The line's first ``at`` bytes are ordinary."""
    line.lfs = line.nuls = line.crs = line.illegal = 0
    line.last = 0
    if at == 0:
        at = leading(line, rules, data, stop)
    line.first = 0 if line.lfs else at
    line.verb = at = verb_end(line, rules, data, at, stop)
    while at < stop:
        if data[at] == CR:
            line.end = at
            if at + 1 == stop:
                return False
            line.bare = data[at + 1] != LF and not rules.plain_cr
            if data[at + 1] == LF or line.bare:
                return not line.bare or rules.blank_cr
            line.crs += 1
        if data[at] == LF:
            if not rules.blank_lf:
                line.end = at
                line.bare = True
                return True
            line.lfs += 1
            line.last = at + 1
        elif data[at] == 0:
            line.nuls += 1
            line.last = at + 1
        at += 1
        at += nm_line_stop(data + at, stop - at, True)
    return False


cdef inline bint is_address(Context *context, const Clean *line) noexcept nogil:
    return not line.denied and context.grammar.traits[line.number] & TRAIT_ADDRESS != 0


cdef inline bint is_ours(Context *context, Dialogue *dialogue, const LineRules *rules, Clean *line, const uint8_t *data,
                         bint named) noexcept nogil:
    """Finds out which verb the line has, unless that is known; returns whether the line can be read here."""
    cdef const CompiledPolicy *policy = context.policy
    cdef uint8_t number
    if not named:
        line.number = find_verb(context, data, line.verb) if data[0] > SPACE else VERB_UNKNOWN
    number = line.number
    line.finding = refusal(context, &dialogue.exchange, number, line.verb)
    line.denied = line.finding and applies(policy) and policy.action[line.finding] == ACTION_MASK
    line.masked_upstream = number == VERB_UNKNOWN and line.verb > 3 and upper(data[0]) == c"X" and (
        verb_masked(data, line.verb))
    if line.denied or context.grammar.traits[number] & TRAIT_UNREMARKABLE:
        return True
    if number == VERB_RCPT:
        if policy.recipients and context.session.recipients >= policy.recipients:
            return False
    elif context.grammar.traits[number] & TRAIT_WAITS:
        # Not read here: a command that begins the session anew and has to wait, and DATA where the message begins with
        # it.
        return not begins_anew(number) and not (policy.bug_data_bypass and applies(policy))
    elif number != VERB_MAIL and number != VERB_RSET and not begins_anew(number):
        return False                               # the command changes how the client's next bytes are read
    if is_address(context, line):
        if number == VERB_MAIL and policy.sender_length and line.end - line.verb > policy.sender_length:
            return False                           # the address has to be measured byte by byte
        line.illegal = not is_plain_address(policy, data, line.verb + 1, line.end)
    return True


cdef inline bint is_quiet(Context *context, LineRules *rules, const Clean *line, const uint8_t *data) noexcept nogil:
    """Whether all findings about this line would only be counted, and none logged."""
    if line.odd and context.grammar.traits[line.number] & TRAIT_RECORDED:
        return False                               # what its record may show is decided byte by byte
    if line.finding and (line.finding != COMMAND_DENIED or not untold(context, rules, KIND_DENIED, 1)):
        return False
    if line.masked_upstream and not untold(context, rules, KIND_UPSTREAM, 1):
        return False
    if line.odd + line.bare + line.illegal == 0:
        return True
    return ((line.nuls == 0 or untold(context, rules, KIND_NUL, 1))
            and (line.lfs == 0 or untold(context, rules, KIND_LF, line.lfs))
            and (line.crs == 0 or untold(context, rules, KIND_CR, line.crs))
            and (not line.bare or untold(context, rules, KIND_CR if data[line.end] == CR else KIND_LF, 1))
            and (line.illegal == 0 or untold(context, rules, KIND_ILLEGAL, 1)))


cdef inline void count_odd(Context *context, LineRules *rules, const Clean *line, uint8_t *data) noexcept nogil:
    """Counts the findings about unusual bytes of the line; LFs and NULs become spaces."""
    cdef uint32_t i
    if line.nuls:
        found(rules, KIND_NUL, 1)
    if line.lfs:
        found(rules, KIND_LF, line.lfs)
    if line.crs:
        found(rules, KIND_CR, line.crs)
    if line.bare:
        found(rules, KIND_CR if data[line.end] == CR else KIND_LF, 1)
    if line.illegal:
        found(rules, KIND_ILLEGAL, 1)
    if line.odd:
        note_secret_said(context.session)        # a server may take part of it for another line, maybe AUTH's
    if line.last:
        for i in range(line.first, line.last):
            if data[i] == LF or (data[i] == 0 and i > line.verb and rules.blank_nul):
                put(context, data + i, SPACE)
    if line.bare and data[line.end] == CR:
        put(context, data + line.end + 1, LF)


cdef inline void mask(Context *context, const Clean *line, uint8_t *data) noexcept nogil:
    """A denied verb's bytes become what the policy says."""
    if becomes_noop(context.policy, data, line.verb):
        make_noop(context, data, line.verb)
    else:
        mask_few(context, data, line.verb)
    if context.policy.unknown == FORM_XALL and line.end > line.verb:
        fill(context, data + line.verb, line.end - line.verb, context.policy.letter)


cdef inline void note_said(Context *context, const Clean *line, const uint8_t *data) noexcept nogil:
    """At a line's end, however the line is read: notes whether secrets may follow."""
    if line.number != VERB_UNKNOWN:
        note_argument(context, line.number, context.grammar.traits[line.number], data, line.verb, line.end)
    elif line.verb > 2 or line.end > line.verb + 4:    # long enough for a verb, or a mechanism, announcing secrets
        note_words(context, line.number, data, line.verb, line.end)


cdef inline uint32_t any_line(Context *context, Dialogue *dialogue, LineRules *rules,
                              const Start *start) noexcept nogil:
    """Reads a command line of any kind that can be read here; returns its length in bytes, or 0."""
    cdef uint8_t *data = start.data
    cdef uint32_t ordinary = start.verb, stop = start.stop
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint8_t verb
    cdef uint32_t end
    cdef bint secret = False                       # AUTH begins in what some servers take for another line
    cdef Clean line
    line.number = start.number
    if not (0 < ordinary and ordinary + 1 < stop and is_plain(&line, data, ordinary, stop)):
        if not find_end(&line, rules, data, ordinary, stop) or line.verb == 0:
            return 0
    line.odd = line.nuls + line.lfs + line.crs
    if not is_ours(context, dialogue, rules, &line, data, line.verb == ordinary):
        return 0
    if not is_quiet(context, rules, &line, data):
        return 0
    if line.odd + line.bare + line.illegal:
        # For an unknown verb, note_said looks for AUTH in what some servers take for another line.
        secret = line.odd and line.number != VERB_UNKNOWN and another_line_begins(data, line.end)
        count_odd(context, rules, &line, data)
    if line.masked_upstream:
        found(rules, KIND_UPSTREAM, 1)
    if line.finding:
        found(rules, KIND_DENIED, 1)
    verb = line.number
    if line.denied:
        verb = context.grammar.verb_masked if context.policy.unknown == FORM_OK else VERB_UNKNOWN
    if verb == VERB_RCPT:
        add_recipients(context.session, 1)
    if context.grammar.traits[line.number] & TRAIT_RECORDED:
        tell_found(context, rules)
        if untold_of(context, verb):
            omit_records(context, 1)
        else:
            tell(context, line.number, line.denied, data, line.verb, line.end, start.offset)
    note_said(context, &line, data)
    if secret:
        note_secret_begun(context.session)
    note_asked(context.session, &dialogue.reply, verb, data, line.verb)
    end = line.end + (data[line.end] == CR)
    if line.denied:
        mask(context, &line, data)
    else:
        if line.illegal:
            blank_illegal(context, data, line.verb + 1, line.end)
        note_session(context, dialogue, verb, context.grammar.traits[verb], data + line.verb, line.end - line.verb)
    if expect_reply(context, exchange, verb, start.offset + end) and context.grammar.traits[verb] & TRAIT_WAITS:
        forget_verb(&dialogue.command)
        wait_for_replies(exchange)
    return end + 1


cdef inline bint is_unremarkable(Context *context, Dialogue *dialogue, LineRules *rules, uint8_t number,
                                 const uint8_t *data, uint32_t length, bint *denied) noexcept nogil:
    """Whether a line that is only this verb has no effect but its reply, and no finding to be logged; then counts its
    findings."""
    cdef uint8_t finding = refusal(context, &dialogue.exchange, number, length)
    if context.grammar.traits[number] & TRAIT_SECRET or data[0] | 32 == c"e":
        return False
    denied[0] = finding and applies(context.policy) and context.policy.action[finding] == ACTION_MASK
    if not denied[0]:
        if (not (context.grammar.traits[number] & TRAIT_UNREMARKABLE or number == VERB_RSET)
                or (number == VERB_UNKNOWN and not finding)):
            return False
    if finding and (finding != COMMAND_DENIED or not untold(context, rules, KIND_DENIED, 1)):
        return False
    if number == VERB_UNKNOWN and length > 3 and upper(data[0]) == c"X" and verb_masked(data, length):
        if not untold(context, rules, KIND_UPSTREAM, 1):
            return False
        found(rules, KIND_UPSTREAM, 1)
    if finding:
        found(rules, KIND_DENIED, 1)
    return True


cdef inline bint unremarkable_line(Context *context, Dialogue *dialogue, LineRules *rules, uint8_t *data, uint32_t verb,
                                   uint8_t number) noexcept nogil:
    """Reads a line that is a verb and nothing else, if all it does is to await a reply; returns whether it was read."""
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint8_t said = number
    cdef bint denied
    if not has_room(context, exchange) or (context.grammar.traits[number] & TRAIT_RECORDED and not context.untold):
        return False
    if not is_unremarkable(context, dialogue, rules, number, data, verb, &denied):
        return False
    if number != VERB_UNKNOWN:
        note_secret_over(context.session)
    elif verb >= 3:
        note_word(context, data, verb)
    if denied:
        mask_few(context, data, verb)
        number = VERB_UNKNOWN
    elif number == VERB_NOOP:
        note_noop(context.session, True)
    elif number == VERB_RSET:
        forget_chunks(&dialogue.text)
    omit_records(context, context.grammar.traits[said] & TRAIT_RECORDED)
    add_reply(context, exchange, number)
    return True


cdef inline bint empty_line(Context *context, Dialogue *dialogue) noexcept nogil:
    cdef Exchange *exchange = &dialogue.exchange
    if not has_room(context, exchange):
        return False
    forget_verb(&dialogue.command)
    note_asked(context.session, &dialogue.reply, VERB_UNKNOWN, NULL, 0)
    add_reply(context, exchange, context.grammar.verb_empty)
    return True


cdef inline bint is_simple(const Context *context) noexcept nogil:
    """Whether a denied verb is at most overwritten with letters, and the client has sent a line before."""
    return context.policy.unknown <= FORM_XALL and context.session.asked != ASKED_NOTHING


cdef uint32_t clean_lines(Context *context, Dialogue *dialogue, LineRules *rules, uint8_t *data, uint32_t length,
                          uint64_t offset) noexcept nogil:
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint32_t at = 0, run, verb, stop
    cdef uint8_t number
    cdef Start start
    if exchange.body_as_commands or exchange.waiting:
        return 0
    while at < length and context.verdict == ACTION_PASS:
        stop = length - at if length - at < rules.whole else rules.whole
        verb = nm_word_end(data + at, stop)
        number = VERB_UNKNOWN
        if 0 < verb < stop:
            if data[at + verb]:                    # a NUL would be part of the verb
                number = find_verb(context, data + at, verb)
            if verb + 1 < stop and data[at + verb] == CR and data[at + verb + 1] == LF and is_simple(context) and (
                    unremarkable_line(context, dialogue, rules, data + at, verb, number)):
                at += verb + 2
                continue
        elif data[at] == CR and length - at > 1 and data[at + 1] == LF and empty_line(context, dialogue):
            at += 2
            continue
        start.data, start.offset = data + at, offset + at
        start.verb, start.stop, start.number = verb, stop, number
        run = 0
        if number != VERB_UNKNOWN:
            run = plain_line(context, dialogue, rules, &start)
        elif verb < stop and (verb == 0 or data[at + verb] != SPACE) and is_simple(context):
            run = odd_word(context, dialogue, rules, data + at, verb, stop)
        if run == 0:
            run = any_line(context, dialogue, rules, &start)
        if run == 0:
            break
        at += run
        if exchange.waiting or exchange.input != INPUT_COMMANDS:
            break
    return at
