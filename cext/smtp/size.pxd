# How long a message's header and body are, and how many To fields it has.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# Reads data[at:length] of a message; `ended`: its end of data are the last of them.
cdef void part_bytes(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t at, uint32_t length,
                     uint64_t offset, bint ended) noexcept nogil
