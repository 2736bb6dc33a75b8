# File names of MIME parts in message text.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

# Reads octets[at:length] of a message; reports a file name above the ruling's limit.
cdef void mime_octets(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t at, uint32_t length,
                      uint64_t offset) noexcept nogil
