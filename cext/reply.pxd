# Reply lines: the server's direction.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

# Decides `length` octets in place; `offset` is the stream offset of the first. Returns how many
# were decided: fewer only where nothing is applied and a reply let the client go on, whose octets
# are to be read before the next reply.
cdef uint32_t server_octets(Scene *scene, Dialogue *dialogue, uint8_t *octets, uint32_t length,
                            uint64_t offset) noexcept nogil
