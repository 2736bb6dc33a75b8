# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reply lines: the greeting's banner, the EHLO keywords, and which command each reply answers.

Keeps invariant 4 for the server's direction: the banner rules look at one octet and
its place in the line; a keyword cut over segments passes while an allowed one is
still possible and becomes X's from the first impossible octet. Replies other than
the greeting and that to EHLO are never altered (Cisco: all traces).
"""

from libc.stdint cimport uint16_t
from libc.string cimport memchr, memcpy, memset

from nfmailguard.cext.answer cimport (
    ANSWERS_ANYHOW,
    answers,
    is_behind,
    is_plain,
    is_refusal,
    masking_junk,
    no_reply_s,
    quick_lines,
    read_code,
    settle_dull,
)
from nfmailguard.cext.restore cimport banner_masked, keyword_masked, report_damage, restore_reply
from nfmailguard.cext.smtp cimport (
    ACTION_MASK,
    ACTION_PASS,
    BANNER_B40,
    BANNER_B51,
    BANNER_MASKED,
    BANNER_NONE,
    FLOW_NOT_SMTP,
    INPUT_OPAQUE,
    LINE_OCTETS,
    NAME_OCTETS,
    NOT_AGAIN,
    REPLY_KEYWORD_MASKED,
    REPLY_MALFORMED,
    REPLY_TURNED_OK,
    UPSTREAM_BANNER_MASKED,
    UPSTREAM_KEYWORD_MASKED,
    VERB_EHLO,
    Line,
    Name,
    again,
    expected_verb,
    give_line,
    lend_line,
    line_add,
    name_begins,
    name_is,
    note_change,
    out_of_memory,
    report,
    settle_reply,
)

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32
    DASH = 45
    STAR = 42

cdef enum KeywordFate:
    KEYWORD_NONE = 0           # not a line of a reply to EHLO
    KEYWORD_PASS = 1
    KEYWORD_OPEN = 2           # cut: decided by prefix
    KEYWORD_MASK = 3

cdef const char *CMAP = b"SMTP/cmap ready"


cdef inline void put(Scene *scene, uint8_t *at, uint8_t octet) noexcept nogil:
    if at[0] != octet:
        note_change(scene)
        if scene.ruling.apply:
            at[0] = octet


cdef uint8_t banner_octet(Scene *scene, uint32_t column, uint8_t octet) noexcept nogil:
    """What the octet at ``column`` of a 220 greeting line becomes, under the ruling's banner rule."""
    cdef uint8_t rule = scene.ruling.banner
    if column < 3:
        return octet
    if column == 3:
        if octet == SPACE and scene.ruling.banner_separator:
            return octet
        if octet == DASH and scene.ruling.banner_dash:
            return octet
        return STAR
    if rule == BANNER_B40:                         # PIX 4.0: S-RECOG's sample, padded with _
        return CMAP[column - 4] if column < 19 else c"_"
    if rule == BANNER_B51 and (octet == c"2" or octet == c"0"):
        return octet                               # S-Q295725, S-MS320027
    return STAR


cdef bint keyword_allowed(Scene *scene, const uint8_t *octets, uint32_t length) noexcept nogil:
    cdef uint32_t i
    for i in range(scene.ruling.keyword_count):
        if name_is(&scene.ruling.keywords[i], octets, length):
            return not scene.ruling.hide
    return scene.ruling.hide


cdef bint keyword_possible(Scene *scene, const uint8_t *octets, uint32_t length) noexcept nogil:
    cdef uint32_t i
    if scene.ruling.hide:
        return keyword_allowed(scene, octets, length)
    for i in range(scene.ruling.keyword_count):
        if name_begins(&scene.ruling.keywords[i], octets, length):
            return True
    return False


cdef inline bint masking_banner(Scene *scene, Dialogue *dialogue) noexcept nogil:
    return (scene.ruling.banner != BANNER_NONE and dialogue.code == 220
            and expected_verb(dialogue) == scene.grammar.verb_greeting)


cdef inline bint turning_ok(Scene *scene, Dialogue *dialogue) noexcept nogil:
    # S-4733: "responds with an OK even to denied commands": the server's answer to what was masked.
    return expected_verb(dialogue) == scene.grammar.verb_masked and scene.ruling.action[REPLY_TURNED_OK] == ACTION_MASK


cdef inline uint8_t ok_octet(uint32_t column, uint8_t octet) noexcept nogil:
    cdef const char *ok = b"250 OK"
    if column == 3:
        return octet
    return ok[column] if column < 6 else SPACE


cdef void report_ok(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef Line *line = dialogue.reply
    cdef uint8_t after[LINE_OCTETS]
    cdef uint32_t i, length = line.length if line.length < 120 else 120
    for i in range(length):
        after[i] = ok_octet(i, line.octets[i])
    report(scene, REPLY_TURNED_OK, False, 0, offset, line.octets, 0 if scene.session.secret else length, after, length)


cdef inline bint masking_keywords(Scene *scene, Dialogue *dialogue) noexcept nogil:
    if not scene.ruling.mask_ehlo or not is_behind(dialogue) or not dialogue.answers_ehlo:
        return False
    if scene.ruling.hide:
        return scene.session.ehlo_restored and dialogue.code == 250
    return dialogue.code == 250 or (dialogue.answers_ehlo == ANSWERS_ANYHOW and not is_refusal(dialogue))


cdef inline uint8_t letter(Dialogue *dialogue) noexcept nogil:
    # S-PGT against S-NMAPC: the n-th masked line of a reply ends in the n-th letter.
    return <uint8_t> (c"A" + dialogue.masked_lines % 26)


cdef inline bint too_long(Scene *scene, uint32_t length) noexcept nogil:
    # RFC 5321 4.5.3.1.5: some clients take what is behind for another line, and so for a keyword.
    return length > scene.ruling.longest_line != 0


cdef void begin_keyword(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    """Chooses the fate of the keyword line whose text begins at ``octets``."""
    cdef uint32_t end = 0, stop
    # A CR alone ends no line.
    while end < length and octets[end] != LF and not (
            octets[end] == CR and (end + 1 == length or octets[end + 1] == LF)):
        end += 1
    if end == length:
        dialogue.keyword_fate = KEYWORD_OPEN
        return
    stop = 0
    while stop < end and not scene.ruling.keyword_end[octets[stop]]:
        stop += 1
    dialogue.keyword_fate = KEYWORD_PASS if end == 0 or keyword_allowed(scene, octets, stop) else KEYWORD_MASK
    if not scene.ruling.hide and memchr(octets, CR, end) != NULL:
        dialogue.keyword_fate = KEYWORD_MASK


cdef void keyword_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, bint last) noexcept nogil:
    """One octet of the text; ``last``: the line's end is next and in this segment."""
    cdef Line *line = dialogue.reply
    cdef uint8_t name[NAME_OCTETS + 1]
    cdef uint32_t length = line.length - 4 if line.length > 4 else 0   # the text so far, this octet not in it
    if length > NAME_OCTETS:
        length = NAME_OCTETS                       # no keyword is that long: too long stays too long
    if at[0] == CR and not scene.ruling.hide:      # it seemed to be the line's end, and is to some clients
        dialogue.keyword_fate = KEYWORD_MASK
    if dialogue.keyword_fate == KEYWORD_OPEN:
        if scene.ruling.keyword_end[at[0]]:
            dialogue.keyword_fate = KEYWORD_PASS if keyword_allowed(scene, line.octets + 4, length) else KEYWORD_MASK
        else:
            name[length] = at[0]
            memcpy(name, line.octets + 4, length)
            if not keyword_possible(scene, name, length + 1):
                dialogue.keyword_fate = KEYWORD_MASK
    if too_long(scene, dialogue.reply_column + 1) and dialogue.keyword_fate != KEYWORD_MASK:
        if scene.ruling.action[REPLY_KEYWORD_MASKED] == ACTION_MASK:
            put(scene, at, c"X")
    elif dialogue.keyword_fate == KEYWORD_MASK and scene.ruling.action[REPLY_KEYWORD_MASKED] == ACTION_MASK:
        put(scene, at, letter(dialogue) if last else c"X")
    else:
        line.sent += 1


cdef void report_banner(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef Line *line = dialogue.reply
    cdef uint8_t after[LINE_OCTETS]
    cdef uint32_t i, length = line.length if line.length < 120 else 120
    for i in range(length):
        after[i] = banner_octet(scene, i, line.octets[i])
    if scene.session.secret:
        length = 0
    report(scene, BANNER_MASKED, False, 0, offset, line.octets, length, after, length)


cdef void report_keyword(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    cdef Line *line = dialogue.reply
    cdef uint8_t after[LINE_OCTETS]
    cdef uint32_t sent = line.sent if scene.ruling.apply else 0
    cdef uint32_t length = line.length if line.length < 120 else 120
    if length <= 4:
        return
    if again(scene, REPLY_KEYWORD_MASKED, False) == NOT_AGAIN:
        memcpy(after, line.octets, length)
        if 4 + sent < length:
            memset(after + 4 + sent, c"X", length - 4 - sent)
            after[length - 1] = letter(dialogue)
        if scene.session.secret:
            length = 0                             # nor what of it has left
        report(scene, REPLY_KEYWORD_MASKED, False, VERB_EHLO, offset, line.octets, length, after, length)
    dialogue.masked_lines += 1


cdef bint keyword_denied(Scene *scene, Dialogue *dialogue) noexcept nogil:
    # At the line's end: a keyword that passed to its end as a beginning of an allowed one may be none.
    cdef Line *line = dialogue.reply
    if dialogue.keyword_fate == KEYWORD_OPEN and line.length > 4:
        return not keyword_allowed(scene, line.octets + 4, line.length - 4)
    return dialogue.keyword_fate == KEYWORD_MASK


cdef void note_chunking(Scene *scene, Dialogue *dialogue) noexcept nogil:
    # RFC 3030 2: what the client may use is what the EHLO reply offered, as emitted.
    cdef Line *line = dialogue.reply
    cdef Name chunking
    memcpy(chunking.octets, b"CHUNKING", 8)
    chunking.length = 8
    if dialogue.greetings > 1:
        return                                     # and the session has begun anew since
    if dialogue.reply_line == 0:
        scene.session.offered_chunking = 0
    elif line.length == 12 and name_is(&chunking, line.octets + 4, 8):
        scene.session.offered_chunking = 1


cdef void report_upstream(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    """What of the line was masked before it reached us."""
    cdef Line *line = dialogue.reply
    cdef uint32_t length = line.length - 4 if line.length > 4 else 0
    if dialogue.reply_line == 0:
        dialogue.came_masked = 0
        if dialogue.code == 220 and expected_verb(dialogue) == scene.grammar.verb_greeting and (
                banner_masked(line.octets + 4, length)):
            report_damage(scene, UPSTREAM_BANNER_MASKED, False, 0, offset, line.octets, line.length)
    elif dialogue.answers_ehlo and dialogue.code == 250 and (
            keyword_masked(line.octets + 4, length, dialogue.came_masked)):
        dialogue.came_masked = line.octets[line.length - 1] - c"A" + 1
        report_damage(scene, UPSTREAM_KEYWORD_MASKED, False, VERB_EHLO, offset, line.octets, line.length)


cdef void end_reply_line(Scene *scene, Dialogue *dialogue) noexcept nogil:
    cdef Line *line = dialogue.reply
    cdef uint64_t start = dialogue.reply_offset
    cdef bint more = line != NULL and line.length > 3 and line.octets[3] == DASH
    if dialogue.malformed or dialogue.reply_column < 3:
        if again(scene, REPLY_MALFORMED, False) != NOT_AGAIN:
            pass
        elif line == NULL or scene.session.secret:
            report(scene, REPLY_MALFORMED, False, 0, start, NULL, 0, NULL, 0)
        else:
            report(scene, REPLY_MALFORMED, False, 0, start, line.octets, line.length, NULL, 0)
        if dialogue.malformed and masking_junk(scene, dialogue) and line != NULL:
            report(scene, REPLY_KEYWORD_MASKED, False, VERB_EHLO, start, line.octets,
                   0 if scene.session.secret else line.length, NULL, 0)
        dialogue.reply_junk |= dialogue.reply_column != 0
        give_line(scene.lender, &dialogue.reply)
        dialogue.reply_column = 0
        dialogue.malformed = 0
        return
    report_upstream(scene, dialogue, start)
    if masking_banner(scene, dialogue) and dialogue.reply_line == 0:
        report_banner(scene, dialogue, start)
    else:
        if dialogue.code // 100 == 5 and turning_ok(scene, dialogue):
            report_ok(scene, dialogue, start)
        if keyword_denied(scene, dialogue):
            report_keyword(scene, dialogue, start)
        elif dialogue.keyword_fate != KEYWORD_NONE and too_long(scene, dialogue.reply_column):
            report(scene, REPLY_KEYWORD_MASKED, False, VERB_EHLO, start, line.octets,
                   0 if scene.session.secret else 120, NULL, 0)
        if dialogue.code == 250 and expected_verb(dialogue) == VERB_EHLO and (
                dialogue.keyword_fate == KEYWORD_NONE or line.sent + 4 >= line.length):
            note_chunking(scene, dialogue)
    if more:
        if dialogue.reply_line == 0:
            dialogue.first_code = dialogue.code
        if dialogue.reply_line < 255:
            dialogue.reply_line += 1
    elif scene.verdict == ACTION_PASS:
        settle_reply(scene, dialogue, line.octets if line != NULL else NULL, line.length if line != NULL else 0, start)
        dialogue.reply_line = 0
        dialogue.masked_lines = 0
    give_line(scene.lender, &dialogue.reply)
    dialogue.reply_column = 0


cdef void reply_octet(Scene *scene, Dialogue *dialogue, uint8_t *at, uint32_t length) noexcept nogil:
    """One octet of a line that is not its end; ``length`` octets from ``at`` on are in this segment."""
    cdef uint16_t column = dialogue.reply_column
    cdef uint8_t octet = at[0]
    cdef bint last, hide_denial
    if column == 0:
        dialogue.reply = lend_line(scene.lender)
        dialogue.code = 0
        dialogue.keyword_fate = KEYWORD_NONE
        dialogue.answers_ehlo = answers(scene, dialogue)
        if scene.ruling.restore and dialogue.reply_line == 0:
            restore_reply(scene, dialogue, at, length, dialogue.reply_offset)
            octet = at[0]
        if dialogue.reply == NULL:
            out_of_memory(scene, False, dialogue.reply_offset)
            return
    hide_denial = (octet if column == 0 else dialogue.reply.octets[0]) == c"5" and turning_ok(scene, dialogue)
    if column < 3 and not dialogue.malformed and not no_reply_s(dialogue, column, octet):
        dialogue.code = dialogue.code * 10 + (octet - 48)
        if hide_denial:
            put(scene, at, ok_octet(column, octet))
    elif column < 3 or dialogue.malformed:
        dialogue.malformed = 1
        if masking_junk(scene, dialogue) and scene.ruling.action[REPLY_KEYWORD_MASKED] == ACTION_MASK:
            put(scene, at, c"X")
    elif hide_denial:
        put(scene, at, ok_octet(column, octet))
    elif masking_banner(scene, dialogue):
        if scene.ruling.action[BANNER_MASKED] == ACTION_MASK:
            put(scene, at, banner_octet(scene, column, octet))
    elif column > 3:
        # For the whole line at once: an EHLO that comes in its middle cannot be what it answers.
        if column == 4:
            dialogue.answers_ehlo = answers(scene, dialogue)
            if masking_keywords(scene, dialogue):
                begin_keyword(scene, dialogue, at, length)
        if dialogue.keyword_fate != KEYWORD_NONE:
            last = length > 1 and (at[1] == LF or (at[1] == CR and (length == 2 or at[2] == LF)))
            keyword_octet(scene, dialogue, at, last)
    line_add(dialogue.reply, octet)
    if column < 0xffff:
        dialogue.reply_column += 1


cdef void keyword_line(Scene *scene, Dialogue *dialogue, uint8_t *text, uint32_t length) noexcept nogil:
    """The text of a keyword line that lies in this segment whole, as ``keyword_octet`` takes each octet of it."""
    cdef uint32_t i
    if dialogue.keyword_fate != KEYWORD_MASK or scene.ruling.action[REPLY_KEYWORD_MASKED] != ACTION_MASK:
        dialogue.reply.sent += <uint16_t> length
        return
    for i in range(length - 1):
        put(scene, text + i, c"X")
    put(scene, text + length - 1, letter(dialogue))


cdef uint32_t whole_line(Scene *scene, Dialogue *dialogue, uint8_t *octets, uint32_t length) noexcept nogil:
    # Reads a line that begins here and ends in this segment, up to its LF, or, where it is plain, with it.
    # How many octets; 0: it is not for us.
    cdef uint32_t whole = nm_next_lf(octets, length)
    cdef uint32_t size = whole
    cdef uint8_t verb = expected_verb(dialogue)
    if whole == length or scene.ruling.restore or (verb == scene.grammar.verb_masked and turning_ok(scene, dialogue)):
        return 0
    if size and octets[size - 1] == CR:
        size -= 1
    if size > LINE_OCTETS:
        return 0                                   # a long one is measured
    dialogue.answers_ehlo = answers(scene, dialogue) if is_behind(dialogue) else 0
    if not read_code(dialogue, octets, size):
        if masking_junk(scene, dialogue):
            return 0
        if scene.session.state == scene.grammar.state_connect or again(scene, REPLY_MALFORMED, False) == NOT_AGAIN:
            return 0
        dialogue.reply_junk |= size != 0
        return whole + 1
    if is_plain(scene, dialogue, verb) and (size == 3 or octets[3] == SPACE or octets[3] == DASH):
        if size > 3 and octets[3] == DASH:
            if dialogue.reply_line == 0:
                dialogue.came_masked = 0
                dialogue.first_code = dialogue.code
            if dialogue.reply_line < 255:
                dialogue.reply_line += 1
        else:
            if not settle_dull(scene, dialogue, verb):
                settle_reply(scene, dialogue, octets, size, dialogue.reply_offset)
            dialogue.reply_line = 0
            dialogue.masked_lines = 0
        return whole + 1
    if size <= 3 or masking_banner(scene, dialogue) or no_reply_s(dialogue, 0, octets[0]) or (
            no_reply_s(dialogue, 1, octets[1]) or no_reply_s(dialogue, 2, octets[2])):
        return 0
    dialogue.reply = lend_line(scene.lender)
    if dialogue.reply == NULL:
        return 0                                   # as the first octet will find out
    dialogue.reply.length = <uint16_t> size
    memcpy(dialogue.reply.octets, octets, size)
    dialogue.reply_column = <uint16_t> size
    dialogue.keyword_fate = KEYWORD_NONE
    dialogue.answers_ehlo = answers(scene, dialogue)
    if size > 4 and masking_keywords(scene, dialogue):
        begin_keyword(scene, dialogue, octets + 4, whole - 4 + 1)
        keyword_line(scene, dialogue, octets + 4, size - 4)
    return whole


cdef inline bint whole_line_passes(Scene *scene, Dialogue *dialogue) noexcept nogil:
    # Behind the separator of a reply that is not altered, only the line's end matters.
    return (dialogue.reply_column > 3 and dialogue.reply.length >= 128 and not masking_banner(scene, dialogue)
            and dialogue.keyword_fate == KEYWORD_NONE and not turning_ok(scene, dialogue))


cdef uint32_t server_octets(Scene *scene, Dialogue *dialogue, uint8_t *octets, uint32_t length,
                            uint64_t offset) noexcept nogil:
    cdef uint32_t at = 0, run
    cdef uint16_t waiting
    cdef uint8_t *end
    cdef uint8_t carriage_return
    cdef uint32_t edits
    while at < length and scene.verdict == ACTION_PASS and dialogue.input != INPUT_OPAQUE:
        if dialogue.reply_cr:
            dialogue.reply_cr = 0
            if octets[at] != LF:
                edits = scene.edits
                carriage_return = CR
                reply_octet(scene, dialogue, &carriage_return, 1)       # it has left, and ended no line
                scene.edits = edits
        if dialogue.reply_column == 0:
            dialogue.reply_offset = offset + at
            waiting = dialogue.waiting
            run = quick_lines(scene, dialogue, octets + at, length - at)
            if run == 0:
                run = whole_line(scene, dialogue, octets + at, length - at)
            at += run
            if run and octets[at - 1] == LF:
                if waiting and not dialogue.waiting and not scene.ruling.hold:
                    return at
                continue
        if octets[at] == LF:
            waiting = dialogue.waiting
            end_reply_line(scene, dialogue)
            at += 1
            if waiting and not dialogue.waiting and not scene.ruling.hold:
                return at
            continue
        if octets[at] == CR and (at + 1 == length or octets[at + 1] == LF):
            at += 1                                # the line's end, never altered; or so it seems
            dialogue.reply_cr = at == length
            continue
        reply_octet(scene, dialogue, octets + at, length - at)
        at += 1
        if dialogue.malformed and scene.session.state == scene.grammar.state_connect and not scene.not_smtp:
            scene.not_smtp = 1                     # RFC 5321 3.1: a server speaks first, with a reply code
            report(scene, FLOW_NOT_SMTP, False, 0, offset, octets,
                   0 if scene.session.secret else length if length < 48 else 48, NULL, 0)
            return length
        if scene.verdict == ACTION_PASS and whole_line_passes(scene, dialogue):
            end = <uint8_t *> memchr(octets + at, LF, length - at)
            at = <uint32_t> (end - octets) if end != NULL else length
    return length
