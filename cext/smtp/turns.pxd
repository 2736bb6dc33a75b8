# Both sides' lines by turns, where they are only followed: what the client says before it waits, and the replies.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# What one side has said and is not read yet.
cdef struct Said:
    uint8_t *data
    uint32_t length
    uint32_t read              # octets of them that have been read since
    uint64_t offset            # in the stream, of the first

# Reads both as far as whole lines of the client's wait and replies of one line, nobody is told of, let it go on.
cdef void take_turns(Context *context, Dialogue *dialogue, Said *client, Said *server) noexcept nogil
