# File names of MIME parts in message text.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# Reads data[at:length] of a message; reports a file name above the policy's limit.
cdef void mime_bytes(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset) noexcept nogil
