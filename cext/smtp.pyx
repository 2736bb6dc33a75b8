# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The SMTP dialogue: outstanding commands, replies matched in order, findings.

Promises: a state changes only by the table of ``smtp.states``; each reply settles
the oldest outstanding command (RFC 2920 3.1); a finding's action comes from the
ruling and from nowhere else (invariant 5: nothing is carried out when the ruling
does not apply). Does not know how lines are read, nor packets.
"""

from libc.stdint cimport UINT16_MAX
from libc.string cimport memset

from nfmailguard.cext.record cimport (
    RECORD_FINDING,
    RECORD_REPEATED,
    RECORD_REPLY,
    Record,
    record_text,
    ring_push,
    ring_reserve,
)
from nfmailguard.cext.pool cimport pool_give, pool_take, shelf_close, shelf_give, shelf_lend, shelf_open
from nfmailguard.cext.tally cimport TALLY_KINDS, TALLY_NONE, TALLY_UNTOLD, is_told, last_told, tally_add, tally_count

cdef enum:
    CR = 13
    SPACE = 32
    CHUNK_OFFERED = 1
    CHUNK_REFUSED = 2


cdef void lender_open(Lender *lender, Pool *pool) noexcept nogil:
    shelf_open(&lender.lines, pool, sizeof(Line))
    shelf_open(&lender.dialogues, pool, sizeof(Dialogue))
    lender.pool = pool


cdef void lender_close(Lender *lender) noexcept nogil:
    shelf_close(&lender.lines)
    shelf_close(&lender.dialogues)


cdef void session_open(Session *session, Grammar *grammar) noexcept nogil:
    memset(session, 0, sizeof(Session))
    session.state = grammar.state_connect


cdef Dialogue *dialogue_lend(Lender *lender, Session *session, Grammar *grammar) noexcept nogil:
    cdef Dialogue *dialogue = <Dialogue *> shelf_lend(&lender.dialogues)
    if dialogue == NULL:
        return NULL
    memset(dialogue, 0, sizeof(Dialogue))
    if not session.greeted:
        dialogue.few[0] = grammar.verb_greeting
        dialogue.count = 1
    return dialogue


cdef inline bint at_rest(const Dialogue *dialogue) noexcept nogil:
    # Whatever else a dialogue holds is set anew where a line, a reply or a message begins.
    return (dialogue.count == 0 and dialogue.phase == PHASE_START and not dialogue.after_cr
            and dialogue.input == INPUT_COMMANDS and not dialogue.body_as_commands and dialogue.message_octets == 0
            and not dialogue.reply_junk
            and dialogue.reply_column == 0 and not dialogue.reply_cr and dialogue.reply_line == 0)


cdef void dialogue_rest(Lender *lender, Session *session, Dialogue **dialogue) noexcept nogil:
    if at_rest(dialogue[0]):
        session.greeted = 1
        dialogue_close(lender, dialogue)


cdef void dialogue_list(Lender *lender, Dialogue *dialogue) noexcept nogil:
    dialogue.listed = 1
    dialogue.newer = NULL
    dialogue.older = lender.newest
    if dialogue.older != NULL:
        dialogue.older.newer = dialogue
    else:
        lender.oldest = dialogue
    lender.newest = dialogue


cdef void dialogue_unlist(Lender *lender, Dialogue *dialogue) noexcept nogil:
    dialogue.listed = 0
    if dialogue.older != NULL:
        dialogue.older.newer = dialogue.newer
    else:
        lender.oldest = dialogue.newer
    if dialogue.newer != NULL:
        dialogue.newer.older = dialogue.older
    else:
        lender.newest = dialogue.older


cdef void dialogue_close(Lender *lender, Dialogue **dialogue) noexcept nogil:
    if dialogue[0] == NULL:
        return
    if dialogue[0].listed:
        dialogue_unlist(lender, dialogue[0])
    give_line(lender, &dialogue[0].command)
    give_line(lender, &dialogue[0].reply)
    lender_settle(lender)
    pool_give(lender.pool, dialogue[0].more, dialogue[0].capacity)
    shelf_give(&lender.dialogues, dialogue[0])
    dialogue[0] = NULL


cdef void tell(Scene *scene, uint8_t finding, uint32_t number, bint to_server, uint8_t verb, uint64_t offset,
               const uint8_t *before, uint32_t before_length,
               const uint8_t *after, uint32_t after_length) noexcept nogil:
    cdef Record *record = ring_reserve(scene.ring, RECORD_FINDING, scene.identity, scene.now)
    if record == NULL:
        return
    record.to_server = to_server
    record.state = scene.session.state
    record.verb = verb
    record.finding = finding
    record.action = scene.ruling.action[finding]
    record.hypothetical = scene.session.hypothetical
    record.applied = scene.ruling.apply
    record.a = offset
    record.b = number
    record_text(record, before, before_length, False)
    record_text(record, after, after_length, True)
    ring_push(scene.ring)


cdef uint8_t report(Scene *scene, uint8_t finding, bint to_server, uint8_t verb, uint64_t offset,
                    const uint8_t *before, uint32_t before_length,
                    const uint8_t *after, uint32_t after_length) noexcept nogil:
    cdef uint8_t action = scene.ruling.action[finding]
    cdef uint32_t number = scene.number
    if action == ACTION_PASS:
        return ACTION_PASS
    scene.finding_counts[finding] += 1
    if to_server:
        scene.session.found |= <uint64_t> 1 << finding
    if number == TALLY_NONE:
        number = tally_add(&scene.session.tally, scene.lender.pool, finding)
        if is_told(number, scene.ruling.findings_told):
            tell(scene, finding, number, to_server, verb, offset, before, before_length, after, after_length)
        else:
            scene.repeated[0] += 1
    elif number == TALLY_UNTOLD:
        scene.repeated[0] += 1
    else:
        tell(scene, finding, number, to_server, verb, offset, before, before_length, after, after_length)
    return carried_out(scene, action)


cdef void report_repeated(Scene *scene) noexcept nogil:
    cdef Record *record
    cdef uint32_t count
    cdef uint8_t finding
    for finding in range(1, TALLY_KINDS):
        count = tally_count(&scene.session.tally, finding)
        if count == last_told(count, scene.ruling.findings_told):
            continue
        record = ring_reserve(scene.ring, RECORD_REPEATED, scene.identity, scene.now)
        if record == NULL:
            continue
        record.to_server = 1
        record.state = scene.session.state
        record.finding = finding
        record.action = scene.ruling.action[finding]
        record.hypothetical = scene.session.hypothetical
        record.applied = scene.ruling.apply
        record.b = count
        ring_push(scene.ring)


cdef void out_of_memory(Scene *scene, bint to_server, uint64_t offset) noexcept nogil:
    # ACTION_LOG as a verdict: not to be looked at any more.
    cdef uint8_t action = report(scene, STREAM_MEMORY_LIMIT, to_server, 0, offset, NULL, 0, NULL, 0)
    scene.verdict = action if action > ACTION_LOG else ACTION_LOG


cdef inline bint ends_message(const Scene *scene, const Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # Whether a reply to it is the word on a message.
    return verb == scene.grammar.verb_end_of_data or (verb == VERB_BDAT and dialogue.last_chunk)


cdef inline bint is_untold(const Dialogue *dialogue) noexcept nogil:
    return (dialogue.more if dialogue.more != NULL else dialogue.few)[dialogue.first] & UNTOLD != 0


cdef inline bint keeps_reply(Scene *scene, const Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # Whether the reply to it, the oldest outstanding command, is: as it was, or as the word on a message.
    if not scene.grammar.told[verb] or not is_untold(dialogue):
        return scene.grammar.told[verb]
    if ends_message(scene, dialogue, verb):
        return True
    scene.omitted[0] += 1
    return False


cdef inline uint8_t *slots(Dialogue *dialogue, uint32_t *size) noexcept nogil:
    size[0] = ring_size(dialogue)
    return dialogue.more if dialogue.more != NULL else dialogue.few


cdef bint expect_one_more(Scene *scene, Dialogue *dialogue, uint8_t verb, uint64_t offset) noexcept nogil:
    cdef uint32_t size, more, i
    cdef uint8_t *ring = slots(dialogue, &size)
    cdef uint8_t *larger
    if dialogue.count >= scene.ruling.outstanding_commands:
        report(scene, COMMAND_TOO_MANY_OUTSTANDING, True, verb, offset, NULL, 0, NULL, 0)
        if not scene.ruling.apply:
            dialogue.input = INPUT_OPAQUE
            dialogue.tls_checked = 1
        return False
    more = size * 4 if size < UINT16_MAX // 4 else UINT16_MAX
    larger = <uint8_t *> pool_take(scene.lender.pool, more, 0)
    if larger == NULL:
        out_of_memory(scene, True, offset)
        return False
    for i in range(dialogue.count):
        larger[i] = ring[(dialogue.first + i) % size]
    pool_give(scene.lender.pool, dialogue.more, dialogue.capacity)
    dialogue.more = larger
    dialogue.capacity = <uint16_t> more
    dialogue.first = 0
    return expect_reply(scene, dialogue, verb, offset)


cdef uint8_t awaited_verb(Dialogue *dialogue) noexcept nogil:
    cdef uint32_t size
    cdef uint8_t *ring = slots(dialogue, &size)
    return ring[(dialogue.first + dialogue.waiting - 1) % size] & ~UNTOLD if dialogue.waiting else VERB_UNKNOWN


cdef void answer_all(Scene *scene, Dialogue *dialogue) noexcept nogil:
    dialogue.count = dialogue.first = dialogue.waiting = dialogue.greetings = dialogue.recipients = 0
    dialogue.impatient = 0
    if dialogue.more != NULL:
        pool_give(scene.lender.pool, dialogue.more, dialogue.capacity)
        dialogue.more = NULL
        dialogue.capacity = 0


cdef void tell_reply(Scene *scene, uint8_t verb, uint16_t code, const uint8_t *text, uint32_t length,
                     uint64_t offset, bint untold) noexcept nogil:
    cdef Record *record = ring_reserve(scene.ring, RECORD_REPLY, scene.identity, scene.now)
    if record == NULL:
        return
    record.code = code
    record.verb = verb
    record.state = scene.session.state
    record.a = offset
    record.b = untold                              # what it is to has not been told
    record_text(record, text + 4 if text != NULL else text, length - 4 if length > 4 else 0, False)
    ring_push(scene.ring)


cdef bint resynchronise(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    # Watching only: the reply tells which command the server answers, so skip to that one.
    cdef uint32_t i, size
    cdef uint8_t *ring = slots(dialogue, &size)
    for i in range(dialogue.count):
        if scene.grammar.continues[ring[(dialogue.first + i) % size] & ~UNTOLD] == dialogue.code:
            while i:
                if keeps_reply(scene, dialogue, expected_verb(dialogue)):
                    tell_reply(scene, expected_verb(dialogue), 0, NULL, 0, offset, False)  # there will be none
                answer_oldest(scene, dialogue, expected_verb(dialogue))
                i -= 1
            return True
    return False


cdef void ambiguous(Scene *scene, Dialogue *dialogue, uint8_t verb, uint64_t offset, const uint8_t *text,
                    uint32_t length) noexcept nogil:
    report(scene, REPLY_AMBIGUOUS, False, verb, offset, text, length, NULL, 0)
    if scene.ruling.restore:
        scene.verdict = ACTION_LOG                 # what cannot be told from a message is left alone


cdef bint spells_ehlo(const uint8_t *octets, uint32_t length) noexcept nogil:
    # Some servers skip space and control octets, or know a verb by its first letters.
    cdef const char *ehlo = b"EHLO"
    cdef uint32_t i, found = 0
    for i in range(length):
        if octets[i] > SPACE:
            if upper(octets[i]) != <uint8_t> ehlo[found]:
                return False
            found += 1
            if found == 4:
                return True
    return False


cdef void note_ehlo(Session *session, Dialogue *dialogue, uint8_t verb, const uint8_t *octets,
                    uint32_t length) noexcept nogil:
    # Only where nothing was said before it is it certain which reply is EHLO's: a server that skips a blank line,
    # or answers one twice, shifts the count.
    cdef bint first = (session.asked == ASKED_NOTHING and not dialogue.reply_junk
                       and dialogue.reply_line == 0 and not dialogue.reply_cr and dialogue.reply_column == 0)
    if verb == VERB_EHLO:
        session.asked = ASKED_EHLO if first else ASKED_DOUBT
    elif spells_ehlo(octets, length):
        session.asked = ASKED_DOUBT
    elif session.asked == ASKED_NOTHING:
        session.asked = ASKED_OTHER


cdef inline void note_answered(Session *session, Dialogue *dialogue, bint odd) noexcept nogil:
    if session.asked == ASKED_EHLO:
        # RFC 5321 4.1.1.1; the greeting is none, and one of a single line may be another command's, answered twice.
        session.asked = ASKED_TOLD if dialogue.code == 250 and dialogue.reply_line and (
            expected_verb(dialogue) == VERB_EHLO) and not odd else ASKED_DOUBT
    elif dialogue.count == 0:
        session.asked = ASKED_DOUBT if session.asked >= ASKED_EHLO else ASKED_OTHER


cdef inline bint leads_on(uint8_t verb, uint16_t code) noexcept nogil:
    # Of a mail there may be thousands of recipients, and chunks.
    return code // 100 == 2 and (verb == VERB_RCPT or verb == VERB_BDAT) or (verb == VERB_DATA and code == 354)


cdef void note_reply(Scene *scene, Dialogue *dialogue, uint8_t verb, const uint8_t *text, uint32_t length,
                     uint64_t offset) noexcept nogil:
    cdef Grammar *grammar = scene.grammar
    cdef uint16_t code = dialogue.code
    cdef uint16_t digit = code // 100
    scene.session.state = grammar.next_state[scene.session.state][verb][digit if digit < 6 else 0]
    if verb == VERB_BDAT and digit == 2 and dialogue.last_chunk:
        scene.session.state = grammar.state_ready
    if scene.session.offered_chunking:
        scene.session.offered_chunking = CHUNK_REFUSED if verb == VERB_BDAT and code >= 400 else CHUNK_OFFERED
    # DATA's 354 is told as well: what was said behind it is no command.
    if keeps_reply(scene, dialogue, verb) or (code == 354 and verb == VERB_DATA and grammar.told[VERB_MAIL]):
        tell_reply(scene, verb, code, text, length, offset, is_untold(dialogue))
    if grammar.dull[verb]:
        if verb != grammar.verb_greeting:
            note_junk(scene, offset)
        return
    if verb == VERB_RCPT and digit == 5:
        scene.session.invalid_recipients += 1
        if scene.ruling.invalid_recipients and scene.session.invalid_recipients > scene.ruling.invalid_recipients:
            report(scene, RECIPIENTS_INVALID_TOO_MANY, False, verb, offset, text, length, NULL, 0)
    elif verb == grammar.verb_end_of_data:
        scene.session.invalid_recipients = 0            # the mail they were of is over
    elif digit == 2 and (verb == VERB_MAIL or verb == VERB_RSET or begins_anew(verb)):
        # So it is for the server, and for no one before it says so: of the others those behind it count.
        scene.session.invalid_recipients = 0
        scene.session.recipients = dialogue.recipients + (
            dialogue.phase == PHASE_ARGUMENT and dialogue.verb == VERB_RCPT and not dialogue.denied)
    if scene.verdict != ACTION_PASS:
        return
    if digit == 2 and ends_message(scene, dialogue, verb):
        scene.junk[0] = 0
        scene.untold = 0
    elif not leads_on(verb, code):
        note_junk(scene, offset)


cdef void settle_reply(Scene *scene, Dialogue *dialogue, const uint8_t *text, uint32_t length,
                       uint64_t offset) noexcept nogil:
    cdef Grammar *grammar = scene.grammar
    cdef uint16_t code = dialogue.code
    cdef uint8_t verb = expected_verb(dialogue)
    cdef bint expected = dialogue.count != 0
    # Neither space nor dash behind the code (RFC 5321 4.2.1): some clients read on.
    dialogue.reply_junk = length > 3 and text[3] != SPACE
    note_answered(scene.session, dialogue, dialogue.reply_junk)
    length = shown_of_reply(scene, verb, length)
    if (code == 354 or code == 334) and (
            not expected or grammar.continues[verb] != code
            # 334 asks for one line, and what stands behind AUTH may be taken for it.
            or (grammar.reads[verb] == INPUT_SASL and dialogue.count > 1)):
        ambiguous(scene, dialogue, verb, offset, text, length)
        if not scene.ruling.hold and resynchronise(scene, dialogue, offset):
            verb = expected_verb(dialogue)
    elif code != 421 and (dialogue.input == INPUT_SASL or (
            dialogue.input == INPUT_DATA and not expected and not scene.ruling.bug_data_bypass)):
        # RFC 5321 4.2.5, RFC 4954 4: the line, or the message, has not come yet. A server that has given it
        # up reads what follows as commands.
        ambiguous(scene, dialogue, verb, offset, text, length)
    elif not expected and code != 421 and scene.session.offered_chunking == CHUNK_REFUSED and scene.ruling.hold:
        # It has refused a chunk and reads it as commands.
        ambiguous(scene, dialogue, verb, offset, text, length)
    elif not expected:
        # RFC 5321 3.8: a server may close with 421 at any time.
        if code != 421 and again(scene, REPLY_UNSOLICITED, False) == NOT_AGAIN:
            report(scene, REPLY_UNSOLICITED, False, verb, offset, text, length, NULL, 0)
        if code != 421:
            scene.session.offered_chunking = 0     # which command a reply is to is not certain any more
    elif verb == VERB_BDAT and dialogue.input == INPUT_CHUNK and dialogue.count == 1:
        # RFC 3030 2: the octets of a chunk are read whatever becomes of it. A server that answers
        # before they have come may take them for commands.
        ambiguous(scene, dialogue, verb, offset, text, length)
    if scene.verdict != ACTION_PASS:
        return
    if not expected:
        if grammar.told[verb]:
            tell_reply(scene, verb, code, text, length, offset, False)
        return
    note_reply(scene, dialogue, verb, text, length, offset)
    if scene.verdict != ACTION_PASS:
        return
    if code == 0 or grammar.continues[verb] != code:
        if dialogue.input == INPUT_SASL:           # given up
            dialogue.input = INPUT_COMMANDS
            dialogue.phase = PHASE_START
        if verb == VERB_DATA and dialogue.input == INPUT_DATA:
            report(scene, BUG_DATA_BYPASS, False, verb, offset, NULL, 0, NULL, 0)
        answer_oldest(scene, dialogue, verb)
        return
    if verb == VERB_DATA and dialogue.input == INPUT_DATA:
        answer_oldest(scene, dialogue, verb)       # CSCdr91002: the message has begun with the command
        return
    if verb == VERB_DATA and scene.ruling.bug_noop_body and scene.session.noop_seen:
        # CSCdk46673: the text is taken for commands, and X-ed, until a line of a single dot.
        report(scene, BUG_NOOP_BODY, False, verb, offset, NULL, 0, NULL, 0)
        answer_all(scene, dialogue)
        scene.session.noop_seen = 0
        dialogue.body_as_commands = 1
        return
    dialogue.input = grammar.reads[verb]
    dialogue.waiting = 0
    dialogue.impatient = 0
    give_line(scene.lender, &dialogue.command)
    if dialogue.input == INPUT_SASL:               # AUTH stays outstanding until its final reply
        dialogue.phase = PHASE_SASL
        dialogue.line_length = 0
        dialogue.reported = 0
        dialogue.mask_rest = 0
        return
    # The server reads everything behind the command as message text, or as TLS.
    answer_all(scene, dialogue)
    begin_message(dialogue)
    if dialogue.input == INPUT_OPAQUE:
        report(scene, TLS_STARTED, False, verb, offset, NULL, 0, NULL, 0)


cdef void begin_message(Dialogue *dialogue) noexcept nogil:
    if dialogue.after_cr:
        dialogue.data_state = DATA_CR
    else:
        dialogue.data_state = DATA_LINE if dialogue.phase == PHASE_START else DATA_TEXT
    dialogue.phase = PHASE_START
    dialogue.after_cr = 0
    dialogue.reported = 0
    dialogue.message_octets = 0
    dialogue.data_line_length = 0
    dialogue.part_octets = dialogue.part_line = 0
    dialogue.to_fields = 0
    dialogue.ends_kept = 0
    dialogue.part_body = dialogue.part_cr = dialogue.part_name = dialogue.part_reported = 0
    dialogue.mime = 0
    dialogue.mime_line = dialogue.mime_reported = 0
    dialogue.mime_header = 1
    dialogue.text_octet = CR if dialogue.data_state == DATA_CR else 0
    dialogue.text_reported = 0
    dialogue.header = 1
    dialogue.tls_checked = 0
