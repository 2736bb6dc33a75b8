# Replies of one line that are but answers, and lines that are no replies.
from libc.stdint cimport uint8_t, uint32_t

from nfmailguard.cext.smtp cimport Dialogue, Scene

# Reads such lines from here on, where one begins; how many octets they are.
cdef uint32_t quick_lines(Scene *scene, Dialogue *dialogue, const uint8_t *octets, uint32_t length) noexcept nogil
