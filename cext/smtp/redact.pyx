# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Secrets: AUTH in any spelling, what clients of other protocols send, and the lines that may belong to it.

Promises: of what a client sends to authenticate itself, nothing but the mechanism's name reaches a record: neither
where AUTH is allowed, nor where AUTH was masked, here or upstream, and the client sends its secrets all the same,
nor where the client speaks POP3, IMAP or HTTP. Does not decide about bytes.
"""

from libc.string cimport memcpy, memset

from nfmailguard.cext.policy.findings cimport reserve_record
from nfmailguard.cext.policy.numbers cimport VERB_UNKNOWN
from nfmailguard.cext.record cimport RECORD_COMMAND
from nfmailguard.cext.smtp.command_line cimport PHASE_SASL
from nfmailguard.cext.smtp.grammar cimport ARGUMENT_IGNORED, ARGUMENT_SECRET
from nfmailguard.cext.smtp.line cimport Line, line_restore
from nfmailguard.cext.smtp.name cimport upper
from nfmailguard.cext.smtp.session cimport (
    SECRET_BEGUN, note_secret_begun, note_secret_over, note_secret_said, take_found,
)

cdef extern from "words.h" nogil:
    const char *nm_mechanisms[26]
    const char *nm_behind_a_tag[26]
    const char *nm_strangers[26]

cdef extern from "scan.h" nogil:
    bint nm_holds(const uint8_t *p, uint32_t length, uint8_t one, uint8_t other) noexcept
    uint32_t nm_line_stop(const uint8_t *p, uint32_t length, bint nul) noexcept

cdef enum:
    TAB = 9
    LF = 10
    SPACE = 32
    MECHANISM = 4              # bytes of the shortest mechanism's name, and of AUTH
    WORD = 16                  # bytes of the longest verb in any protocol; a longer word is no verb


cdef uint32_t word_in(const char *words, const uint8_t *data, uint32_t length, bint whole) noexcept nogil:
    """Returns the length of the word in ``words`` that the bytes at ``data`` are or begin with; 0: there is none."""
    cdef const char *word = words
    cdef uint32_t i
    while word[0]:
        i = 0
        while word[i] != SPACE and i < length and upper(data[i]) == <uint8_t> word[i]:
            i += 1
        if word[i] == SPACE and (not whole or i == length or data[i] <= SPACE):
            return i
        while word[0] != SPACE:
            word += 1
        word += 1
    return 0


cdef inline uint32_t word_of(const char *const *words, const uint8_t *data, uint32_t length, bint whole) noexcept nogil:
    """As word_in, for lists of words by their first letter."""
    cdef uint8_t letter = upper(data[0]) - c"A" if length else 26
    return word_in(words[letter], data, length, whole) if letter < 26 and words[letter] != NULL else 0


cdef inline uint32_t stranger(const uint8_t *verb, uint32_t length) noexcept nogil:
    return word_of(nm_strangers, verb, length, False)


cdef inline uint32_t mechanism_behind(const uint8_t *argument, uint32_t length) noexcept nogil:
    return word_of(nm_behind_a_tag, argument, length, False)


cdef uint32_t behind_auth(const uint8_t *verb, uint32_t length) noexcept nogil:
    # Returns the index after AUTH, in upper or lower case, in a verb that contains it; 0: the verb does not.
    cdef uint32_t i
    for i in range(3, length):
        if upper(verb[i]) == c"H" and upper(verb[i - 3]) == c"A" and upper(verb[i - 2]) == c"U" and (
                upper(verb[i - 1]) == c"T"):
            return i + 1
    return 0


cdef uint32_t shown_of_verb(Context *context, const uint8_t *verb, uint32_t length, uint8_t number) noexcept nogil:
    cdef uint32_t i, begin = 0
    if number == context.grammar.verb_dot:
        return 1
    if number != VERB_UNKNOWN:
        return length
    if context.session.marks & SECRET_BEGUN:
        return 0
    i = behind_auth(verb, length)
    if i:
        return i
    while begin < length and verb[begin] <= SPACE:
        begin += 1
    i = stranger(verb + begin, length - begin)
    if i:
        return begin + i
    # A plain name with nothing after it is no secret; what may be base64, or a form's field, is not shown.
    i = begin
    while i < length and i - begin <= WORD and (c"A" <= upper(verb[i]) <= c"Z" or c"0" <= verb[i] <= c"9"
                                                or verb[i] == c"-" or (verb[i] < SPACE and verb[i] != TAB)):
        i += 1
    if i - begin > WORD or (i < length and (verb[i] == c"=" or verb[i] == c"+" or verb[i] == c"/")):
        return 0
    return i


cdef bint shows_argument(Context *context, uint8_t number) noexcept nogil:
    # An unknown verb's argument is ARGUMENT_IGNORED, so it is not shown.
    return context.grammar.argument[number] != ARGUMENT_IGNORED and context.grammar.argument[number] != ARGUMENT_SECRET


cdef void hide_secrets(uint8_t *text, uint32_t length, bint cut) noexcept nogil:
    # RFC 4954 5: the AUTH= parameter of MAIL; RFC 3986 3.2.1: the user and the password of a URL.
    cdef uint32_t i = 0, end, at
    if length < 6 or not nm_holds(text, length, c"=", c"/"):
        return                                     # the usual case: no = and no / in the text
    while i + 5 < length:
        end = 0
        if upper(text[i]) == c"A" and word_in(b"AUTH= ", text + i, length - i, False):
            i += 5
            end = i
            while end < length and text[end] > SPACE:
                end += 1
        elif text[i] == c":" and text[i + 1] == c"/" and text[i + 2] == c"/":
            # In practice, the user and the password of a URL end at its last @.
            i += 3
            at = i
            while at < length and text[at] > SPACE:
                if text[at] == c"@":
                    end = at
                at += 1
            if at == length and (cut or end == 0):
                end = at                           # the @ may be in the part of the text that is missing here
        if end > i:
            memset(text + i, c"*", end - i)
            i = end
        else:
            i += 1


cdef inline uint32_t one_line(const uint8_t *data, uint32_t length) noexcept nogil:
    # Some servers take what follows a bare CR, a bare LF or a NUL for another line.
    return nm_line_stop(data, length, True)


cdef bint another_line_begins(const uint8_t *data, uint32_t length) noexcept nogil:
    cdef uint32_t at = one_line(data, length)
    return at < length and behind_auth(data + at, length - at) != 0


cdef bint cut_short(CommandLine *command) noexcept nogil:
    return command.length > one_line(command.kept.data, command.kept.length)


cdef void note_glued(Context *context, CommandLine *command, bint last) noexcept nogil:
    cdef Line *line = command.kept
    note_secret_said(context.session)            # a server may repeat what was meant as another line, maybe AUTH's
    if last and line != NULL and line.length == command.length:
        line_restore(line, line.length - 1, LF)


cdef uint32_t shown_of_words(Context *context, uint8_t number, const uint8_t *data, uint32_t verb, uint32_t length,
                             bint cut, uint8_t *out) noexcept nogil:
    cdef uint32_t size, mechanism
    if shows_argument(context, number):
        size = one_line(data, length)
        cut |= size < length
        size = size if size > verb else verb
    else:
        size = shown_of_verb(context, data, verb, number)
        if context.grammar.argument[number] == ARGUMENT_SECRET and verb < length:
            mechanism = word_of(nm_mechanisms, data + verb + 1, length - verb - 1, True)
            size = verb + 1 + mechanism if mechanism else verb
    memcpy(out, data, size)
    hide_secrets(out, size, cut)
    return size


cdef uint32_t shown_of_line(Context *context, CommandLine *command, uint8_t *out) noexcept nogil:
    cdef Line *line = command.kept
    return shown_of_words(context, command.verb, line.data, verb_of_line(command), line.length,
                          command.length > line.length, out)


cdef bint in_secret(Context *context, CommandLine *command) noexcept nogil:
    return command.phase == PHASE_SASL or context.session.marks & SECRET_BEGUN or (
        not shows_argument(context, command.verb))


cdef void note_word(Context *context, const uint8_t *data, uint32_t length) noexcept nogil:
    if stranger(data, length) or behind_auth(data, length):
        note_secret_begun(context.session)


cdef void note_words(Context *context, uint8_t number, const uint8_t *data, uint32_t verb,
                     uint32_t length) noexcept nogil:
    cdef uint32_t at = verb + 1, begin = 0
    cdef bint begun = context.grammar.argument[number] == ARGUMENT_SECRET
    if number == VERB_UNKNOWN:
        while begin < verb and data[begin] <= SPACE:
            begin += 1
        begun = stranger(data + begin, verb - begin) or behind_auth(data, verb)
        while begin + MECHANISM < verb and not begun:    # words may be separated by tabs, or bytes that servers drop
            begin += 1
            if data[begin - 1] <= SPACE:
                begun = mechanism_behind(data + begin, verb - begin)
    while at < length and data[at] <= SPACE:
        at += 1
    if not begun and at + MECHANISM <= length and context.grammar.argument[number] == ARGUMENT_IGNORED:
        begun = mechanism_behind(data + at, length - at)
    begun = begun or (length > MECHANISM and another_line_begins(data, length))
    if begun:
        note_secret_begun(context.session)
    elif number != VERB_UNKNOWN:
        note_secret_over(context.session)


cdef Record *command_record(Context *context, uint8_t verb, uint64_t offset, uint64_t bits) noexcept nogil:
    cdef Record *record
    record = reserve_record(context, RECORD_COMMAND)
    if record == NULL:
        return NULL
    record.to_server = 1
    record.state = context.session.state
    record.verb = verb
    record.a = offset
    record.b = bits
    record.c = take_found(context.session)
    return record
