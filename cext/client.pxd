# The client's direction: commands, messages, chunks, TLS.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

# The client goes on although a reply has to come first: reported once for each reply.
cdef void waited_for(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil
# Decides `length` octets in place; `offset` is the stream offset of the first. Returns how many
# were decided: fewer only where nothing is applied and the client runs ahead of a reply.
# The client goes on although a reply has to come first: reported once for each reply.
cdef void waited_for(Scene *scene, Dialogue *dialogue, uint64_t offset) noexcept nogil
cdef uint32_t client_octets(Scene *scene, Dialogue *dialogue, uint8_t *octets, uint32_t length,
                            uint64_t offset) noexcept nogil
