# Tells which state image fits which core, by the layout of every structure in the image.
from libc.stdint cimport uint64_t

from nfmailguard.cext.handover.parts cimport Header

# A number that changes whenever a structure or an enumeration of the core changes.
cdef uint64_t layout_of_core() noexcept nogil
# The value Header.checksum must have; `header` begins an image whose header.length bytes are all present.
cdef uint64_t checksum_of(const Header *header) noexcept nogil
