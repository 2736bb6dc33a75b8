# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Message text: finds the end of DATA and leaves no second opinion about it.

Promises: what we take for the end of data is what any server takes for it
(RFC 5321 4.1.1.4): of the other shapes some servers accept (SMTP smuggling, 2023)
the completing octet is blanked. Most text is skipped by memchr: an end of data
needs a dot behind a line end. Does not know commands.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr

from nfmailguard.cext.mime cimport mime_octets
from nfmailguard.cext.part cimport part_octets
from nfmailguard.cext.record cimport RECORD_MESSAGE, Record, ring_push, ring_reserve
from nfmailguard.cext.smtp cimport (
    ACTION_BLANK,
    ACTION_PASS,
    DATA_BARE,
    DATA_BARE_CR,
    DATA_BARE_DOT,
    DATA_BARE_LF,
    DATA_CR,
    DATA_DOT,
    DATA_DOT_CR,
    DATA_LINE,
    DATA_LINE_TOO_LONG,
    DATA_NUL,
    DATA_SMUGGLING_SHAPE,
    DATA_TEXT,
    HEADER_LINE_TOO_LONG,
    INPUT_COMMANDS,
    INPUT_DATA,
    NOT_AGAIN,
    PHASE_START,
    VERB_BDAT,
    again,
    expect_reply,
    note_change,
    report,
    upper,
)

cdef extern from "scan.h" nogil:
    size_t nm_odd_octet(const uint8_t *p, size_t length, uint8_t before) noexcept
    size_t nm_blank_nuls(uint8_t *p, size_t length) noexcept
    const uint8_t *nm_last_lf(const uint8_t *p, size_t length) noexcept
    bint nm_plain(const uint8_t *p, size_t length, uint8_t before) noexcept

cdef enum:                             # Odd: octets that have no place in a message; bits of Dialogue.text_reported
    ODD_NUL = 0
    ODD_LF = 1
    ODD_CR = 2
    ODD_ALL = 7

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32
    DOT = 46
    REPORTED_LINE = 1


cdef inline uint8_t step(uint8_t state, uint8_t octet) noexcept nogil:
    # Any octet but a dot, in any state that holds no dot.
    if octet == CR:
        return DATA_CR
    if octet == LF:
        return DATA_LINE if state == DATA_CR else DATA_BARE
    return DATA_TEXT


cdef inline bint shape(Scene *scene, Dialogue *dialogue, uint8_t *octet, uint8_t blank,
                       uint64_t offset) noexcept nogil:
    # Reports a non-standard end of data; whether `octet` was overwritten with `blank`.
    cdef uint8_t before = octet[0]
    cdef uint8_t action = again(scene, DATA_SMUGGLING_SHAPE, True)
    if action == NOT_AGAIN:
        action = report(scene, DATA_SMUGGLING_SHAPE, True, 0, offset, &before, 1, &blank, 1)
    if action != ACTION_BLANK:
        return False
    note_change(scene)
    octet[0] = blank
    return True


cdef inline uint32_t next_dot(const uint8_t *octets, uint32_t at, uint32_t length) noexcept nogil:
    """The index of the next dot, or ``length``."""
    cdef uint32_t near = at + 4 if length - at > 4 else length
    cdef const uint8_t *dot
    while at < near:                               # where dots are dense, a call costs more than the looking
        if octets[at] == DOT:
            return at
        at += 1
    dot = <const uint8_t *> memchr(octets + at, DOT, length - at)
    return <uint32_t> (dot - octets) if dot != NULL else length


cdef uint32_t first_nul(Scene *scene, const uint8_t *octets, uint32_t at, uint32_t length) noexcept nogil:
    """The index of the first NUL to be blanked, or ``length``."""
    cdef const uint8_t *nul = NULL
    if scene.ruling.apply and scene.ruling.action[DATA_NUL] == ACTION_BLANK:
        nul = <const uint8_t *> memchr(octets + at, 0, length - at)
    return <uint32_t> (nul - octets) if nul != NULL else length


cdef inline void blank_nuls(Scene *scene, uint8_t *octets, uint32_t length) noexcept nogil:
    """There is one in what is read."""
    if scene.edits == 0:
        note_change(scene)
        scene.edits = 0
    scene.edits += <uint32_t> nm_blank_nuls(octets, length)


cdef uint32_t find_end(Scene *scene, Dialogue *dialogue, uint8_t *octets, uint32_t at, uint32_t length,
                       uint64_t offset, bint *ended) noexcept nogil:
    # The index behind CRLF.CRLF, or `length` when the message goes on. Some servers leave NULs out before they
    # look for the end of data: where they are blanked, none is left to.
    cdef uint8_t state = dialogue.data_state
    cdef uint32_t stop
    cdef uint32_t nul = first_nul(scene, octets, at, length)
    cdef uint8_t octet
    ended[0] = 0
    while at < length and scene.verdict == ACTION_PASS:
        if state < DATA_DOT and at + 1 < length and octets[at + 1] == DOT and (octets[at] == LF or octets[at] == CR):
            state = DATA_DOT if octets[at] == LF and state == DATA_CR else DATA_BARE_DOT
            at += 2                                # where they are dense, the general way costs more
            continue
        if state < DATA_DOT:
            stop = next_dot(octets, at, length)
            if nul < stop:
                blank_nuls(scene, octets + at, stop - at)
            # The two octets before a dot tell all there is to know.
            if stop - at >= 2:
                state = step(step(DATA_TEXT, octets[stop - 2]), octets[stop - 1])
            elif stop - at == 1:
                state = step(state, octets[at])
            at = stop
            if at < length:
                at += 1
                state = DATA_DOT if state == DATA_LINE else DATA_BARE_DOT if state != DATA_TEXT else DATA_TEXT
            continue
        if octets[at] == 0 and nul < length:
            blank_nuls(scene, octets + at, 1)
        octet = octets[at]
        if state == DATA_DOT_CR:
            if octet == LF:
                ended[0] = 1
            elif shape(scene, dialogue, octets + at, LF, offset + at):
                ended[0] = 1                       # CRLF.CR has left: make it the one standard end
            if ended[0]:
                state = DATA_LINE
                at += 1
                break
            state = DATA_CR                        # read the octet again as what follows a CR
        elif octet == CR and state == DATA_DOT:
            state = DATA_DOT_CR
            at += 1
        elif octet == CR or octet == LF:
            if shape(scene, dialogue, octets + at, SPACE, offset + at):
                state = DATA_TEXT
            else:
                state = step(DATA_TEXT, octet)
            at += 1
        else:
            state = DATA_TEXT
            at += 1
    dialogue.data_state = state
    return at


cdef void measure_lines(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t at, uint32_t length,
                        uint64_t offset) noexcept nogil:
    # RFC 5321 4.5.3.1.6; ASA default map, classes 3 and 4: a CR at the end is not counted.
    cdef uint32_t stop, size, limit
    cdef const uint8_t *end
    while at < length and scene.verdict == ACTION_PASS:
        limit = scene.ruling.header_line_length if dialogue.header else scene.ruling.body_line_length
        if not dialogue.header and dialogue.data_line_length == 0:
            # Any line that ends within `limit` octets is short enough: only the last end matters.
            end = nm_last_lf(octets + at, length - at if limit == 0 or length - at < limit else limit)
            if end != NULL:
                at = <uint32_t> (end - octets) + 1
                dialogue.after_cr = 0
                dialogue.reported = 0
                continue
        end = <const uint8_t *> memchr(octets + at, LF, length - at)
        stop = <uint32_t> (end - octets) if end != NULL else length
        size = dialogue.data_line_length + (stop - at)
        if stop > at:
            dialogue.after_cr = octets[stop - 1] == CR
        if limit and size - dialogue.after_cr > limit and not dialogue.reported & REPORTED_LINE:
            dialogue.reported |= REPORTED_LINE
            report(scene, HEADER_LINE_TOO_LONG if dialogue.header else DATA_LINE_TOO_LONG, True, 0,
                   offset + at + limit - dialogue.data_line_length, NULL, 0, NULL, 0)
        if end == NULL:
            dialogue.data_line_length = size
            return
        if size - dialogue.after_cr == 0:
            dialogue.header = 0                    # RFC 5322 2.1: an empty line ends the header
        dialogue.data_line_length = 0
        dialogue.after_cr = 0
        dialogue.reported = 0
        at = stop + 1


cdef void find_odd(Dialogue *dialogue, const uint8_t *octets, uint32_t at, uint32_t length,
                   uint32_t *found) noexcept nogil:
    """Where the octets RFC 5321 2.3.8 and 4.5.2 forbid are first met: by Odd; ``length`` where they are not.

    In honest text one pass finds nothing. A kind that has been reported is not looked for again.
    """
    cdef uint32_t start = at, place
    cdef const uint8_t *next_one
    found[0] = found[1] = found[2] = length
    if dialogue.text_reported == 0:
        at += <uint32_t> nm_odd_octet(octets + at, length - at, dialogue.text_octet)
    if at == length or dialogue.text_reported == ODD_ALL:
        return
    if not dialogue.text_reported & 1 << ODD_NUL:
        next_one = <const uint8_t *> memchr(octets + at, 0, length - at)
        if next_one != NULL:
            found[ODD_NUL] = <uint32_t> (next_one - octets)
    place = at
    while place < length and not dialogue.text_reported & 1 << ODD_LF:
        next_one = <const uint8_t *> memchr(octets + place, LF, length - place)
        if next_one == NULL:
            break
        place = <uint32_t> (next_one - octets)
        if (octets[place - 1] if place > start else dialogue.text_octet) != CR:
            found[ODD_LF] = place
            break
        place += 1
    if dialogue.text_reported & 1 << ODD_CR:
        return
    if (octets[at - 1] if at > start else dialogue.text_octet) == CR and octets[at] != LF:
        found[ODD_CR] = at
        return
    place = at
    while place < length:
        next_one = <const uint8_t *> memchr(octets + place, CR, length - place)
        if next_one == NULL or next_one == octets + length - 1:
            break
        place = <uint32_t> (next_one - octets) + 1
        if octets[place] != LF:
            found[ODD_CR] = place
            break


cdef void report_odd(Scene *scene, Dialogue *dialogue, uint8_t kind, uint8_t finding, uint32_t at, uint32_t end,
                     uint64_t offset) noexcept nogil:
    if at < end:
        dialogue.text_reported |= 1 << kind
        report(scene, finding, True, 0, offset + at, NULL, 0, NULL, 0)


cdef inline bint is_plain(Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    # What came before may have been changed since: both readings of it count.
    cdef uint8_t state = dialogue.data_state
    if state >= DATA_DOT or (octets[0] == DOT and state != DATA_TEXT):
        return False
    return nm_plain(octets, length, dialogue.text_octet)


cdef inline void follow(Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    # The two last octets tell all there is to know.
    if length >= 2:
        dialogue.data_state = step(step(DATA_TEXT, octets[length - 2]), octets[length - 1])
    else:
        dialogue.data_state = step(dialogue.data_state, octets[0])


cdef uint32_t message_octets(Scene *scene, Dialogue *dialogue, uint8_t *octets, uint32_t at, uint32_t length,
                             uint64_t offset) noexcept nogil:
    cdef bint ended = 0
    cdef uint32_t odd[3]
    cdef uint32_t end
    cdef uint8_t last = octets[length - 1]
    cdef Record *record
    if is_plain(dialogue, octets + at, length - at):
        # As nearly all text: nothing to tell, and no dot that could begin an end of data.
        follow(dialogue, octets + at, length - at)
        end = length
    else:
        find_odd(dialogue, octets, at, length, odd)    # as they came: find_end makes some of them spaces
        end = find_end(scene, dialogue, octets, at, length, offset, &ended)
        report_odd(scene, dialogue, ODD_NUL, DATA_NUL, odd[ODD_NUL], end, offset)
        report_odd(scene, dialogue, ODD_LF, DATA_BARE_LF, odd[ODD_LF], end, offset)
        report_odd(scene, dialogue, ODD_CR, DATA_BARE_CR, odd[ODD_CR], end, offset)
    dialogue.text_octet = last
    if scene.verdict != ACTION_PASS:
        return end
    if scene.ruling.header_line_length or scene.ruling.body_line_length:
        measure_lines(scene, dialogue, octets, at, end, offset)
        if scene.verdict != ACTION_PASS:
            return end
    if scene.ruling.header_length or scene.ruling.body_length or scene.ruling.to_fields:
        part_octets(scene, dialogue, octets, at, end, offset, ended)
        if scene.verdict != ACTION_PASS:
            return end
    if scene.ruling.filename_length:
        mime_octets(scene, dialogue, octets, at, end, offset)
        if scene.verdict != ACTION_PASS:
            return end
    dialogue.message_octets += end - at
    if not ended:
        return end
    record = ring_reserve(scene.ring, RECORD_MESSAGE, scene.identity, scene.now)
    if record != NULL:
        record.to_server = 1
        record.state = scene.session.state
        record.a = dialogue.message_octets - 3     # without the dot and its CRLF
        record.c = scene.session.found
        scene.session.found = 0
        ring_push(scene.ring)
    dialogue.message_octets = 0
    dialogue.input = INPUT_COMMANDS
    scene.session.recipients = 0
    dialogue.after_cr = 0
    dialogue.reported = 0
    expect_reply(scene, dialogue, scene.grammar.verb_end_of_data, offset + end - 1)
    return end


cdef bint end_is_cut(Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    # S-Q295725, S-POSTFIX HISTORY 20010529: the final ".<CR><LF>" spans a packet boundary.
    if dialogue.input != INPUT_DATA:
        return False
    if dialogue.data_state == DATA_DOT:
        return octets[0] == CR and (length == 1 or octets[1] == LF)
    return dialogue.data_state == DATA_DOT_CR and octets[0] == LF


cdef uint32_t end_begun(Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    # "<CR><LF>." or "<CR><LF>.<CR>", with the octets that were let through before.
    cdef uint32_t behind = 1 if octets[length - 1] == CR else 0    # the dot
    cdef const uint8_t *dot = octets + length - 1 - behind
    cdef uint32_t before
    if dialogue.input != INPUT_DATA or length < behind + 1 or dot[0] != DOT:
        return 0
    before = length - 1 - behind
    if before >= 2:
        return behind + 3 if (dot - 1)[0] == LF and (dot - 2)[0] == CR else 0
    if before == 1:
        return behind + 2 if (dot - 1)[0] == LF and dialogue.data_state == DATA_CR else 0
    return behind + 1 if dialogue.data_state == DATA_LINE else 0


cdef bint chunk_waits(const Ruling *ruling, const Session *session, Dialogue *dialogue, const uint8_t *octets,
                      uint32_t length) noexcept nogil:
    # A verb that is cut may go on as BDAT.
    cdef const char *bdat = b"BDAT"
    cdef uint32_t i = 0
    if (dialogue.count == 0 or dialogue.input != INPUT_COMMANDS or dialogue.phase != PHASE_START or dialogue.after_cr
            or not ruling.hold or not ruling.allow[VERB_BDAT] or not session.offered_chunking or ruling.seven_bits):
        return False
    while i < length and i < 4:
        if upper(octets[i]) != <uint8_t> bdat[i]:
            return False
        i += 1
    if i == 4 and length > 4 and octets[4] > SPACE:
        return False                               # another verb
    dialogue.waiting = dialogue.count
    dialogue.impatient = 1                         # as it may be (RFC 3030 4.2): not to be told
    return True


cdef void end_chunk(Scene *scene, Dialogue *dialogue) noexcept nogil:
    # RFC 3030 2: LAST says that it was the message's last one.
    cdef Record *record
    dialogue.input = INPUT_COMMANDS
    if not dialogue.last_chunk:
        return
    record = ring_reserve(scene.ring, RECORD_MESSAGE, scene.identity, scene.now)
    if record != NULL:
        record.to_server = 1
        record.state = scene.session.state
        record.a = dialogue.message_octets
        record.c = scene.session.found
        scene.session.found = 0
        ring_push(scene.ring)
    dialogue.message_octets = 0
