# An engine's whole state, written into one flat image.
from nfmailguard.cext.core cimport Core
from nfmailguard.cext.handover.cursor cimport Writer

# Writes all; Writer.used is its length then, and it is whole where that is no more than Writer.size.
cdef void save_core(Core *core, Writer *writer) noexcept nogil
