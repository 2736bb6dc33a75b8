# Damage done by another firewall upstream: recognised in every mode, undone where the policy says so.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.outstanding cimport Exchange

# Whether a verb, a greeting's text or a line of an EHLO reply is what a Mailguard makes of one. `least`: a masked
# line's last letter is not below this one, counted from 0 for A.
cdef bint verb_masked(const uint8_t *data, uint32_t length) noexcept nogil
cdef bint banner_masked(const uint8_t *data, uint32_t length) noexcept nogil
cdef bint keyword_masked(const uint8_t *data, uint32_t length, uint32_t least) noexcept nogil
# Reports damage that is left as it came; where the policy would restore it, also as not recoverable.
cdef void report_damage(Context *context, uint8_t finding, bint to_server, uint8_t verb, uint64_t offset,
                        const uint8_t *data, uint32_t length) noexcept nogil
# To be called at the first byte of a command line, or of a reply: restores in place what can be recognised, if the
# whole line or reply is among the `length` bytes.
cdef void restore_command(Context *context, const Exchange *exchange, uint8_t *data, uint32_t length,
                          uint64_t offset) noexcept nogil
cdef void restore_reply(Context *context, const Exchange *exchange, uint8_t *data, uint32_t length,
                        uint64_t offset) noexcept nogil
