# Generations: sets of rules and settings, and how a new one replaces an older one while packets are processed.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.core cimport Core, Generation

# For the packet thread, between two batches: from now on new flows are under the latest rules.
cdef void take_up_generation(Core *core, uint64_t now) noexcept nogil
# For the control thread: whether the packet thread has taken up the latest generation.
cdef bint generation_taken(Core *core) noexcept nogil
# Makes a generation the latest; False where MOST_GENERATIONS are in use. The core frees it later.
cdef bint publish_generation(Core *core, Generation *generation, bint begins_anew) noexcept
# Adds a generation before the latest one, for restored flows that are under it; else like publish_generation.
cdef bint add_older_generation(Core *core, Generation *generation) noexcept
# Makes an older generation the latest again; False if it is freed, or if the latest one is not taken up yet.
cdef bint republish_generation(Core *core, uint8_t number) noexcept
# Frees generations without flows and unread records, once the packet thread has begun another batch since.
cdef void free_unused_generations(Core *core) noexcept
cdef void free_generations(Core *core) noexcept
# How many open flows are under a generation.
cdef uint32_t flows_under(Generation *generation) noexcept nogil
