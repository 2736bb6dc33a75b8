# Secrets: what a client sends that no event may show.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.record cimport Record
from nfmailguard.cext.smtp.command_line cimport CommandLine

# How many bytes of a verb an event may show. `number` is the verb's number.
cdef uint32_t shown_of_verb(Context *context, const uint8_t *verb, uint32_t length, uint8_t number) noexcept nogil
# Whether an event may show what follows the verb.
cdef bint shows_argument(Context *context, uint8_t number) noexcept nogil
# Reserves the event record of a command, still without its text; `bits` are as RECORD_COMMAND has them. NULL: no record
# is to be made.
cdef Record *command_record(Context *context, uint8_t verb, uint64_t offset, uint64_t bits) noexcept nogil
# Copies what an event may show of the command line to `out`, which has room for a line; returns how many bytes.
cdef uint32_t shown_of_line(Context *context, CommandLine *command, uint8_t *out) noexcept nogil
# Whether an event shows less of the command line than the client sent.
cdef bint cut_short(CommandLine *command) noexcept nogil
# A bare LF in a command line has become a space. `last`: that space is the line's last byte so far.
cdef void note_glued(Context *context, CommandLine *command, bint last) noexcept nogil
# Overwrites the secrets in a text with stars; its verb is one whose argument may be shown. `cut`: the text went on
# after these bytes.
cdef void hide_secrets(uint8_t *text, uint32_t length, bint cut) noexcept nogil
# Whether the byte that is being read may be part of a secret.
cdef bint in_secret(Context *context, CommandLine *command) noexcept nogil
# As shown_of_line, for a line at `data`, whose first `verb` bytes are its verb. `cut`: these are not all bytes of the
# line.
cdef uint32_t shown_of_words(Context *context, uint8_t number, const uint8_t *data, uint32_t verb, uint32_t length,
                             bint cut, uint8_t *out) noexcept nogil
# As note_secret, for a line at `data`, whose first `verb` bytes are its verb.
cdef void note_words(Context *context, uint8_t number, const uint8_t *data, uint32_t verb,
                     uint32_t length) noexcept nogil
# As note_secret, for a line that is one unknown verb without space or control bytes, and nothing else.
cdef void note_word(Context *context, const uint8_t *data, uint32_t length) noexcept nogil

# Whether AUTH follows a bare CR, a bare LF or a NUL in a line: some servers take that for another line.
cdef bint another_line_begins(const uint8_t *data, uint32_t length) noexcept nogil

cdef inline uint32_t verb_of_line(const CommandLine *command) noexcept nogil:
    # How many bytes of the line's verb are kept.
    return command.verb_length if command.verb_length < command.kept.length else command.kept.length

# A verb, or a command line, is complete: notes whether secrets may follow. After AUTH, lines that are no command may be
# parts of it (RFC 4954 4), even where AUTH was masked or refused.
cdef inline void note_secret(Context *context, CommandLine *command) noexcept nogil:
    note_words(context, command.verb, command.kept.data, verb_of_line(command), command.kept.length)
