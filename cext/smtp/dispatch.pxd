# The client's direction: its bytes go to the modules that read commands, messages, chunks and TLS.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# Reports that the client goes on although it has to wait for a reply first; once for each such reply.
cdef void note_reply_arrived(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil
cdef void note_reply_arrived(Context *context, Dialogue *dialogue, uint64_t offset) noexcept nogil
# Decides the client's `length` bytes in place; `offset` is the stream offset of the first. Returns how many were
# decided: fewer where the client runs ahead of a reply and its bytes are not held back, or where a chunk has to wait.
cdef uint32_t client_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t length,
                           uint64_t offset) noexcept nogil
