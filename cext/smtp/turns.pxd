# Both sides' lines by turns in monitor mode: the client's lines up to one that has to wait for its reply, then the
# server's replies.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# What one side has sent and has not been read yet.
cdef struct Said:
    uint8_t *data
    uint32_t length
    uint32_t read              # bytes of `data` that have been read so far
    uint64_t offset            # stream offset of the first byte

# Reads both sides by turns, as long as whole lines of the client make it wait and one-line replies, without a finding
# to be logged, let it go on.
cdef void take_turns(Context *context, Dialogue *dialogue, Said *client, Said *server) noexcept nogil
