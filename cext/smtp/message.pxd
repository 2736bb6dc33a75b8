# Message text: where the text that follows DATA ends, and what is checked in it.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.ruling cimport CompiledPolicy
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.session cimport Session

# Whether a line that begins with these bytes may be a BDAT sent too early: its chunk must not be forwarded before all
# earlier commands have been answered. If so, the client is made to wait.
cdef bint chunk_waits(const CompiledPolicy *policy, const Session *session, Dialogue *dialogue, const uint8_t *data,
                      uint32_t length) noexcept nogil
# All bytes of a BDAT chunk have come.
cdef void end_chunk(Context *context, Dialogue *dialogue) noexcept nogil
# Whether a packet continues an end of data that an earlier packet began (CSCds90792).
cdef bint end_is_cut(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil
# Follows the bytes of a chunk from index `at` on; returns the index after the last of them in this segment.
cdef uint32_t chunk_bytes(Context *context, Dialogue *dialogue, uint32_t at, uint32_t length) noexcept nogil
# Decides message text from index `at` on; returns the index after the last byte that belongs to the message.
cdef uint32_t message_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t at, uint32_t length,
                            uint64_t offset) noexcept nogil
# How many bytes at a segment's end begin an end of data, up to its dot at least (CRLF. or CRLF.CR); 0: none do.
cdef uint32_t end_begun(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil
