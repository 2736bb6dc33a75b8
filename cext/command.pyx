# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Command lines: which verbs get through, and what the others become.

Keeps invariant 4 (segmentation decides nothing): every octet is decided when it is
seen, from what stands before it. A verb that lies in one segment gets the exact
form of the ruling; one that is cut passes while an allowed verb is still possible
and becomes letters from the first impossible octet, so no denied verb is readable
and no partial line is held. What leaves ends its lines with CRLF and nothing else
(where bare CR and LF are blanked), so no server can see another line than we do.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memcpy

from nfmailguard.cext.argument cimport (
    SIZE_INVALID,
    SIZE_LAST,
    address_octet,
    end_secret,
    invalid_size,
    measure_line,
    nul_octet,
    put,
    sasl_octet,
    size_complete,
    size_octet,
)
from nfmailguard.cext.message cimport end_chunk
from nfmailguard.cext.record cimport RECORD_COMMAND, Record, ring_push, ring_reserve
from nfmailguard.cext.restore cimport report_damage, restore_command, verb_masked
from nfmailguard.cext.run cimport FATE_LETTER, FATE_NOOP, FATE_OPEN, FATE_PASS
from nfmailguard.cext.secret cimport cut_short, note_secret, shown_of_line, verb_of_line
from nfmailguard.cext.smtp cimport (
    ACTION_BLANK,
    ACTION_MASK,
    ACTION_PASS,
    ARGUMENT_CHUNK_SIZE,
    ARGUMENT_RECIPIENT,
    ARGUMENT_SENDER,
    COMMAND_BARE_CR,
    COMMAND_BARE_LF,
    COMMAND_DENIED,
    FORM_NOOP,
    FORM_OK,
    FORM_XALL,
    INPUT_CHUNK,
    INPUT_COMMANDS,
    INPUT_DATA,
    NAME_OCTETS,
    NOT_AGAIN,
    PHASE_ARGUMENT,
    PHASE_SASL,
    PHASE_START,
    PHASE_VERB,
    RECIPIENTS_TOO_MANY,
    SECRET_SAID,
    UPSTREAM_COMMAND_MASKED,
    VERB_BDAT,
    VERB_DATA,
    VERB_MAIL,
    VERB_NOOP,
    VERB_RCPT,
    VERB_RSET,
    VERB_UNKNOWN,
    Line,
    again,
    begin_message,
    begins_anew,
    expect_reply,
    give_line,
    lend_line,
    line_add,
    note_asked,
    out_of_memory,
    report,
    upper,
)
from nfmailguard.cext.verb cimport find_verb, refusal, report_verb, spelled_out, verb_possible

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32


cdef uint8_t choose_fate(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    """The fate of the verb whose (next) octets begin at ``octets``, `length` octets in this segment."""
    cdef Line *line = dialogue.command
    cdef uint32_t end = 0
    cdef uint8_t verb, finding
    cdef uint8_t name[NAME_OCTETS]
    cdef bint whole
    cdef bint blank_lf = scene.ruling.action[COMMAND_BARE_LF] == ACTION_BLANK
    cdef bint blank_cr = scene.ruling.action[COMMAND_BARE_CR] == ACTION_BLANK
    if not scene.ruling.apply:
        return FATE_PASS
    if dialogue.leading:
        while end < length and octets[end] <= SPACE and octets[end] != CR and (octets[end] != LF or blank_lf):
            end += 1
    while end < length and octets[end] != SPACE and octets[end] != LF:
        if octets[end] == CR and (blank_cr or (end + 1 < length and octets[end + 1] == LF)):
            break
        end += 1
    whole = end < length
    if line.length + end > NAME_OCTETS:
        verb = find_verb(scene, <const uint8_t *> line.octets if line.length else octets, NAME_OCTETS + 1)
    else:
        memcpy(name, line.octets, line.length)
        memcpy(name + line.length, octets, end)
        verb = find_verb(scene, name, line.length + end)
    finding = refusal(scene, dialogue, verb, line.length + end)
    if line.length:                                # the verb began in an earlier segment
        if scene.ruling.faithful:
            return FATE_LETTER if finding or dialogue.fate == FATE_LETTER or not whole else FATE_PASS
        if not whole or not finding or scene.ruling.action[finding] != ACTION_MASK:
            return dialogue.fate
        # All of it has left, or some servers read only the letters they know a verb by, and those have:
        # what follows is no argument either.
        dialogue.mask_rest |= end == 0 or spelled_out(scene, line.octets, line.length)
        return FATE_LETTER
    if not finding and (whole or scene.ruling.faithful):
        return FATE_PASS
    if scene.ruling.action[finding if whole or finding else COMMAND_DENIED] != ACTION_MASK:
        return FATE_PASS
    if not whole:
        return FATE_LETTER if scene.ruling.faithful else FATE_OPEN
    return FATE_NOOP if scene.ruling.unknown == FORM_NOOP and end >= 4 else FATE_LETTER


cdef void resume_line(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    """A segment begins: what Cisco masks a packet at a time is chosen anew (S-113423); what was open may be clear."""
    if dialogue.phase == PHASE_VERB and (scene.ruling.faithful or dialogue.fate == FATE_OPEN):
        dialogue.fate = choose_fate(scene, dialogue, octets, length)


cdef void verb_octet(Scene *scene, Dialogue *dialogue, uint8_t *at) noexcept nogil:
    cdef Line *line = dialogue.command
    cdef uint8_t octet = at[0]
    cdef uint32_t place = dialogue.verb_length
    cdef const char *noop = b"NOOP"
    line_add(line, octet)
    if dialogue.verb_length < 0xffff:
        dialogue.verb_length += 1
    if octet > SPACE:
        dialogue.leading = 0
    if dialogue.fate == FATE_OPEN and not verb_possible(scene, dialogue, line.octets, dialogue.verb_length):
        dialogue.fate = FATE_LETTER
        dialogue.mask_rest |= spelled_out(scene, line.octets, dialogue.verb_length - 1)
    if dialogue.fate == FATE_LETTER:
        put(scene, at, scene.ruling.letter)
    elif dialogue.fate == FATE_NOOP:
        put(scene, at, noop[place] if place < 4 else SPACE)
    else:
        line.sent += 1


cdef void end_verb(Scene *scene, Dialogue *dialogue, uint8_t *at, uint32_t length, uint64_t offset) noexcept nogil:
    cdef uint8_t verb = find_verb(scene, dialogue.command.octets, dialogue.verb_length)
    settle_verb(scene, dialogue, verb, refusal(scene, dialogue, verb, dialogue.verb_length), at, length, offset)


cdef void note_masked(Scene *scene, Dialogue *dialogue) noexcept nogil:
    """Nobody knows the verb: was it masked before it reached us?"""
    cdef Line *line = dialogue.command
    if verb_masked(line.octets, dialogue.verb_length) and not dialogue.body_as_commands and (
            scene.ruling.restore or again(scene, UPSTREAM_COMMAND_MASKED, True) == NOT_AGAIN):
        report_damage(scene, UPSTREAM_COMMAND_MASKED, True, VERB_UNKNOWN, dialogue.line_offset,
                      line.octets, line.length)


cdef void settle_verb(Scene *scene, Dialogue *dialogue, uint8_t verb, uint8_t finding, uint8_t *at, uint32_t length,
                      uint64_t offset) noexcept nogil:
    cdef uint8_t action = ACTION_PASS
    dialogue.phase = PHASE_ARGUMENT
    dialogue.verb = verb
    dialogue.address_phase = 0
    dialogue.address_length = 0
    dialogue.bracket = 0
    dialogue.chunk_left = 0
    if verb == VERB_UNKNOWN and dialogue.verb_length > 3 and upper(dialogue.command.octets[0]) == c"X":
        note_masked(scene, dialogue)
    if not finding and dialogue.fate == FATE_LETTER and scene.ruling.faithful:
        finding = COMMAND_DENIED                   # masked a packet at a time (S-113423)
    if finding:
        action = again(scene, finding, True)
        if action == NOT_AGAIN:
            action = report_verb(scene, dialogue, finding, verb, at, length)
    if action == ACTION_MASK:
        dialogue.denied = 1
        dialogue.mask_rest |= scene.ruling.unknown == FORM_XALL
        # Where all of the verb has passed as the beginning of an allowed one, spoil its end; but never a
        # line's end, which every server has to see where we do.
        if at[0] == SPACE and dialogue.mask_rest:
            put(scene, at, scene.ruling.letter)
        return
    if verb == VERB_RCPT:
        scene.session.recipients += 1
        if scene.ruling.recipients and scene.session.recipients > scene.ruling.recipients:
            report(scene, RECIPIENTS_TOO_MANY, True, verb, offset, NULL, 0, NULL, 0)


cdef void end_of_verb(Scene *scene, Dialogue *dialogue, uint8_t *at) noexcept nogil:
    note_secret(scene, dialogue)                   # a server may answer before the line has ended
    line_add(dialogue.command, SPACE)
    if dialogue.mask_rest:
        put(scene, at, scene.ruling.letter)


cdef void ordinary_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, uint32_t length,
                         uint64_t offset) noexcept nogil:
    cdef uint8_t kind, masked, came = at[0]
    if dialogue.phase == PHASE_SASL:
        sasl_octet(scene, dialogue, at, offset)
        return
    if dialogue.phase == PHASE_START:
        if scene.ruling.restore:
            restore_command(scene, dialogue, at, length, offset)
        begin_line(scene, dialogue, offset)
        dialogue.command = lend_line(scene.lender)
        if dialogue.command == NULL:
            out_of_memory(scene, True, offset)
            return
        dialogue.phase = PHASE_VERB
        dialogue.fate = choose_fate(scene, dialogue, at, length)
    dialogue.line_length += 1
    if came == 0:
        scene.session.secret |= SECRET_SAID        # what follows may be another line, as behind a bare LF
        nul_octet(scene, dialogue, at, offset)
        if scene.verdict != ACTION_PASS:
            return
    if dialogue.line_length > scene.ruling.near_length:
        masked = dialogue.mask_rest
        measure_line(scene, dialogue, at[0], offset)
        if dialogue.mask_rest and not masked:
            dialogue.fate = FATE_LETTER
        if scene.verdict != ACTION_PASS:
            return
    if dialogue.phase == PHASE_VERB:
        if at[0] == SPACE and not dialogue.leading:
            end_verb(scene, dialogue, at, length, offset)
            end_of_verb(scene, dialogue, at)
        else:
            verb_octet(scene, dialogue, at)
        return
    kind = scene.grammar.argument[dialogue.verb]
    line_add(dialogue.command, came)
    if dialogue.mask_rest:
        put(scene, at, scene.ruling.letter)
    elif dialogue.denied:
        return
    elif kind == ARGUMENT_SENDER or kind == ARGUMENT_RECIPIENT:
        address_octet(scene, dialogue, at, offset)
    elif kind == ARGUMENT_CHUNK_SIZE:
        size_octet(scene, dialogue, at, offset)


cdef void end_body_line(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    # CSCdk46673: no server answers a line of a message.
    if dialogue.verb == scene.grammar.verb_dot and dialogue.command.length == 1:
        dialogue.body_as_commands = 0
        scene.session.recipients = 0
        expect_reply(scene, dialogue, scene.grammar.verb_end_of_data, offset)
    give_line(scene.lender, &dialogue.command)
    dialogue.phase = PHASE_START


cdef void tell_command(Scene *scene, Dialogue *dialogue) noexcept nogil:
    cdef Record *record
    if scene.untold:
        scene.omitted[0] += 1
        return
    record = ring_reserve(scene.ring, RECORD_COMMAND, scene.identity, scene.now)
    if record == NULL:
        return
    record.to_server = 1
    record.state = scene.session.state
    record.verb = dialogue.verb
    record.a = dialogue.line_offset
    record.b = dialogue.denied | cut_short(dialogue) << 1
    record.c = scene.session.found
    scene.session.found = 0
    if dialogue.verb != VERB_UNKNOWN:
        record.before_length = <uint16_t> shown_of_line(scene, dialogue, record.text)
    ring_push(scene.ring)


cdef void end_line(Scene *scene, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil:
    cdef uint8_t verb
    if dialogue.phase == PHASE_SASL:
        end_secret(scene, dialogue, offset)
        dialogue.phase = PHASE_START
        dialogue.input = INPUT_COMMANDS
        dialogue.waiting = dialogue.count
        return
    if dialogue.phase == PHASE_START:
        if not dialogue.body_as_commands:
            note_asked(scene.session, dialogue, VERB_UNKNOWN, NULL, 0)
            expect_reply(scene, dialogue, scene.grammar.verb_empty, offset)
        return
    if dialogue.phase == PHASE_VERB:
        end_verb(scene, dialogue, at, 0, offset)
        if scene.verdict != ACTION_PASS:
            return
    if dialogue.verb == VERB_BDAT and not dialogue.denied and not size_complete(dialogue):
        dialogue.denied = invalid_size(scene, dialogue, NULL, 0, offset)
        if scene.verdict != ACTION_PASS:
            return
    if dialogue.body_as_commands:
        end_body_line(scene, dialogue, offset)
        return
    if dialogue.line_length > scene.ruling.near_length:
        end_secret(scene, dialogue, offset)
        if scene.verdict != ACTION_PASS:
            return
    verb = dialogue.verb
    if dialogue.denied:
        verb = scene.grammar.verb_masked if scene.ruling.unknown == FORM_OK else VERB_UNKNOWN
    if scene.grammar.told[dialogue.verb]:
        tell_command(scene, dialogue)
    note_secret(scene, dialogue)
    if verb == VERB_RSET or verb == VERB_MAIL or begins_anew(verb):
        dialogue.message_octets = 0                # of chunks that no LAST followed
    scene.session.noop_seen |= verb == VERB_NOOP
    note_asked(scene.session, dialogue, verb, dialogue.command.octets, verb_of_line(dialogue))
    if begins_anew(verb):
        scene.session.offered_chunking = 0              # until this one's reply offers it
    if verb == VERB_DATA and scene.ruling.bug_data_bypass and scene.ruling.apply:
        expect_reply(scene, dialogue, verb, offset)
        give_line(scene.lender, &dialogue.command)
        dialogue.phase = PHASE_START
        begin_message(dialogue)
        dialogue.input = INPUT_DATA                # CSCdr91002: whatever the server says to it
        return
    if expect_reply(scene, dialogue, verb, offset):
        if scene.grammar.waits[verb]:
            dialogue.waiting = dialogue.count
        if verb == VERB_BDAT and dialogue.address_phase != SIZE_INVALID:
            dialogue.last_chunk = dialogue.address_phase == SIZE_LAST
            if dialogue.chunk_left:
                dialogue.input = INPUT_CHUNK
            else:
                end_chunk(scene, dialogue)
    give_line(scene.lender, &dialogue.command)
    dialogue.phase = PHASE_START
    dialogue.verb = VERB_UNKNOWN
