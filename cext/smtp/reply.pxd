# Reply lines: reads what the server sends.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# Decides the server's `length` bytes in place; `offset` is the stream offset of the first. Returns how many were
# decided: fewer only outside enforce mode, where a reply has let the client go on, and the client's bytes have to be
# read before the next reply.
cdef uint32_t server_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t length,
                           uint64_t offset) noexcept nogil
