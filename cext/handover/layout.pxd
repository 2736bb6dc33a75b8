# Which state fits which core: by the layout of every structure in it.
from libc.stdint cimport uint64_t

from nfmailguard.cext.handover.parts cimport Header

# Another number where a structure or an enumeration of the core is another.
cdef uint64_t layout_of_core() noexcept nogil
# What Header.checksum has to be; `header` begins an image of header.length bytes, which are all there.
cdef uint64_t checksum_of(const Header *header) noexcept nogil
