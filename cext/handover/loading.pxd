# An engine's state, read back from an image into a core that has no flow yet.
from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.handover.loaded cimport Known, Loaded

# Whether these bytes begin, and are, an image that this core may read; nothing else of them is looked at.
cdef Loaded image_fits(const uint8_t *data, uint64_t length) noexcept nogil
# The core is as it was where it is not LOADED. Only for one that has no flow, and no record.
cdef Loaded load_core(Core *core, const Known *known, const uint8_t *data, uint64_t length) noexcept nogil
