# Command lines, byte by byte: how a line begins, how its verb ends, and how the line ends.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.findings cimport Context
from nfmailguard.cext.smtp.dialogue cimport Dialogue

# To be called at the beginning of each client segment that is read as commands: chooses anew how a verb is masked that
# the end of the previous segment has cut.
cdef void resume_line(Context *context, Dialogue *dialogue, const uint8_t *data, uint32_t length) noexcept nogil

# The verb is complete. `at` is the byte that ends it; `length` bytes from there on are in this segment.
cdef void end_verb(Context *context, Dialogue *dialogue, uint8_t *at, uint32_t length, uint64_t offset) noexcept nogil
# As end_verb, where the verb's number is known, and the `finding` that keeps it from passing (0: the verb passes).
cdef void settle_verb(Context *context, Dialogue *dialogue, uint8_t verb, uint8_t finding, uint8_t *at, uint32_t length,
                      uint64_t offset) noexcept nogil
# Handles the space after a verb.
cdef void end_of_verb(Context *context, Dialogue *dialogue, uint8_t *at) noexcept nogil
# Reads one byte of a command line that is not part of its line end; `length` bytes from `at` on are in this segment.
cdef void ordinary_byte(Context *context, Dialogue *dialogue, uint8_t *at, uint32_t length,
                        uint64_t offset) noexcept nogil
# The command line is complete; `at` is its LF.
cdef void end_line(Context *context, Dialogue *dialogue, uint8_t *at, uint64_t offset) noexcept nogil
