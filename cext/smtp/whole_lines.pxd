# Command lines that lie in one segment as a whole: read in one step, without a copy of the line being kept.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.runs cimport LineRules

# Reads the lines that begin here, line ends included, with the result of reading them byte by byte, but much quicker.
# Returns how many bytes they have; after them comes a line that cannot be read this way.
cdef uint32_t clean_lines(Context *context, Dialogue *dialogue, LineRules *rules, uint8_t *data, uint32_t length,
                          uint64_t offset) noexcept nogil
