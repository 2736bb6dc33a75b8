# Command lines that lie in a segment whole: read at once, without a line being kept.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.runs cimport LineRules

# Reads the lines that begin here, their ends too: as octet by octet, and much quicker. How many octets that
# are; behind them is a line that is not for us.
cdef uint32_t clean_lines(Context *context, Dialogue *dialogue, LineRules *rules, uint8_t *data, uint32_t length,
                          uint64_t offset) noexcept nogil
