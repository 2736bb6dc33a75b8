# How long a message's header and body are, and how many To fields it has.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

# Reads octets[at:length] of a message; `ended`: its end of data are the last of them.
cdef void part_octets(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t at, uint32_t length,
                      uint64_t offset, bint ended) noexcept nogil
