# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Secrets: AUTH in any spelling, and the lines that may belong to it.

Promises: of what a client says to prove who it is, nothing but the mechanism's name
reaches a record: not where AUTH is allowed, not where it was masked, here or upstream,
and the client goes on with its secrets all the same. Does not decide about octets.
"""

from libc.string cimport memchr

from nfmailguard.cext.smtp cimport ARGUMENT_SECRET, SECRET_BEGUN, SECRET_SAID, VERB_UNKNOWN, Line, upper

cdef enum:
    SPACE = 32


cdef uint32_t secret_at(Scene *scene, const uint8_t *verb, uint32_t length, uint8_t number) noexcept nogil:
    cdef uint32_t i, j
    cdef const char *auth = b"AUTH"
    if scene.grammar.argument[number] == ARGUMENT_SECRET:
        return length
    for i in range(4, length + 1):
        j = 0
        while j < 4 and upper(verb[i - 4 + j]) == <uint8_t> auth[j]:
            j += 1
        if j == 4:
            return i
    return 0


cdef bint names_mechanism(const uint8_t *octets, uint32_t length) noexcept nogil:
    """Whether a word is a SASL mechanism's name (IANA registry): an AUTH that was masked upstream."""
    cdef const char *names = b"PLAIN LOGIN CRAM-MD5 DIGEST-MD5 NTLM GSSAPI GS2- SCRAM- XOAUTH OAUTHBEARER EXTERNAL "
    cdef const char *name = names
    cdef uint32_t i
    if length == 0 or memchr(b"PLCDNGSXOE", upper(octets[0]), 10) == NULL:
        return False                               # none begins with it
    while name[0]:
        i = 0
        while name[i] != SPACE and i < length and upper(octets[i]) == <uint8_t> name[i]:
            i += 1
        if name[i] == SPACE:
            return True
        while name[0] != SPACE:
            name += 1
        name += 1
    return False


cdef void note_secret(Scene *scene, Dialogue *dialogue) noexcept nogil:
    """Behind AUTH, lines that are no command may be parts of it (RFC 4954 4), whatever became of AUTH."""
    cdef Line *line = dialogue.command
    cdef uint32_t at = dialogue.verb_length + 1
    if (secret_at(scene, line.octets, dialogue.verb_length if dialogue.verb_length < line.length else line.length,
                  dialogue.verb)
            or (dialogue.verb == VERB_UNKNOWN and at < line.length
                and names_mechanism(line.octets + at, line.length - at))):
        scene.session.secret = SECRET_BEGUN | SECRET_SAID
    elif dialogue.verb != VERB_UNKNOWN:
        scene.session.secret &= SECRET_SAID
