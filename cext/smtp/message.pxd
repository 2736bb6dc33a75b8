# Message text: where DATA ends, and the lines in it.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.policy.ruling cimport CompiledPolicy
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.session cimport Session

# Whether a line that begins with these octets may be a BDAT before its turn: its chunk must not leave before all
# that was said in front of it has been answered. Then the client has to wait.
cdef bint chunk_waits(const CompiledPolicy *policy, const Session *session, Dialogue *dialogue, const uint8_t *data,
                      uint32_t length) noexcept nogil
# The octets of a chunk have all come.
cdef void end_chunk(Context *context, Dialogue *dialogue) noexcept nogil
# Whether a packet's octets go on with an end of data that an earlier packet began (CSCds90792).
cdef bint end_is_cut(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil
# Follows as much of a chunk as these octets have, from `at` on; the index behind that.
cdef uint32_t chunk_bytes(Context *context, Dialogue *dialogue, uint32_t at, uint32_t length) noexcept nogil
# Decides message octets from `at` on; returns the index behind the last one that was message.
cdef uint32_t message_bytes(Context *context, Dialogue *dialogue, uint8_t *data, uint32_t at, uint32_t length,
                            uint64_t offset) noexcept nogil
# How many octets at a segment's end begin an end of data, its dot among them; 0: none do.
cdef uint32_t end_begun(Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil
