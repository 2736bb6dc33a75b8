# Damage done upstream: recognised in every mode, undone where the policy says so.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.outstanding cimport Exchange

# Whether a verb, a greeting's text, a line of an EHLO reply are what a Mailguard leaves of one;
# `least`: the running letter that such a line has at least, from 0.
cdef bint verb_masked(const uint8_t *data, uint32_t length) noexcept nogil
cdef bint banner_masked(const uint8_t *data, uint32_t length) noexcept nogil
cdef bint keyword_masked(const uint8_t *data, uint32_t length, uint32_t least) noexcept nogil
# Damage that stays as it came: reported, in `restore` as not recoverable, too.
cdef void report_damage(Context *context, uint8_t finding, bint to_server, uint8_t verb, uint64_t offset,
                        const uint8_t *data, uint32_t length) noexcept nogil
# At the first octet of a command line, or of a reply: puts back what can be told, in place, when all of it
# is among the `length` octets.
cdef void restore_command(Context *context, const Exchange *exchange, uint8_t *data, uint32_t length,
                          uint64_t offset) noexcept nogil
cdef void restore_reply(Context *context, const Exchange *exchange, uint8_t *data, uint32_t length,
                        uint64_t offset) noexcept nogil
