# Command lines, octet by octet: what begins them, ends their verbs and ends them.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# Only where partial lines are masked a segment at a time: to be called at a segment's beginning.
cdef void resume_line(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil

# The verb is complete; `at` is the octet that ends it, `length` octets from there are in this segment.
cdef void end_verb(Context *context, Dialogue *dialogue, uint8_t *at, uint32_t length, uint64_t offset) noexcept nogil
# The same where it is known which one it is, and `finding`, which keeps it from passing (or 0).
cdef void settle_verb(Context *context, Dialogue *dialogue, uint8_t verb, uint8_t finding, uint8_t *at, uint32_t length,
                      uint64_t offset) noexcept nogil
# The space behind a verb.
cdef void end_of_verb(Context *context, Dialogue *dialogue, uint8_t *at) noexcept nogil
# One octet of a line that is not its end; `length` octets from `at` on are in this segment.
cdef void ordinary_byte(Context *context, Dialogue *dialogue, uint8_t *at, uint32_t length,
                        uint64_t offset) noexcept nogil
# The line is complete; `at` is its LF.
cdef void end_line(Context *context, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil
