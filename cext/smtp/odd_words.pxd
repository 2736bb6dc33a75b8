# Command lines of a single word that is no verb because of unusual bytes.
from libc.stdint cimport uint32_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.runs cimport LineRules

# Reads the line that begins at `data` in one step, if it ends with CRLF before data[stop] and is a single word that is
# no verb because of a space, control byte, NUL or CR in it or before it. Its first `ordinary` bytes are above the
# space. Only to be called where a denied verb is at most overwritten with letters, and the client has sent a line
# before. Returns the line's length in bytes; 0: it was not read.
cdef uint32_t odd_word(Context *context, Dialogue *dialogue, LineRules *rules, uint8_t *data, uint32_t ordinary,
                       uint32_t stop) noexcept nogil
