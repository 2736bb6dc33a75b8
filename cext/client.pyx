# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The client's direction: hands its octets to whoever reads them now.

Promises: how octets are read changes only where the dialogue says so (smtp.verbs,
column ``reads``). Does not know lines or messages.
"""

from nfmailguard.cext.command cimport resume_line
from nfmailguard.cext.lines cimport command_octets
from nfmailguard.cext.message cimport end_chunk, message_octets
from nfmailguard.cext.smtp cimport (
    ACTION_PASS,
    COMMAND_PIPELINED_TOO_FAR,
    INPUT_CHUNK,
    INPUT_COMMANDS,
    INPUT_DATA,
    INPUT_OPAQUE,
    TLS_NOT_A_HANDSHAKE,
    awaited_verb,
    report,
)

cdef enum:
    TLS_HANDSHAKE = 0x16       # RFC 8446 5.1: ContentType handshake


cdef uint32_t chunk_octets(Scene *scene, Dialogue *dialogue, uint32_t at, uint32_t length) noexcept nogil:
    cdef uint32_t part = length - at
    if part > dialogue.chunk_left:
        part = <uint32_t> dialogue.chunk_left
    dialogue.chunk_left -= part
    dialogue.message_octets += part
    if dialogue.chunk_left == 0:
        end_chunk(scene, dialogue)
    return at + part


cdef void waited_for(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil:
    # RFC 2920 3.1: DATA and AUTH are the last of a group; RFC 3207 4.2: so is STARTTLS.
    if dialogue.waiting and not dialogue.impatient:
        dialogue.impatient = 1
        report(scene, COMMAND_PIPELINED_TOO_FAR, True, awaited_verb(dialogue), offset, NULL, 0, NULL, 0)


cdef uint32_t client_octets(Scene *scene, Dialogue *dialogue, uint8_t *octets, uint32_t length,
                            uint64_t offset) noexcept nogil:
    cdef uint32_t at = 0, before
    if dialogue.input == INPUT_COMMANDS:
        resume_line(scene, dialogue, octets, length)
    while at < length and scene.verdict == ACTION_PASS:
        if dialogue.input == INPUT_DATA:
            at = message_octets(scene, dialogue, octets, at, length, offset)
        elif dialogue.input == INPUT_CHUNK:
            at = chunk_octets(scene, dialogue, at, length)
        elif dialogue.input == INPUT_OPAQUE:
            if not dialogue.tls_checked:
                dialogue.tls_checked = 1
                if octets[at] != TLS_HANDSHAKE:
                    report(scene, TLS_NOT_A_HANDSHAKE, True, 0, offset + at, octets + at, 1, NULL, 0)
            return length
        elif dialogue.waiting and (scene.gone or not scene.ruling.hold):
            waited_for(scene, dialogue, offset + at)
            return at
        else:
            waited_for(scene, dialogue, offset + at)
            before = at
            at = command_octets(scene, dialogue, octets, at, length, offset)
            if at == before:                       # a chunk that has to wait
                return at
    return length
