# Command lines: the client's direction, outside of messages.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# Decides the client's bytes from `at` on, in place, until a line changes how the next bytes are read; `offset` is the
# stream offset of data[0]. Returns the index after the last byte decided.
cdef uint32_t command_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t at, uint32_t length,
                            uint64_t offset) noexcept nogil
