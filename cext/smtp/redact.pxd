# Secrets: what a client says that no event may show.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.record cimport Record
from nfmailguard.cext.smtp.command_line cimport CommandLine

# How many octets of a verb an event may show. `number`: the verb's.
cdef uint32_t shown_of_verb(Context *context, const uint8_t *verb, uint32_t length, uint8_t number) noexcept nogil
# Whether what stands behind the verb may be shown.
cdef bint shows_argument(Context *context, uint8_t number) noexcept nogil
# The record of a command, reserved, without its text; `bits`: as RECORD_COMMAND has them. NULL: none is to be made.
cdef Record *command_record(Context *context, uint8_t verb, uint64_t offset, uint64_t bits) noexcept nogil
# Puts what of the command line an event may show into `out`, which holds a line; how many octets.
cdef uint32_t shown_of_line(Context *context, CommandLine *command, uint8_t *out) noexcept nogil
# Whether an event shows less of the command line's argument than the client said.
cdef bint cut_short(CommandLine *command) noexcept nogil
# A bare LF in a command line has become a space; `last`: it is the last octet so far.
cdef void note_glued(Context *context, CommandLine *command, bint last) noexcept nogil
# Makes stars of what is secret in a text whose verb shows its argument; `cut`: it went on.
cdef void hide_secrets(uint8_t *text, uint32_t length, bint cut) noexcept nogil
# Whether the octet that is being read may be a part of a secret.
cdef bint in_secret(Context *context, CommandLine *command) noexcept nogil
# The same of a line's octets that lie somewhere else, `cut`: not all of them; its verb's are the first `verb` of them.
cdef uint32_t shown_of_words(Context *context, uint8_t number, const uint8_t *data, uint32_t verb, uint32_t length,
                             bint cut, uint8_t *out) noexcept nogil
cdef void note_words(Context *context, uint8_t number, const uint8_t *data, uint32_t verb,
                     uint32_t length) noexcept nogil
# The same of a line that is a verb nobody knows, without an octet up to the space in it, and nothing else.
cdef void note_word(Context *context, const uint8_t *data, uint32_t length) noexcept nogil

# Whether AUTH stands in a line behind a bare CR or LF, or a NUL: in another line to some servers.
cdef bint another_line_begins(const uint8_t *data, uint32_t length) noexcept nogil

cdef inline uint32_t verb_of_line(const CommandLine *command) noexcept nogil:
    # How many octets of it are kept.
    return command.verb_length if command.verb_length < command.kept.length else command.kept.length

# A verb, or a command line, is complete. Behind AUTH, lines that are no command may be parts of it (RFC 4954 4),
# whatever became of AUTH.
cdef inline void note_secret(Context *context, CommandLine *command) noexcept nogil:
    note_words(context, command.verb, command.kept.data, verb_of_line(command), command.kept.length)
