# Generations: rules and settings that came together, and how one follows another while packets go on.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.core cimport Core, Generation

# The packet thread's, between two batches: from here on the latest rules hold for flows that begin.
cdef void take_up_generation(Core *core, uint64_t now) noexcept nogil
# The control thread's. Whether the packet thread has taken up the latest one.
cdef bint generation_taken(Core *core) noexcept nogil
# Makes it the latest; False where MOST_GENERATIONS are in use. The core frees it.
cdef bint publish_generation(Core *core, Generation *generation, bint begins_anew) noexcept
# Puts it among those before the latest, for flows that are to be read under it; the same otherwise.
cdef bint add_older_generation(Core *core, Generation *generation) noexcept
# The same of one that is older, or the latest; False where that cannot be: it is freed, or the latest not taken up.
cdef bint republish_generation(Core *core, uint8_t number) noexcept
# Frees those that nothing refers to any more: the packet thread has to have turned since that was first seen.
cdef void free_unused_generations(Core *core) noexcept
cdef void free_generations(Core *core) noexcept
# How many flows are under one.
cdef uint32_t flows_under(Generation *generation) noexcept nogil
