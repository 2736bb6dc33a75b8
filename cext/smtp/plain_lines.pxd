# Command lines with nothing odd about them.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.numbers cimport VERB_NOOP, VERB_RCPT
from nfmailguard.cext.smtp.argument cimport says_seven_bits
from nfmailguard.cext.smtp.dialogue cimport SECRET_SAID, Dialogue, Session
from nfmailguard.cext.smtp.grammar cimport (
    TRAIT_ANEW, TRAIT_FREE, TRAIT_SECRET, TRAIT_SENDER, TRAIT_UNREMARKABLE, TRAIT_WAITS,
)
from nfmailguard.cext.smtp.redact cimport note_words
from nfmailguard.cext.smtp.runs cimport LineRules

cdef extern from "scan.h" nogil:
    uint32_t nm_line_stop(const uint8_t *p, uint32_t length, bint nul) noexcept

# Where the CR of the CRLF stands that ends a line, before data[stop], with nothing odd behind its `verb` bytes; or 0.
cdef inline uint32_t plain_end(const uint8_t *data, uint32_t verb, uint32_t stop) noexcept nogil:
    cdef uint32_t end = verb
    if data[end] == c" ":
        end += 1
        end += nm_line_stop(data + end, stop - end, True)
    return end if end + 1 < stop and data[end] == c"\r" and data[end + 1] == c"\n" else 0

# A line has been read whose verb is `verb` bytes long, and which ends at `end`: its record, if it is told of.
cdef void tell(Context *context, uint8_t number, bint denied, const uint8_t *data, uint32_t verb, uint32_t end,
               uint64_t offset) noexcept nogil
# Reads the line that begins with `verb` bytes of the verb `number`, if it ends with CRLF before data[stop], passes and
# has nothing odd; how many bytes of it there are, or 0.
cdef uint32_t plain_line(Context *context, Dialogue *dialogue, LineRules *rules, const uint8_t *data, uint32_t verb,
                         uint8_t number, uint32_t stop, uint64_t offset) noexcept nogil

# At the end of a line whose verb is known: whether what follows may be secret.
cdef inline void note_argument(Context *context, uint8_t number, uint16_t traits, const uint8_t *data, uint32_t verb,
                               uint32_t end) noexcept nogil:
    if traits & TRAIT_SECRET or (traits & TRAIT_FREE and end > verb + 4):   # no mechanism is shorter
        note_words(context, number, data, verb, end)
    else:
        context.session.secret &= SECRET_SAID

# And what it does to the session, where the verb passes.
cdef inline void note_session(Context *context, Dialogue *dialogue, uint8_t number, uint16_t traits,
                              const uint8_t *argument, uint32_t length) noexcept nogil:
    cdef Session *session = context.session
    if traits & (TRAIT_UNREMARKABLE | TRAIT_WAITS) or number == VERB_RCPT:
        if number == VERB_NOOP:
            session.noop_seen = 1
        return
    dialogue.message_bytes = 0                     # of chunks that no LAST followed
    if traits & TRAIT_ANEW:
        session.offered_chunking = 0               # until this one's reply offers it
    if traits & TRAIT_SENDER:
        session.seven_bits |= says_seven_bits(argument, length, 0)
