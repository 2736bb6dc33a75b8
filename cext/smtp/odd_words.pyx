# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Command lines of one word that is no verb because of bytes in it or before it: blanks, control bytes, NULs, CRs.

Promises: such a line becomes what ``command`` makes of it byte by byte; a line with a finding to be logged is left
untouched. Does not know verbs.
"""

from nfmailguard.cext.policy.numbers cimport ACTION_MASK, COMMAND_DENIED, VERB_UNKNOWN
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.smtp.grammar cimport TRAIT_RECORDED
from nfmailguard.cext.smtp.outstanding cimport add_reply, has_room
from nfmailguard.cext.smtp.redact cimport note_words
from nfmailguard.cext.smtp.reply_effects cimport note_asked
from nfmailguard.cext.smtp.runs cimport KIND_CR, KIND_DENIED, KIND_NUL, found, mask_few, untold
from nfmailguard.cext.smtp.session cimport note_secret_said

cdef enum:
    CR = 13
    LF = 10
    SPACE = 32

cdef struct Word:
    uint32_t length            # bytes of the word; 0: no such word, or something follows it
    uint32_t nuls
    uint32_t crs               # CRs in the word that end no line: bytes like any other


cdef inline void look_for_word(Word *word, const LineRules *rules, const uint8_t *data, uint32_t ordinary,
                               uint32_t stop) noexcept nogil:
    cdef uint32_t at = ordinary
    cdef bint leading = ordinary == 0
    cdef uint8_t byte = 0
    word.length = word.nuls = word.crs = 0
    while at < stop:
        byte = data[at]
        if byte > SPACE:
            leading = False
        elif byte == LF or (byte == SPACE and not leading):
            return
        elif byte == 0:
            word.nuls += 1
        elif byte == CR:
            if at + 1 == stop or data[at + 1] == LF or not rules.plain_cr:
                break
            word.crs += 1
        at += 1
    if at + 1 < stop and data[at + 1] == LF and at > ordinary:
        word.length = at


cdef uint32_t odd_word(Context *context, Dialogue *dialogue, LineRules *rules, uint8_t *data, uint32_t ordinary,
                       uint32_t stop) noexcept nogil:
    cdef Word word
    cdef bint denied = not context.policy.allow[VERB_UNKNOWN]
    if context.grammar.traits[VERB_UNKNOWN] & TRAIT_RECORDED or data[0] == c"." or not has_room(
            context, &dialogue.exchange):
        return 0
    look_for_word(&word, rules, data, ordinary, stop)
    if word.length == 0 or (denied and not untold(context, rules, KIND_DENIED, 1)) or (
            word.nuls and not untold(context, rules, KIND_NUL, 1)) or (
            word.crs and not untold(context, rules, KIND_CR, word.crs)):
        return 0
    if word.nuls:
        found(rules, KIND_NUL, 1)
    if word.crs:
        found(rules, KIND_CR, word.crs)
    if word.nuls or word.crs:
        note_secret_said(context.session)        # a server may take part of it for another line, maybe AUTH's
    if denied:
        found(rules, KIND_DENIED, 1)
    if word.length > 2:                            # no verb that announces a secret is shorter
        note_words(context, VERB_UNKNOWN, data, word.length, word.length)
    note_asked(context.session, &dialogue.reply, VERB_UNKNOWN, data, word.length)
    if denied and applies(context.policy) and context.policy.action[COMMAND_DENIED] == ACTION_MASK:
        mask_few(context, data, word.length)
    add_reply(context, &dialogue.exchange, VERB_UNKNOWN)
    return word.length + 2
