# Reads an engine's state from an image into a core that has no flow yet.
from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.handover.loaded cimport Known, Loaded

# Whether these bytes are a complete image that this core can read; checks header and checksum only.
cdef Loaded image_fits(const uint8_t *data, uint64_t length) noexcept nogil
# Reads the image into a core that has no flow and no record; where the result is not LOADED the core is unchanged.
cdef Loaded load_core(Core *core, const Known *known, const uint8_t *data, uint64_t length) noexcept nogil
