# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Command lines: which verbs get through, and what the others become.

Keeps invariant 4 (segmentation decides nothing): every byte is decided when it is seen, from the bytes before it.
A verb that lies in one segment is masked exactly in the form the policy asks for. A verb that is cut by a segment
boundary passes while it may still become an allowed verb, and becomes letters from the first byte that rules this
out, so no denied verb is readable and no partial line is held. Forwarded lines end with CRLF and nothing else
(where bare CR and LF are blanked), so no server can see other lines than this code does.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memcpy

from nfmailguard.cext.policy.findings cimport again, omit_records, out_of_memory, report
from nfmailguard.cext.policy.numbers cimport (
    ACTION_BLANK, ACTION_MASK, ACTION_PASS, COMMAND_BARE_CR, COMMAND_BARE_LF, COMMAND_DENIED, FORM_OK, FORM_XALL,
    NOT_AGAIN, RECIPIENTS_TOO_MANY, UPSTREAM_COMMAND_MASKED, VERB_BDAT, VERB_DATA, VERB_MAIL, VERB_NOOP, VERB_RCPT,
    VERB_RSET, VERB_UNKNOWN,
)
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.record cimport Record, ring_push
from nfmailguard.cext.smtp.argument cimport (
    SEVEN_BITS, SIZE_INVALID, SIZE_LAST, address_bytes, end_secret, invalid_size, measure_line, nul_byte, put,
    sasl_byte, size_byte, size_complete,
)
from nfmailguard.cext.smtp.command_line cimport (
    PHASE_SASL, PHASE_START, PHASE_VERB, CommandLine, begin_argument, begin_line, lengthen, lengthen_verb,
)
from nfmailguard.cext.smtp.dialogue cimport begin_message
from nfmailguard.cext.smtp.grammar cimport (
    ARGUMENT_CHUNK_SIZE, ARGUMENT_RECIPIENT, ARGUMENT_SENDER, INPUT_CHUNK, INPUT_COMMANDS, INPUT_DATA, TRAIT_RECORDED,
    TRAIT_WAITS,
)
from nfmailguard.cext.smtp.line cimport Line, alloc_line, free_line, line_add, line_let_through
from nfmailguard.cext.smtp.message cimport end_chunk
from nfmailguard.cext.smtp.name cimport NAME_BYTES, upper
from nfmailguard.cext.smtp.outstanding cimport (
    Exchange, begins_anew, expect_reply, read_as, read_body_as_commands, untold_of, wait_for_replies,
)
from nfmailguard.cext.smtp.redact cimport command_record, cut_short, note_secret, shown_of_line, verb_of_line
from nfmailguard.cext.smtp.reply_effects cimport note_asked
from nfmailguard.cext.smtp.runs cimport MASK_LETTER, MASK_NONE, MASK_NOOP, MASK_UNDECIDED
from nfmailguard.cext.smtp.session cimport (
    add_recipients, forget_recipients, note_noop, note_secret_said, note_seven_bits, offer_chunking,
)
from nfmailguard.cext.smtp.text cimport begin_chunk, forget_chunks
from nfmailguard.cext.smtp.unmask cimport report_damage, restore_command, verb_masked
from nfmailguard.cext.smtp.verb cimport becomes_noop, find_verb, refusal, report_verb, spelled_out, verb_possible

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32


cdef uint8_t choose_mask_mode(Context *context, Dialogue *dialogue, const uint8_t *data,
                              uint32_t length) noexcept nogil:
    """Chooses the mask mode of a verb whose (next) bytes begin at ``data``; `length` bytes of them are in this
    segment."""
    cdef CommandLine *command = &dialogue.command
    cdef Line *line = command.kept
    cdef uint32_t end = 0
    cdef uint8_t verb, finding
    cdef uint8_t name[NAME_BYTES]
    cdef bint whole
    cdef bint blank_lf = context.policy.action[COMMAND_BARE_LF] == ACTION_BLANK
    cdef bint blank_cr = context.policy.action[COMMAND_BARE_CR] == ACTION_BLANK
    if not applies(context.policy):
        return MASK_NONE
    if command.leading:
        while end < length and data[end] <= SPACE and data[end] != CR and (data[end] != LF or blank_lf):
            end += 1
    while end < length and data[end] != SPACE and data[end] != LF:
        if data[end] == CR and (blank_cr or (end + 1 < length and data[end + 1] == LF)):
            break
        end += 1
    whole = end < length
    if line.length + end > NAME_BYTES:
        verb = find_verb(context, <const uint8_t *> line.data if line.length else data, NAME_BYTES + 1)
    else:
        memcpy(name, line.data, line.length)
        memcpy(name + line.length, data, end)
        verb = find_verb(context, name, line.length + end)
    finding = refusal(context, &dialogue.exchange, verb, line.length + end)
    if line.length:                                # the verb's first bytes came in an earlier segment
        if context.policy.per_packet:
            return MASK_LETTER if finding or command.mode == MASK_LETTER or not whole else MASK_NONE
        if not whole or not finding or context.policy.action[finding] != ACTION_MASK:
            return command.mode
        # The whole verb has been forwarded already, or as many letters as some servers know a verb by: what follows
        # must not pass as its argument either.
        command.mask_rest |= end == 0 or spelled_out(context, line.data, line.length)
        return MASK_LETTER
    if not finding and (whole or context.policy.per_packet):
        return MASK_NONE
    if context.policy.action[finding if whole or finding else COMMAND_DENIED] != ACTION_MASK:
        return MASK_NONE
    if not whole:
        return MASK_LETTER if context.policy.per_packet else MASK_UNDECIDED
    return MASK_NOOP if becomes_noop(context.policy, data, end) else MASK_LETTER


cdef void resume_line(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    """A segment begins: the mask mode of a cut verb is chosen anew where Cisco masks packet by packet (S-113423), and
    where it was undecided."""
    cdef CommandLine *command = &dialogue.command
    if command.phase == PHASE_VERB and (context.policy.per_packet or command.mode == MASK_UNDECIDED):
        command.mode = choose_mask_mode(context, dialogue, data, length)


cdef void verb_byte(Context *context, Dialogue *dialogue, uint8_t *at) noexcept nogil:
    cdef CommandLine *command = &dialogue.command
    cdef Line *line = command.kept
    cdef uint8_t byte = at[0]
    cdef uint32_t place = command.verb_length
    cdef const char *noop = b"NOOP"
    line_add(line, byte)
    lengthen_verb(command, 1)
    if byte > SPACE:
        command.leading = 0
    if command.mode == MASK_UNDECIDED and not verb_possible(
            context, &dialogue.exchange, line.data, command.verb_length):
        command.mode = MASK_LETTER
        command.mask_rest |= spelled_out(context, line.data, command.verb_length - 1)
    if command.mode == MASK_LETTER:
        put(context, at, context.policy.letter)
    elif command.mode == MASK_NOOP:
        put(context, at, noop[place] if place < 4 else SPACE)
    else:
        line_let_through(line, 1)


cdef void end_verb(Context *context, Dialogue *dialogue, uint8_t *at, uint32_t length, uint64_t offset) noexcept nogil:
    cdef CommandLine *command = &dialogue.command
    cdef uint8_t verb = find_verb(context, command.kept.data, command.verb_length)
    cdef uint8_t finding = refusal(context, &dialogue.exchange, verb, command.verb_length)
    settle_verb(context, dialogue, verb, finding, at, length, offset)


cdef void note_masked(Context *context, Dialogue *dialogue) noexcept nogil:
    """Reports an unknown verb that another firewall upstream seems to have masked (X's)."""
    cdef CommandLine *command = &dialogue.command
    cdef Line *line = command.kept
    if verb_masked(line.data, command.verb_length) and not dialogue.exchange.body_as_commands and (
            context.policy.restore or again(context, UPSTREAM_COMMAND_MASKED, True) == NOT_AGAIN):
        report_damage(context, UPSTREAM_COMMAND_MASKED, True, VERB_UNKNOWN, command.offset,
                      line.data, line.length)


cdef void settle_verb(Context *context, Dialogue *dialogue, uint8_t verb, uint8_t finding, uint8_t *at, uint32_t length,
                      uint64_t offset) noexcept nogil:
    cdef CommandLine *command = &dialogue.command
    cdef uint8_t action = ACTION_PASS
    begin_argument(command, verb)
    if verb == VERB_UNKNOWN and command.verb_length > 3 and upper(command.kept.data[0]) == c"X":
        note_masked(context, dialogue)
    if not finding and command.mode == MASK_LETTER and context.policy.per_packet:
        finding = COMMAND_DENIED                   # a verb masked packet by packet (S-113423) counts as denied
    if finding:
        action = again(context, finding, True)
        if action == NOT_AGAIN:
            action = report_verb(context, command, finding, verb, at, length)
    if action == ACTION_MASK:
        command.denied = 1
        command.mask_rest |= context.policy.unknown == FORM_XALL
        # If the whole denied verb was forwarded as the beginning of an allowed one, the space after it is overwritten
        # to spoil it; but never a line end, which every server has to see where this code does.
        if at[0] == SPACE and command.mask_rest:
            put(context, at, context.policy.letter)
        return
    if verb == VERB_RCPT:
        add_recipients(context.session, 1)
        if context.policy.recipients and context.session.recipients > context.policy.recipients:
            report(context, RECIPIENTS_TOO_MANY, True, verb, offset)


cdef void end_of_verb(Context *context, Dialogue *dialogue, uint8_t *at) noexcept nogil:
    cdef CommandLine *command = &dialogue.command
    note_secret(context, command)                   # secrets are noted here, as a server may reply before the line ends
    line_add(command.kept, SPACE)
    if command.mask_rest:
        put(context, at, context.policy.letter)


cdef void ordinary_byte(Context *context, Dialogue *dialogue, uint8_t *at, uint32_t length,
                        uint64_t offset) noexcept nogil:
    cdef CommandLine *command = &dialogue.command
    cdef uint8_t kind, masked, original = at[0]
    if command.phase == PHASE_SASL:
        sasl_byte(context, command, at, offset)
        return
    if command.phase == PHASE_START:
        if context.policy.restore:
            restore_command(context, &dialogue.exchange, at, length, offset)
        begin_line(command, offset)
        command.kept = alloc_line(context.line_pool)
        if command.kept == NULL:
            out_of_memory(context, True, offset)
            return
        command.phase = PHASE_VERB
        command.mode = choose_mask_mode(context, dialogue, at, length)
    lengthen(command, 1)
    if original == 0:
        note_secret_said(context.session)        # some servers take what follows a NUL for another line
        nul_byte(context, command, at, offset)
        if context.verdict != ACTION_PASS:
            return
    if command.length > context.policy.near_length:
        masked = command.mask_rest
        measure_line(context, command, at[0], offset)
        if command.mask_rest and not masked:
            command.mode = MASK_LETTER
        if context.verdict != ACTION_PASS:
            return
    if command.phase == PHASE_VERB:
        if at[0] == SPACE and not command.leading:
            end_verb(context, dialogue, at, length, offset)
            end_of_verb(context, dialogue, at)
        else:
            verb_byte(context, dialogue, at)
        return
    kind = context.grammar.argument[command.verb]
    line_add(command.kept, original)
    if command.mask_rest:
        put(context, at, context.policy.letter)
    elif command.denied:
        return
    elif kind == ARGUMENT_SENDER or kind == ARGUMENT_RECIPIENT:
        address_bytes(context, command, at, 1, offset)
    elif kind == ARGUMENT_CHUNK_SIZE:
        size_byte(context, command, at, offset)


cdef void end_body_line(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    # CSCdk46673: a message's lines are read as commands here, but no server replies to them.
    cdef CommandLine *command = &dialogue.command
    cdef Exchange *exchange = &dialogue.exchange
    if command.verb == context.grammar.verb_dot and command.kept.length == 1:
        read_body_as_commands(exchange, False)
        forget_recipients(context.session)
        expect_reply(context, exchange, context.grammar.verb_end_of_data, offset)
    free_line(context.line_pool, &command.kept)
    command.phase = PHASE_START


cdef void record_command(Context *context, Dialogue *dialogue) noexcept nogil:
    cdef CommandLine *command = &dialogue.command
    cdef Record *record = command_record(context, command.verb, command.offset,
                                         command.denied | cut_short(command) << 1)
    if record == NULL:
        return
    if command.verb != VERB_UNKNOWN:
        record.before_length = <uint16_t> shown_of_line(context, command, record.text)
    ring_push(context.ring)


cdef void await_reply(Context *context, Dialogue *dialogue, uint8_t verb, uint64_t offset) noexcept nogil:
    """A line has ended whose verb passes as ``verb``: notes the reply to come, whether the client has to wait for it,
    and how the client's next bytes are read."""
    cdef CommandLine *command = &dialogue.command
    cdef Exchange *exchange = &dialogue.exchange
    if verb == VERB_DATA and context.policy.bug_data_bypass and applies(context.policy):
        expect_reply(context, exchange, verb, offset)
        free_line(context.line_pool, &command.kept)
        command.phase = PHASE_START
        begin_message(dialogue)
        read_as(exchange, INPUT_DATA)              # CSCdr91002: the message begins, whatever the server replies
        return
    if expect_reply(context, exchange, verb, offset):
        if context.grammar.traits[verb] & TRAIT_WAITS:
            wait_for_replies(exchange)
        if verb == VERB_BDAT and command.argument.phase != SIZE_INVALID:
            begin_chunk(&dialogue.text, command.argument.counted, command.argument.phase == SIZE_LAST)
            if dialogue.text.chunk_left:
                read_as(exchange, INPUT_CHUNK)
            else:
                end_chunk(context, dialogue)
    free_line(context.line_pool, &command.kept)
    command.phase = PHASE_START
    command.verb = VERB_UNKNOWN


cdef void end_line(Context *context, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil:
    cdef CommandLine *command = &dialogue.command
    cdef Exchange *exchange = &dialogue.exchange
    cdef uint8_t verb
    if command.phase == PHASE_SASL:
        end_secret(context, command, offset)
        command.phase = PHASE_START
        read_as(exchange, INPUT_COMMANDS)
        wait_for_replies(exchange)
        return
    if command.phase == PHASE_START:
        if not exchange.body_as_commands:
            note_asked(context.session, &dialogue.reply, VERB_UNKNOWN, NULL, 0)
            expect_reply(context, exchange, context.grammar.verb_empty, offset)
        return
    if command.phase == PHASE_VERB:
        end_verb(context, dialogue, at, 0, offset)
        if context.verdict != ACTION_PASS:
            return
    if command.verb == VERB_BDAT and not command.denied and not size_complete(&command.argument):
        command.denied = invalid_size(context, command, NULL, 0, offset)
        if context.verdict != ACTION_PASS:
            return
    if exchange.body_as_commands:
        end_body_line(context, dialogue, offset)
        return
    if command.length > context.policy.near_length:
        end_secret(context, command, offset)
        if context.verdict != ACTION_PASS:
            return
    verb = command.verb
    if command.denied:
        verb = context.grammar.verb_masked if context.policy.unknown == FORM_OK else VERB_UNKNOWN
    if context.grammar.traits[command.verb] & TRAIT_RECORDED:
        if untold_of(context, verb):
            omit_records(context, 1)
        else:
            record_command(context, dialogue)
    note_secret(context, command)
    if verb == VERB_RSET or verb == VERB_MAIL or begins_anew(verb):
        forget_chunks(&dialogue.text)
    if context.grammar.argument[verb] == ARGUMENT_SENDER:
        note_seven_bits(context.session, command.argument.in_seven == SEVEN_BITS)
    note_noop(context.session, verb == VERB_NOOP)
    note_asked(context.session, &dialogue.reply, verb, command.kept.data, verb_of_line(command))
    if begins_anew(verb):
        offer_chunking(context.session, False)     # until the reply to this command offers CHUNKING again
    await_reply(context, dialogue, verb, offset)
