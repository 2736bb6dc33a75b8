# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What a complete reply does to the session.

Promises: the session's state changes only by the table of ``smtp.states``; each reply answers the oldest outstanding
command (RFC 2920 3.1). Does not know how lines are read.
"""

from libc.stdint cimport uint16_t

from nfmailguard.cext.policy.findings cimport (
    again, decide_flow, forget_junk, note_junk, omit_records, report, report_shown, reserve_record, shown,
)
from nfmailguard.cext.policy.numbers cimport (
    ACTION_LOG, ACTION_PASS, BUG_DATA_BYPASS, BUG_NOOP_BODY, NOT_AGAIN, RECIPIENTS_INVALID_TOO_MANY,
    REPLY_AMBIGUOUS, REPLY_UNSOLICITED, TLS_STARTED, UNTOLD, VERB_DATA, VERB_EHLO, VERB_MAIL, VERB_RCPT, VERB_RSET,
)
from nfmailguard.cext.policy.ruling cimport gates
from nfmailguard.cext.record cimport RECORD_REPLY, Record, record_text, ring_push
from nfmailguard.cext.smtp.command_line cimport PHASE_ARGUMENT, PHASE_START, CommandLine, begin_sasl_line, close_line
from nfmailguard.cext.smtp.dialogue cimport begin_message
from nfmailguard.cext.smtp.grammar cimport (
    INPUT_CHUNK, INPUT_COMMANDS, INPUT_DATA, INPUT_OPAQUE, INPUT_SASL, TRAIT_ANEW, TRAIT_RECORDED, TRAIT_UNREMARKABLE,
    Grammar,
)
from nfmailguard.cext.smtp.line cimport free_line
from nfmailguard.cext.smtp.name cimport upper
from nfmailguard.cext.smtp.outstanding cimport (
    answer_all, answer_oldest, expected_verb, go_on, is_untold, read_as, read_body_as_commands, ring_of, ring_size,
)
from nfmailguard.cext.smtp.reply_line cimport end_reply
from nfmailguard.cext.smtp.session cimport COUNTED_MOST, NOOP_SEEN, forget_noop, forget_seven_bits

cdef enum:
    SPACE = 32
    CHUNK_OFFERED = 1
    CHUNK_REFUSED = 2


cdef void record_reply(Context *context, uint8_t verb, uint16_t code, const uint8_t *text, uint32_t length,
                       uint64_t offset, bint untold) noexcept nogil:
    cdef Record *record = reserve_record(context, RECORD_REPLY)
    if record == NULL:
        return
    record.code = code
    record.verb = verb
    record.state = context.session.state
    record.a = offset
    record.b = untold                              # 1: the command it answers was not recorded
    if verb == context.grammar.verb_end_of_data or verb == VERB_BDAT:
        record.c = context.session.untold_recipients
        context.session.untold_recipients = 0
    record_text(record, text + 4 if text != NULL else text, length - 4 if length > 4 else 0, False)
    ring_push(context.ring)


cdef inline bint ends_message(const Context *context, const Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # Whether a reply to this verb decides whether a message is accepted.
    return verb == context.grammar.verb_end_of_data or (verb == VERB_BDAT and dialogue.text.last_chunk)


cdef inline bint leads_on(uint8_t verb, uint16_t code) noexcept nogil:
    # Positive replies to RCPT, BDAT and DATA lead on to a message and are not counted as junk; a mail may have
    # thousands.
    return code // 100 == 2 and (verb == VERB_RCPT or verb == VERB_BDAT) or (verb == VERB_DATA and code == 354)


cdef inline bint keeps_reply(Context *context, const Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # Whether the reply to `verb`, the oldest outstanding command, is recorded: as the command was, or since it decides
    # on a message.
    if not context.grammar.traits[verb] & TRAIT_RECORDED or not is_untold(&dialogue.exchange):
        return context.grammar.traits[verb] & TRAIT_RECORDED
    if ends_message(context, dialogue, verb):
        return True
    omit_records(context, 1)
    return False


cdef bint resynchronise(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    # Outside enforce mode: the reply's code tells which command the server answers; the commands before it are skipped.
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint32_t i, size = ring_size(exchange)
    for i in range(exchange.count):
        if context.grammar.continues[ring_of(exchange)[(exchange.first + i) % size] & ~UNTOLD] == dialogue.reply.code:
            while i:
                if keeps_reply(context, dialogue, expected_verb(exchange)):
                    # A skipped command is recorded with reply code 0: no reply to it will come.
                    record_reply(context, expected_verb(exchange), 0, NULL, 0, offset, False)
                answer_oldest(context, exchange, expected_verb(exchange))
                i -= 1
            return True
    return False


cdef void ambiguous(Context *context, Dialogue *dialogue, uint8_t verb, uint64_t offset, const uint8_t *text,
                    uint32_t length) noexcept nogil:
    report_shown(context, REPLY_AMBIGUOUS, False, verb, offset, shown(text, length, NULL, 0))
    if context.policy.restore:
        decide_flow(context, ACTION_LOG)                 # what cannot be told from message text is left alone


cdef bint spells_ehlo(const uint8_t *data, uint32_t length) noexcept nogil:
    # Some servers skip leading spaces and control bytes, or know a verb by its first letters.
    cdef const char *ehlo = b"EHLO"
    cdef uint32_t i, found = 0
    for i in range(length):
        if data[i] > SPACE:
            if upper(data[i]) != <uint8_t> ehlo[found]:
                return False
            found += 1
            if found == 4:
                return True
    return False


cdef void note_ehlo(Session *session, const ReplyLine *reply, uint8_t verb, const uint8_t *data,
                    uint32_t length) noexcept nogil:
    # Only where EHLO is the first thing the client has sent is it certain which reply is EHLO's: a server that skips a
    # blank line, or answers a blank line twice, shifts the count of replies.
    cdef bint first = (session.asked == ASKED_NOTHING and not reply.junk
                       and reply.lines == 0 and not reply.after_cr and reply.column == 0)
    if verb == VERB_EHLO:
        session.asked = ASKED_EHLO if first else ASKED_DOUBT
    elif spells_ehlo(data, length):
        session.asked = ASKED_DOUBT
    elif session.asked == ASKED_NOTHING:
        session.asked = ASKED_OTHER


cdef inline void note_answered(Session *session, const Dialogue *dialogue, bint odd) noexcept nogil:
    cdef const ReplyLine *reply = &dialogue.reply
    cdef const Exchange *exchange = &dialogue.exchange
    if session.asked == ASKED_EHLO:
        # RFC 5321 4.1.1.1. The greeting is no reply to EHLO; a reply of one line may be the second answer to another
        # command.
        session.asked = ASKED_TOLD if reply.code == 250 and reply.lines and (
            expected_verb(exchange) == VERB_EHLO) and not odd else ASKED_DOUBT
    elif exchange.count == 0:
        session.asked = ASKED_DOUBT if session.asked >= ASKED_EHLO else ASKED_OTHER


cdef inline void mail_is_over(Context *context, const Dialogue *dialogue) noexcept nogil:
    # What MAIL said of the mail's body holds no more, unless a command after this one may already have begun another
    # mail.
    if dialogue.exchange.count == 1:
        forget_seven_bits(context.session)


cdef inline bint adds_recipient(const CommandLine *command) noexcept nogil:
    return command.phase == PHASE_ARGUMENT and command.verb == VERB_RCPT and not command.denied


cdef void note_reply(Context *context, Dialogue *dialogue, uint8_t verb, const uint8_t *text, uint32_t length,
                     uint64_t offset) noexcept nogil:
    cdef Exchange *exchange = &dialogue.exchange
    cdef const Grammar *grammar = context.grammar
    cdef uint16_t code = dialogue.reply.code
    cdef uint16_t digit = code // 100
    cdef uint16_t traits = grammar.traits[verb]
    context.session.state = grammar.next_state[context.session.state][verb][digit if digit < 6 else 0]
    if verb == VERB_BDAT and digit == 2 and dialogue.text.last_chunk:
        context.session.state = grammar.state_ready
    if context.session.offered_chunking:
        context.session.offered_chunking = CHUNK_REFUSED if verb == VERB_BDAT and code >= 400 else CHUNK_OFFERED
    # DATA's 354 is recorded as well, since what the client sends after it is no command.
    if keeps_reply(context, dialogue, verb) or (
            code == 354 and verb == VERB_DATA and grammar.traits[VERB_MAIL] & TRAIT_RECORDED):
        record_reply(context, verb, code, text, length, offset, is_untold(exchange))
    if traits & TRAIT_UNREMARKABLE:
        if verb != grammar.verb_greeting:
            note_junk(context, offset)
        return
    if verb == VERB_RCPT and digit == 2:
        if context.session.untold_recipients < COUNTED_MOST:
            context.session.untold_recipients += is_untold(exchange)
    elif verb == VERB_RCPT and digit == 5:
        if context.session.invalid_recipients < COUNTED_MOST:
            context.session.invalid_recipients += 1
        if context.policy.invalid_recipients and context.session.invalid_recipients > context.policy.invalid_recipients:
            report_shown(context, RECIPIENTS_INVALID_TOO_MANY, False, verb, offset, shown(text, length, NULL, 0))
    elif verb == grammar.verb_end_of_data:
        context.session.invalid_recipients = 0            # the mail of these recipients is over
        mail_is_over(context, dialogue)
    elif digit == 2 and (verb == VERB_MAIL or verb == VERB_RSET or traits & TRAIT_ANEW):
        # With this reply the session begins anew for the server: only recipients from commands after this one still
        # count.
        context.session.invalid_recipients = context.session.untold_recipients = 0
        context.session.recipients = exchange.recipients + adds_recipient(&dialogue.command)
        if verb != VERB_MAIL:
            mail_is_over(context, dialogue)
    if context.verdict != ACTION_PASS:
        return
    if digit == 2 and ends_message(context, dialogue, verb):
        forget_junk(context)
    elif not leads_on(verb, code):
        note_junk(context, offset)


cdef inline bint has_left_behind(Context *context, const Dialogue *dialogue, uint8_t verb) noexcept nogil:
    """Whether bytes sent after a command have been forwarded that the server reads as what its reply asks for.

    334 asks for one line, and what followed AUTH may be taken for that line, or for its beginning: the line would be
    measured without it. What was forwarded together with DATA, after it, is read as message text by now."""
    cdef uint8_t reads = context.grammar.reads[verb]
    if reads != INPUT_SASL and not (
            reads == INPUT_DATA and gates(context.policy) and not context.policy.bug_data_bypass):
        return False
    return dialogue.exchange.count > 1 or dialogue.command.phase != PHASE_START or dialogue.command.after_cr


cdef inline bint out_of_place(Context *context, const Dialogue *dialogue, uint8_t verb) noexcept nogil:
    """Whether this reply, which asks for nothing, comes at a time that makes it uncertain how the server goes on."""
    cdef const Exchange *exchange = &dialogue.exchange
    cdef bint expected = exchange.count != 0
    if dialogue.reply.code != 421 and (exchange.input == INPUT_SASL or (
            exchange.input == INPUT_DATA and not expected and not context.policy.bug_data_bypass)):
        # RFC 5321 4.2.5, RFC 4954 4: the SASL response, or the message, has not come yet. A server that has given up
        # waiting for it reads what follows as commands.
        return True
    if not expected:                               # a server that has refused a chunk may read it as commands
        return (dialogue.reply.code != 421 and context.session.offered_chunking == CHUNK_REFUSED
                and gates(context.policy))
    # RFC 3030 2: a server reads a chunk's bytes whatever its reply to BDAT. One that replies before the bytes have come
    # may take them for commands.
    return verb == VERB_BDAT and exchange.input == INPUT_CHUNK and exchange.count == 1


cdef void read_on(Context *context, Dialogue *dialogue, uint8_t verb, uint64_t offset) noexcept nogil:
    """The server's reply to ``verb`` has asked for message text, a SASL response or TLS: that comes next."""
    cdef Exchange *exchange = &dialogue.exchange
    if verb == VERB_DATA and context.policy.bug_noop_body and context.session.marks & NOOP_SEEN:
        # CSCdk46673: message text is read as commands, and masked with X, up to a line of a single dot.
        report(context, BUG_NOOP_BODY, False, verb, offset)
        answer_all(context, exchange)
        forget_noop(context.session)
        read_body_as_commands(exchange, True)
        return
    read_as(exchange, context.grammar.reads[verb])
    go_on(exchange)
    free_line(context.line_pool, &dialogue.command.kept)
    if exchange.input == INPUT_SASL:               # AUTH stays outstanding until its final reply
        begin_sasl_line(&dialogue.command)
        return
    # The server reads all bytes after the command as message text, or as TLS.
    answer_all(context, exchange)
    begin_message(dialogue)
    if exchange.input == INPUT_OPAQUE:
        report(context, TLS_STARTED, False, verb, offset)


cdef void settle_reply(Context *context, Dialogue *dialogue, const uint8_t *text, uint32_t length,
                       uint64_t offset) noexcept nogil:
    cdef Exchange *exchange = &dialogue.exchange
    cdef Grammar *grammar = context.grammar
    cdef uint16_t code = dialogue.reply.code
    cdef uint8_t verb = expected_verb(exchange)
    cdef bint expected = exchange.count != 0
    end_reply(&dialogue.reply, text, length)
    note_answered(context.session, dialogue, dialogue.reply.junk)
    length = shown_of_reply(context, verb, length)
    if (code == 354 or code == 334) and (
            not expected or grammar.continues[verb] != code or has_left_behind(context, dialogue, verb)):
        ambiguous(context, dialogue, verb, offset, text, length)
        if not gates(context.policy) and resynchronise(context, dialogue, offset):
            verb = expected_verb(exchange)
    elif out_of_place(context, dialogue, verb):
        ambiguous(context, dialogue, verb, offset, text, length)
    elif not expected and code != 421:             # RFC 5321 3.8: a server may close with 421 at any time
        if again(context, REPLY_UNSOLICITED, False) == NOT_AGAIN:
            report_shown(context, REPLY_UNSOLICITED, False, verb, offset, shown(text, length, NULL, 0))
        context.session.offered_chunking = 0         # it is no longer certain which command a reply answers
    if context.verdict != ACTION_PASS:
        return
    if not expected:
        if grammar.traits[verb] & TRAIT_RECORDED:
            record_reply(context, verb, code, text, length, offset, False)
        return
    note_reply(context, dialogue, verb, text, length, offset)
    if context.verdict != ACTION_PASS:
        return
    if code != 0 and grammar.continues[verb] == code:
        if verb == VERB_DATA and exchange.input == INPUT_DATA:
            answer_oldest(context, exchange, verb)   # CSCdr91002: the message has begun right after the command
        else:
            read_on(context, dialogue, verb, offset)
        return
    if exchange.input == INPUT_SASL:               # the server has ended the SASL exchange
        read_as(exchange, INPUT_COMMANDS)
        close_line(&dialogue.command)
    if verb == VERB_DATA and exchange.input == INPUT_DATA:
        report(context, BUG_DATA_BYPASS, False, verb, offset)
    answer_oldest(context, exchange, verb)
