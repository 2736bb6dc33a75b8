# The client's direction: commands, messages, chunks, TLS.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# The client goes on although a reply has to come first: reported once for each reply.
cdef void note_reply_arrived(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil
# Decides `length` octets in place; `offset` is the stream offset of the first. Returns how many
# were decided: fewer only where nothing is applied and the client runs ahead of a reply.
# The client goes on although a reply has to come first: reported once for each reply.
cdef void note_reply_arrived(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil
cdef uint32_t client_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t length,
                           uint64_t offset) noexcept nogil
