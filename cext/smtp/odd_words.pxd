# Command lines of one odd word.
from libc.stdint cimport uint32_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.runs cimport LineRules

# Reads the line that begins here, where it ends with CRLF before data[stop] and is a word that is no verb for an octet
# up to the space in it, or before it, and nothing else; its first `ordinary` octets are above the space. Only where a
# denied verb becomes letters at most, and the client has said something before. How many octets of it there are, or 0.
cdef uint32_t odd_word(Context *context, Dialogue *dialogue, LineRules *rules, uint8_t *data, uint32_t ordinary,
                       uint32_t stop) noexcept nogil
