# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Message text: checked and forwarded so that no server sees the message end anywhere else.

Promises: text with nothing unusual in it is scanned only once. Where there is a dot that could begin an end of data
(text_end), an overlong line or header, or a byte that RFC 5321 forbids, the module for that case is asked. Does not
know commands.
"""

from libc.stddef cimport size_t
from libc.string cimport memchr

from nfmailguard.cext.policy.findings cimport decide_flow, report, reserve_record
from nfmailguard.cext.policy.numbers cimport (
    ACTION_PASS, ACTION_RESET, DATA_BARE_CR, DATA_BARE_LF, DATA_CR, DATA_DOT, DATA_DOT_CR, DATA_LINE, DATA_NUL,
    DATA_TEXT, VERB_BDAT,
)
from nfmailguard.cext.policy.ruling cimport applies, gates
from nfmailguard.cext.record cimport RECORD_MESSAGE, Record, ring_push
from nfmailguard.cext.smtp.command_line cimport PHASE_START, CommandLine
from nfmailguard.cext.smtp.grammar cimport INPUT_COMMANDS, INPUT_DATA
from nfmailguard.cext.smtp.mime cimport mime_bytes
from nfmailguard.cext.smtp.name cimport upper
from nfmailguard.cext.smtp.outstanding cimport Exchange, expect_reply, note_violation, read_as, wait_for_replies
from nfmailguard.cext.smtp.session cimport MAIL_SEVEN_BITS, forget_recipients, take_found
from nfmailguard.cext.smtp.shapes cimport Stretch, blank_long_lines, end_as_it_came, has_long_line
from nfmailguard.cext.smtp.size cimport part_bytes
from nfmailguard.cext.smtp.text cimport Text, leave_text
from nfmailguard.cext.smtp.text_end cimport find_end, find_end_in_seven, state_before
from nfmailguard.cext.smtp.text_lines cimport (
    LONG_LINE, follow_head, heads_on, in_head, lasts, measure_lines, note_line, size_of_head,
)

cdef extern from "scan.h" nogil:
    size_t nm_odd_byte(const uint8_t *p, size_t length, uint8_t before) noexcept
    bint nm_eighth(const uint8_t *p, size_t length) noexcept
    bint nm_plain(const uint8_t *p, size_t length, uint8_t before) noexcept

cdef enum:                             # Odd: bytes not allowed in a message, by bit number in Text.reported
    ODD_NUL = 0
    ODD_LF = 1
    ODD_CR = 2
    ODD_ALL = 7

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32
    DOT = 46


cdef void find_odd(const Text *text, const uint8_t *data, uint32_t at, uint32_t length,
                   uint32_t *found) noexcept nogil:
    """Finds the first NUL, bare LF and bare CR (RFC 5321 2.3.8, 4.5.2): indexes by Odd, ``length`` where there is none.

    In well-formed text one pass finds nothing. A kind that has been reported in this message is not searched again.
    """
    cdef uint32_t start = at, place
    cdef const uint8_t *next_one
    found[0] = found[1] = found[2] = length
    if text.reported == 0:
        at += <uint32_t> nm_odd_byte(data + at, length - at, <uint8_t> text.last_four)
    if at == length or text.reported == ODD_ALL:
        return
    if not text.reported & 1 << ODD_NUL:
        next_one = <const uint8_t *> memchr(data + at, 0, length - at)
        if next_one != NULL:
            found[ODD_NUL] = <uint32_t> (next_one - data)
    place = at
    while place < length and not text.reported & 1 << ODD_LF:
        next_one = <const uint8_t *> memchr(data + place, LF, length - place)
        if next_one == NULL:
            break
        place = <uint32_t> (next_one - data)
        if (data[place - 1] if place > start else <uint8_t> text.last_four) != CR:
            found[ODD_LF] = place
            break
        place += 1
    if text.reported & 1 << ODD_CR:
        return
    if (data[at - 1] if at > start else <uint8_t> text.last_four) == CR and data[at] != LF:
        found[ODD_CR] = at
        return
    place = at
    while place < length:
        next_one = <const uint8_t *> memchr(data + place, CR, length - place)
        if next_one == NULL or next_one == data + length - 1:
            break
        place = <uint32_t> (next_one - data) + 1
        if data[place] != LF:
            found[ODD_CR] = place
            break


cdef void report_odd(Context *context, Text *text, uint8_t kind, uint8_t finding, uint32_t at, uint32_t end,
                     uint64_t offset) noexcept nogil:
    if at < end:
        text.reported |= 1 << kind
        report(context, finding, True, 0, offset + at)


cdef inline bint is_plain(const Text *text, const uint8_t *data, uint32_t length) noexcept nogil:
    # Bytes before these may have been changed: the text has to be plain both after them as forwarded and as they came.
    cdef uint8_t state = text.state
    if state >= DATA_DOT or (data[0] == DOT and state != DATA_TEXT):
        return False
    if (text.last_four & 0xffffff == 0x0d0a2e and data[0] == CR) or (
            text.last_four == 0x0d0a2e0d and data[0] == LF):
        return False                               # the client's own end of data, in which an earlier byte was changed
    return nm_plain(data, length, <uint8_t> text.last_four)


cdef inline uint32_t last_four_with(uint32_t last_four, const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t i = length - 4 if length > 4 else 0
    while i < length:
        last_four = last_four << 8 | data[i]
        i += 1
    return last_four


cdef inline void measure(Context *context, Text *text, const uint8_t *data, uint32_t at, uint32_t end,
                         uint64_t offset, bint ended) noexcept nogil:
    """Checks the text, as it is forwarded, against the policy's limits: line lengths, sizes, To fields, file names."""
    if context.policy.header_line_length or context.policy.body_line_length:
        measure_lines(context, &text.lines, data, at, end, offset)
    else:
        note_line(&text.lines, data + at, end - at)
    if context.verdict == ACTION_PASS and (
            context.policy.header_length or context.policy.body_length or context.policy.to_fields):
        part_bytes(context, &text.parts, data, at, end, offset, ended)
    if context.verdict == ACTION_PASS and context.policy.filename_length:
        mime_bytes(context, &text.mime, data, at, end, offset)


cdef void end_message(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    """The message has ended, its last byte at stream offset ``offset``; command lines follow."""
    cdef Exchange *exchange = &dialogue.exchange
    cdef Record *record = reserve_record(context, RECORD_MESSAGE)
    if record != NULL:
        record.to_server = 1
        record.state = context.session.state
        record.a = dialogue.text.bytes - 3     # the message's size, without the final dot and its CRLF
        record.c = take_found(context.session)
        ring_push(context.ring)
    dialogue.text.bytes = 0
    read_as(exchange, INPUT_COMMANDS)
    forget_recipients(context.session)
    expect_reply(context, exchange, context.grammar.verb_end_of_data, offset)


cdef uint32_t message_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t at, uint32_t length,
                            uint64_t offset) noexcept nogil:
    cdef Text *text = &dialogue.text
    cdef bint ended = 0
    cdef uint32_t odd[3]
    cdef uint32_t end
    cdef uint32_t last_four, theirs = 0, head = at
    cdef Stretch stretch
    cdef bint seven = context.session.marks & MAIL_SEVEN_BITS and (text.eighth or nm_eighth(data + at, length - at))
    cdef bint long_line, one_line = False
    if length - at > LONG_LINE:
        length = at + LONG_LINE                    # only the first line of text read in one go can be overlong
    long_line = lasts(&text.lines, data + at, length - at) or heads_on(&text.lines, text.bytes + (length - at))
    if not seven and not long_line and is_plain(text, data + at, length - at):
        # True for almost all text: nothing to report, and no dot that could begin an end of data.
        leave_text(text, state_before(text.state, data, at, length))
        last_four = last_four_with(text.last_four, data + at, length - at)
        end = length
    else:
        theirs = end_as_it_came(text.last_four, data, at, length)
        if theirs:
            length = theirs                        # bytes after the client's end of data are not text
        last_four = last_four_with(text.last_four, data + at, length - at)
        find_odd(text, data, at, length, odd)      # before bytes are blanked: positions in the text as it came
        if long_line:
            one_line = memchr(data + at, LF, length - at) == NULL
            if in_head(&text.lines):
                head += size_of_head(&text.lines, data + at, length - at)
            stretch.data, stretch.offset, stretch.at, stretch.head = data, offset, at, head
            stretch.length, stretch.ended = length, theirs != 0
            blank_long_lines(context, text, &stretch)
        if seven:
            end = find_end_in_seven(context, text, data, at, length, offset, &ended)
        else:
            end = find_end(context, text, data, at, length, offset, &ended)
        report_odd(context, text, ODD_NUL, DATA_NUL, odd[ODD_NUL], end, offset)
        report_odd(context, text, ODD_LF, DATA_BARE_LF, odd[ODD_LF], end, offset)
        report_odd(context, text, ODD_CR, DATA_BARE_CR, odd[ODD_CR], end, offset)
        if theirs and not ended and context.verdict == ACTION_PASS and applies(context.policy):
            decide_flow(context, ACTION_RESET)     # or the server would wait for an end that was already sent
    if context.verdict != ACTION_PASS:
        return end
    if in_head(&text.lines):
        head = at + follow_head(&text.lines, data + at, end - at)
    # If no line ends in this text, blanking cannot have joined two lines, and blank_long_lines has done all there is.
    if context.edits and not one_line and (long_line or lasts(&text.lines, data + at, end - at)):
        stretch.data, stretch.offset, stretch.at, stretch.head = data, offset, at, head
        stretch.length, stretch.ended = end, ended
        if has_long_line(context, text, &stretch):
            decide_flow(context, ACTION_RESET)     # blanking has made a line or the header overlong
            return end
    text.last_four = last_four
    measure(context, text, data, at, end, offset, ended)
    if context.verdict != ACTION_PASS:
        return end
    text.bytes += end - at
    if ended:
        end_message(context, dialogue, offset + end - 1)
    return end


cdef bint end_is_cut(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    # S-Q295725, S-POSTFIX HISTORY 20010529: the final ".<CR><LF>" spans a packet boundary.
    if dialogue.exchange.input != INPUT_DATA:
        return False
    if dialogue.text.state == DATA_DOT:
        return data[0] == CR and (length == 1 or data[1] == LF)
    return dialogue.text.state == DATA_DOT_CR and data[0] == LF


cdef uint32_t end_begun(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil:
    # Looks for "<CR><LF>." or "<CR><LF>.<CR>" at the end, of which earlier bytes may have been forwarded already.
    cdef uint32_t behind = 1 if data[length - 1] == CR else 0    # bytes after the dot: a CR, or none
    cdef const uint8_t *dot = data + length - 1 - behind
    cdef uint32_t before
    if dialogue.exchange.input != INPUT_DATA or length < behind + 1 or dot[0] != DOT:
        return 0
    before = length - 1 - behind
    if before >= 2:
        return behind + 3 if (dot - 1)[0] == LF and (dot - 2)[0] == CR else 0
    if before == 1:
        return behind + 2 if (dot - 1)[0] == LF and dialogue.text.state == DATA_CR else 0
    return behind + 1 if dialogue.text.state == DATA_LINE else 0


cdef bint chunk_waits(const CompiledPolicy *policy, const Session *session, Dialogue *dialogue, const uint8_t *data,
                      uint32_t length) noexcept nogil:
    # A verb cut by the segment's end counts too, as it may become BDAT.
    cdef CommandLine *command = &dialogue.command
    cdef Exchange *exchange = &dialogue.exchange
    cdef const char *bdat = b"BDAT"
    cdef uint32_t i = 0
    if (exchange.count == 0 or exchange.input != INPUT_COMMANDS or command.phase != PHASE_START or command.after_cr
            or not gates(policy) or not policy.allow[VERB_BDAT] or not session.offered_chunking or policy.seven_bits):
        return False
    while i < length and i < 4:
        if upper(data[i]) != <uint8_t> bdat[i]:
            return False
        i += 1
    if i == 4 and length > 4 and data[4] > SPACE:
        return False                               # a longer word, so not BDAT
    wait_for_replies(exchange)
    note_violation(exchange)                       # pipelining is allowed here (RFC 3030 4.2): not to be reported
    return True


cdef uint32_t chunk_bytes(Context *context, Dialogue *dialogue, uint32_t at, uint32_t length) noexcept nogil:
    cdef uint32_t part = length - at
    if part > dialogue.text.chunk_left:
        part = dialogue.text.chunk_left
    dialogue.text.chunk_left -= part
    dialogue.text.bytes += part
    if dialogue.text.chunk_left == 0:
        end_chunk(context, dialogue)
    return at + part


cdef void end_chunk(Context *context, Dialogue *dialogue) noexcept nogil:
    # RFC 3030 2: LAST marks the message's last chunk.
    cdef Record *record
    read_as(&dialogue.exchange, INPUT_COMMANDS)
    if not dialogue.text.last_chunk:
        return
    record = reserve_record(context, RECORD_MESSAGE)
    if record != NULL:
        record.to_server = 1
        record.state = context.session.state
        record.a = dialogue.text.bytes
        record.c = take_found(context.session)
        ring_push(context.ring)
    dialogue.text.bytes = 0
