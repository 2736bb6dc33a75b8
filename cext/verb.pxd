# Verbs: which one it is, and whether it may pass.
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from nfmailguard.cext.smtp cimport (
    BDAT_NOT_OFFERED,
    COMMAND_DENIED,
    NAME_OCTETS,
    VERB_BDAT,
    VERB_UNKNOWN,
    Dialogue,
    Scene,
    name_begins,
    upper,
)

cdef inline uint8_t find_verb(Scene *scene, const uint8_t *octets, uint32_t length) noexcept nogil:
    cdef uint8_t i
    cdef uint32_t four
    if length and octets[0] == c".":
        return scene.grammar.verb_dot
    if length == 0 or length > NAME_OCTETS:
        return VERB_UNKNOWN
    i = scene.grammar.first_of[octets[0] & 31][length]
    if length == 4:                                # as nearly all
        memcpy(&four, octets, 4)
        while i and four & scene.grammar.first_mask[i] != scene.grammar.first_four[i]:
            i = scene.grammar.next_of[i]
        return i
    while i and not name_begins(&scene.grammar.verbs[i], octets, length):
        i = scene.grammar.next_of[i]
    return i

cdef inline bint verb_possible(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil:
    # Whether an allowed verb begins with `octets`; one that begins with a dot may end there.
    cdef uint8_t i
    if length == 1 and octets[0] == c".":
        return dialogue.body_as_commands
    if scene.ruling.allow[VERB_UNKNOWN]:
        return True
    i = scene.grammar.first_verb[upper(octets[0])]
    while i:
        if scene.ruling.allow[i] and name_begins(&scene.grammar.verbs[i], octets, length):
            return True
        i = scene.grammar.next_verb[i]
    return False

cdef inline uint8_t refusal(Scene *scene, Dialogue *dialogue, uint8_t verb, uint32_t length) noexcept nogil:
    # The finding that keeps a verb of `length` octets from passing, or 0. What begins with a dot is none
    # but where a message is taken for commands, and ends it there.
    if verb == scene.grammar.verb_dot:
        return 0 if dialogue.body_as_commands and length == 1 else COMMAND_DENIED
    if not scene.ruling.allow[verb]:
        return COMMAND_DENIED
    if verb == VERB_BDAT and scene.ruling.hold and (scene.ruling.seven_bits or not (
            scene.session.offered_chunking and scene.grammar.takes_chunk[scene.session.state])):
        return BDAT_NOT_OFFERED
    return 0

cdef inline bint spelled_out(Scene *scene, const uint8_t *octets, uint32_t length) noexcept nogil:
    # Whether the octets are a whole verb that passes.
    cdef uint8_t verb = find_verb(scene, octets, length)
    return verb != VERB_UNKNOWN and scene.ruling.allow[verb]

# Reports the finding of a verb that has been read; `rest` is what follows it in this segment.
cdef uint8_t report_verb(Scene *scene, Dialogue *dialogue, uint8_t finding, uint8_t verb, const uint8_t *rest,
                         uint32_t length) noexcept nogil
