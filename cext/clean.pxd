# Command lines that lie in a segment whole: read at once, without a line being kept.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nfmailguard.cext.run cimport Manner
from nfmailguard.cext.smtp cimport Dialogue, Scene

# Reads the lines that begin here, their ends too: as octet by octet, and much quicker. How many octets that
# are; behind them is a line that is not for us.
cdef uint32_t clean_lines(Scene *scene, Dialogue *dialogue, Manner *manner, uint8_t *octets, uint32_t length,
                          uint64_t offset) noexcept nogil
