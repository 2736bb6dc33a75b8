# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Secrets: AUTH in any spelling, what other protocols' clients say, and the lines that may belong to it.

Promises: of what a client says to prove who it is, nothing but the mechanism's name
reaches a record: not where AUTH is allowed, not where it was masked, here or upstream,
and the client goes on with its secrets all the same, nor where it speaks POP3, IMAP or
HTTP. Does not decide about octets.
"""

from libc.string cimport memcpy, memset

from nfmailguard.cext.smtp cimport (
    ARGUMENT_IGNORED,
    ARGUMENT_SECRET,
    PHASE_SASL,
    SECRET_BEGUN,
    SECRET_SAID,
    VERB_UNKNOWN,
    Line,
    upper,
)

cdef enum:
    TAB = 9
    LF = 10
    SPACE = 32
    WORD = 16                  # octets of the longest verb of anybody's; a longer word is none

#: SASL mechanisms (IANA registry), whole.
cdef const char *MECHANISMS = (
    b"PLAIN LOGIN CRAM-MD5 DIGEST-MD5 NTLM GSSAPI GSS-SPNEGO GS2-KRB5 GS2-KRB5-PLUS SCRAM-SHA-1 SCRAM-SHA-1-PLUS "
    b"SCRAM-SHA-256 SCRAM-SHA-256-PLUS SCRAM-SHA-512 SCRAM-SHA-512-PLUS XOAUTH XOAUTH2 OAUTHBEARER EXTERNAL ANONYMOUS ")
#: Behind a verb nobody knows: an AUTH that was masked upstream, or IMAP's (RFC 9051 6.2). As beginnings.
cdef const char *BEHIND_A_TAG = (
    b"PLAIN LOGIN CRAM- DIGEST- NTLM GSSAPI GSS- GS2- SCRAM- XOAUTH OAUTHBEARER EXTERNAL AUTHENTICATE ")
#: POP3 (RFC 1939), FTP and HTTP (RFC 9110 9.3): what follows them, in this line or another, may be a secret. As
#: beginnings.
cdef const char *STRANGERS = (
    b"PASS USER LOGIN APOP ACCT GET POST PUT HEAD CONNECT OPTIONS DELETE TRACE PATCH PROPFIND COOKIE SET-COOKIE ")


cdef uint32_t word_in(const char *words, const uint8_t *octets, uint32_t length, bint whole) noexcept nogil:
    """The octets of the word that these are, or begin with; 0 where they are none."""
    cdef const char *word = words
    cdef uint32_t i
    while word[0]:
        i = 0
        while word[i] != SPACE and i < length and upper(octets[i]) == <uint8_t> word[i]:
            i += 1
        if word[i] == SPACE and (not whole or i == length or octets[i] <= SPACE):
            return i
        while word[0] != SPACE:
            word += 1
        word += 1
    return 0


cdef uint32_t behind_auth(const uint8_t *verb, uint32_t length) noexcept nogil:
    # Where a verb that has AUTH in it, in any case, goes on; 0 where it has not.
    cdef uint32_t i
    for i in range(4, length + 1):
        if word_in(b"AUTH ", verb + i - 4, 4, True):
            return i
    return 0


cdef uint32_t shown_of_verb(Scene *scene, const uint8_t *verb, uint32_t length, uint8_t number) noexcept nogil:
    cdef uint32_t i, begin = 0
    if number == scene.grammar.verb_dot:
        return 1
    if number != VERB_UNKNOWN:
        return length
    if scene.session.secret & SECRET_BEGUN:
        return 0
    i = behind_auth(verb, length)
    if i:
        return i
    while begin < length and verb[begin] <= SPACE:
        begin += 1
    i = word_in(STRANGERS, verb + begin, length - begin, False)
    if i:
        return begin + i
    # A name and nothing else is no secret; what may be base64, or a form's field, is none.
    i = begin
    while i < length and i - begin <= WORD and (c"A" <= upper(verb[i]) <= c"Z" or c"0" <= verb[i] <= c"9"
                                                or verb[i] == c"-" or (verb[i] < SPACE and verb[i] != TAB)):
        i += 1
    if i - begin > WORD or (i < length and (verb[i] == c"=" or verb[i] == c"+" or verb[i] == c"/")):
        return 0
    return i


cdef bint shows_argument(Scene *scene, uint8_t number) noexcept nogil:
    # Of a verb that nobody knows it is IGNORED.
    return scene.grammar.argument[number] != ARGUMENT_IGNORED and scene.grammar.argument[number] != ARGUMENT_SECRET


cdef void hide_secrets(uint8_t *text, uint32_t length, bint cut) noexcept nogil:
    # RFC 4954 5: AUTH= of MAIL; RFC 3986 3.2.1: the user and the password of a URL.
    cdef uint32_t i = 0, end, at
    while i + 6 < length:
        end = 0
        if text[i] <= SPACE and word_in(b"AUTH= ", text + i + 1, length - i - 1, False):
            i += 6
            end = i
            while end < length and text[end] > SPACE:
                end += 1
        elif text[i] == c":" and text[i + 1] == c"/" and text[i + 2] == c"/":
            # Up to the last @, in practice.
            i += 3
            at = i
            while at < length and text[at] > SPACE:
                if text[at] == c"@":
                    end = at
                at += 1
            if at == length and (cut or end == 0):
                end = at                           # it may be in what is not here
        if end > i:
            memset(text + i, c"*", end - i)
            i = end
        else:
            i += 1


cdef inline uint32_t one_line(const Line *line) noexcept nogil:
    # Behind a bare LF, or a NUL, is what some servers take for another line.
    cdef uint32_t i = 0
    while i < line.length and line.octets[i] != LF and line.octets[i] != 0:
        i += 1
    return i


cdef bint cut_short(Dialogue *dialogue) noexcept nogil:
    return dialogue.line_length > one_line(dialogue.command)


cdef void note_glued(Scene *scene, Dialogue *dialogue) noexcept nogil:
    cdef Line *line = dialogue.command
    scene.session.secret |= SECRET_SAID            # a server may repeat what was to be another line, maybe AUTH's
    if line != NULL and line.length == dialogue.line_length:
        line.octets[line.length - 1] = LF          # as it came


cdef uint32_t shown_of_line(Scene *scene, Dialogue *dialogue, uint8_t *out) noexcept nogil:
    cdef Line *line = dialogue.command
    cdef uint32_t verb = dialogue.verb_length if dialogue.verb_length < line.length else line.length
    cdef uint32_t size = shown_of_verb(scene, line.octets, verb, dialogue.verb)
    cdef uint32_t mechanism
    if shows_argument(scene, dialogue.verb):
        size = one_line(line)
        size = size if size > verb else verb
    elif scene.grammar.argument[dialogue.verb] == ARGUMENT_SECRET and verb < line.length:
        mechanism = word_in(MECHANISMS, line.octets + verb + 1, line.length - verb - 1, True)
        size = verb + 1 + mechanism if mechanism else verb
    memcpy(out, line.octets, size)
    hide_secrets(out, size, cut_short(dialogue))
    return size


cdef bint in_secret(Scene *scene, Dialogue *dialogue) noexcept nogil:
    return dialogue.phase == PHASE_SASL or scene.session.secret & SECRET_BEGUN or (
        not shows_argument(scene, dialogue.verb))


cdef void note_secret(Scene *scene, Dialogue *dialogue) noexcept nogil:
    """Behind AUTH, lines that are no command may be parts of it (RFC 4954 4), whatever became of AUTH."""
    cdef Line *line = dialogue.command
    cdef uint32_t verb = dialogue.verb_length if dialogue.verb_length < line.length else line.length
    cdef uint32_t at = verb + 1, begin = 0
    cdef bint begun = scene.grammar.argument[dialogue.verb] == ARGUMENT_SECRET
    if dialogue.verb == VERB_UNKNOWN:
        while begin < verb and line.octets[begin] <= SPACE:
            begin += 1
        begun = behind_auth(line.octets, verb) or word_in(STRANGERS, line.octets + begin, verb - begin, False)
        while begin < verb and not begun:          # with a tab, or what some servers leave out, between its words
            if line.octets[begin] <= SPACE:
                begun = word_in(BEHIND_A_TAG, line.octets + begin + 1, verb - begin - 1, False) != 0
            begin += 1
    while at < line.length and line.octets[at] <= SPACE:
        at += 1
    if not begun and at < line.length and scene.grammar.argument[dialogue.verb] == ARGUMENT_IGNORED:
        begun = word_in(BEHIND_A_TAG, line.octets + at, line.length - at, False)
    if begun:
        scene.session.secret = SECRET_BEGUN | SECRET_SAID
    elif dialogue.verb != VERB_UNKNOWN:
        scene.session.secret &= SECRET_SAID
