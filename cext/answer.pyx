# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Replies of one line that lie in a segment whole and are never altered: read at once.

Promises: the session becomes what ``reply`` makes of it octet by octet. Lines of a few octets are
what costs most an octet. Does not know banners, keywords or what else changes a reply.
"""

from libc.stdint cimport uint16_t, uint64_t

from nfmailguard.cext.smtp cimport (
    ACTION_DROP,
    ACTION_PASS,
    ASKED_EHLO,
    FORM_OK,
    INPUT_COMMANDS,
    LINE_OCTETS,
    REPLY_MALFORMED,
    VERB_RCPT,
    begins_anew,
    expected_verb,
    note_junk,
    note_reply,
    repeat,
    ring_size,
    shown_of_reply,
)
from nfmailguard.cext.tally cimport tally_untold

cdef extern from "scan.h" nogil:
    uint32_t nm_next_lf(const uint8_t *p, uint32_t length) noexcept
    uint32_t nm_code(const uint8_t *p) noexcept

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32


cdef inline bint masks_junk(Scene *scene, Dialogue *dialogue) noexcept nogil:
    # Behind a line that is no reply's, where clients wait for EHLO's.
    return scene.ruling.mask_ehlo and not scene.ruling.hide and answers(scene, dialogue) == ANSWERS_ANYHOW


cdef uint32_t bad_lines(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    """Lines without a code that nobody is told of: how many octets of them stand here."""
    cdef uint32_t at = 0, count = 0, end
    cdef bint masking = masks_junk(scene, dialogue)
    cdef uint32_t untold = tally_untold(&scene.session.tally, REPLY_MALFORMED, scene.ruling.findings_told)
    if scene.ruling.action[REPLY_MALFORMED] == ACTION_PASS:
        untold = length
    elif scene.ruling.action[REPLY_MALFORMED] >= ACTION_DROP:
        untold = 0
    while at < length and count < untold:
        end = at
        if octets[at] == CR and at + 1 < length and octets[at + 1] == LF:
            end += 1
        elif octets[at] != LF:
            if <uint8_t> (octets[at] - 48) <= 9:
                break
            end += nm_next_lf(octets + at, length - at)
            if end == length or end - at > LINE_OCTETS:
                break
        count += 1
        if end - at > (octets[at] == CR):
            dialogue.reply_junk = 1
            at = end + 1
            if masking:
                break                              # and the next one
        at = end + 1
    if count:
        repeat(scene, REPLY_MALFORMED, count, False)
    return at


cdef inline uint16_t number_of(uint32_t code) noexcept nogil:
    return <uint16_t> ((code >> 16 & 15) * 100 + (code >> 8 & 15) * 10 + (code & 15))


cdef uint32_t quick_replies(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t length,
                            uint64_t offset) noexcept nogil:
    """Replies of one line that are but answers, while more are awaited: their octets."""
    cdef uint32_t size = ring_size(dialogue)
    cdef uint32_t at = 0, end
    cdef uint32_t code
    cdef uint8_t one, verb
    while dialogue.count > 1 and at + 4 < length and scene.verdict == ACTION_PASS:
        verb = expected_verb(dialogue)
        code = nm_code(octets + at)
        one = octets[at] - 48
        if code == 0 or not scene.grammar.answered[verb] or one < 2 or one > 5:
            break
        end = at + 3 + nm_next_lf(octets + at + 3, length - at - 3)
        if end == length or end - at > LINE_OCTETS or (
                octets[at + 3] != SPACE and end - (octets[end - 1] == CR) != at + 3):
            break
        if scene.grammar.dull[verb] and not scene.grammar.told[verb]:
            scene.session.state = scene.grammar.next_state[scene.session.state][verb][one]
            scene.session.offered_chunking = scene.session.offered_chunking != 0
            note_junk(scene, offset + at)
        else:
            dialogue.code = number_of(code)
            note_reply(scene, dialogue, verb, octets + at,
                       shown_of_reply(scene, verb, end - at - (octets[end - 1] == CR)), offset + at)
            dialogue.greetings -= begins_anew(verb)
            dialogue.recipients -= verb == VERB_RCPT
        dialogue.first = dialogue.first + 1 if dialogue.first + <uint32_t> 1 < size else 0
        dialogue.count -= 1
        at = end + 1
    return at


cdef uint32_t quick_lines(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    if scene.ruling.restore or dialogue.reply_line or scene.session.state == scene.grammar.state_connect or (
            scene.ruling.unknown == FORM_OK) or (dialogue.reply_junk and masks_junk(scene, dialogue)):
        return 0
    if not 48 <= octets[0] <= 57:
        return bad_lines(scene, dialogue, octets, length)
    if dialogue.reply_junk or dialogue.count < 2 or dialogue.waiting or (
            dialogue.input != INPUT_COMMANDS or scene.session.asked == ASKED_EHLO):
        return 0
    return quick_replies(scene, dialogue, octets, length, dialogue.reply_offset)
