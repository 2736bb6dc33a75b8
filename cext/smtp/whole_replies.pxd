# Replies of one line that are but answers, and lines that are no replies.
from libc.stdint cimport uint16_t, uint32_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context, again, note_junk
from nfmailguard.cext.policy.numbers cimport NOT_AGAIN, REPLY_UNSOLICITED, VERB_EHLO
from nfmailguard.cext.smtp.dialogue cimport ASKED_DOUBT, ASKED_EHLO, ASKED_OTHER, Dialogue
from nfmailguard.cext.smtp.grammar cimport INPUT_COMMANDS, TRAIT_RECORDED, TRAIT_UNREMARKABLE
from nfmailguard.cext.smtp.outstanding cimport answer_oldest, expected_verb
from nfmailguard.cext.smtp.reply_effects cimport may_answer_ehlo

cdef enum Answers:             # of Dialogue.answers_ehlo
    ANSWERS_OTHER = 0
    ANSWERS_BY_CODE = 1        # where its code is 250
    ANSWERS_ANYHOW = 2         # whatever it begins with, where it is not the first

# Reads such lines from here on, where one begins; how many octets they are.
cdef uint32_t quick_lines(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil

# Whether a line that begins may be one of a reply to EHLO.
cdef inline uint8_t answers(Context *context, Dialogue *dialogue) noexcept nogil:
    # A client takes what comes while it waits for EHLO's reply for that; and then it waits for nothing else.
    if not may_answer_ehlo(context.session, dialogue):
        return ANSWERS_OTHER
    return ANSWERS_ANYHOW if dialogue.count == 0 or expected_verb(dialogue) == VERB_EHLO else ANSWERS_BY_CODE

cdef inline bint is_behind(const Dialogue *dialogue) noexcept nogil:
    return dialogue.reply_line > 0 or dialogue.reply_junk

cdef inline bint is_refusal(const Dialogue *dialogue) noexcept nogil:
    # Its lines are text for people, as long as they all say so: a client goes by the last one's code, or the first's.
    return 400 <= (dialogue.first_code if dialogue.reply_line else dialogue.code) < 600

# Whether an octet of the code makes a line none of the reply's, which clients read all the same (Postfix).
cdef inline bint no_reply_s(const Dialogue *dialogue, uint32_t column, uint8_t byte) noexcept nogil:
    if not 48 <= byte <= 57 or (column == 0 and not c"2" <= byte <= c"5"):     # RFC 5321 4.2.1; sendmail's 050
        return True
    return (dialogue.answers_ehlo == ANSWERS_ANYHOW and dialogue.reply_line > 0 and is_refusal(dialogue)
            and byte - 48 != (dialogue.first_code // 100 if column == 0 else dialogue.first_code // 10 % 10
                              if column == 1 else dialogue.first_code % 10))

cdef inline bint masking_junk(Context *context, Dialogue *dialogue) noexcept nogil:
    return (context.policy.mask_ehlo and not context.policy.hide and dialogue.answers_ehlo == ANSWERS_ANYHOW
            and is_behind(dialogue))

# The code of a line of `size` octets; whether it is one.
cdef inline bint read_code(Dialogue *dialogue, const uint8_t *data, uint32_t size) noexcept nogil:
    cdef uint8_t first, second, third
    dialogue.code = 0
    if size < 3:
        return False
    first, second, third = data[0] - 48, data[1] - 48, data[2] - 48
    dialogue.code = first * 100 + second * 10 + third
    return 2 <= first <= 5 and second <= 9 and third <= 9

cdef inline bint is_plain(Context *context, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # Whether nothing but the code, and whether it is the last one, matters of a line that answers `verb`.
    if dialogue.reply_junk or verb == VERB_EHLO or (
            dialogue.count == 0 and dialogue.reply_line and may_answer_ehlo(context.session, dialogue)):
        return False
    if dialogue.code != 250:
        return dialogue.code != 220 or verb != context.grammar.verb_greeting
    return dialogue.reply_line == 0 or not may_answer_ehlo(context.session, dialogue)

cdef inline bint settle_unremarkable(Context *context, Dialogue *dialogue, uint8_t verb) noexcept nogil:
    # As settle_reply, where nobody is told anything and only the session's state changes; whether it is so.
    cdef uint16_t code = dialogue.code
    cdef uint8_t state = context.session.state
    if context.grammar.traits[verb] & (TRAIT_UNREMARKABLE | TRAIT_RECORDED) != TRAIT_UNREMARKABLE or (
            dialogue.input != INPUT_COMMANDS or context.session.asked == ASKED_EHLO
            or code == 354 or code == 334 or code == 421):
        return False
    if dialogue.count == 0:
        if context.session.offered_chunking:
            return False
        if again(context, REPLY_UNSOLICITED, False) == NOT_AGAIN:
            return False
        context.session.asked = ASKED_DOUBT if context.session.asked > ASKED_EHLO else ASKED_OTHER
        return True
    context.session.state = context.grammar.next_state[state][verb][code // 100 if code < 600 else 0]
    context.session.offered_chunking = context.session.offered_chunking != 0
    answer_oldest(context, dialogue, verb)
    if verb != context.grammar.verb_greeting:
        note_junk(context, dialogue.reply_offset)
    return True
