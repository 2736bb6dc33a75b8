# Command lines: the client's direction, outside of messages.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

# Decides the octets from `at` on, in place, until a line changes how the client is to be read;
# `offset` is the stream offset of octets[0]. Returns the index behind the last one decided.
cdef uint32_t command_octets(Scene *scene, Dialogue *dialogue, uint8_t *octets, uint32_t at, uint32_t length,
                             uint64_t offset) noexcept nogil
