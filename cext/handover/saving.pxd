# Writes an engine's whole state into one flat image.
from nfmailguard.cext.core cimport Core
from nfmailguard.cext.handover.cursor cimport Writer

# Writes the state; Writer.used is then the image's length. The image is complete if that is at most Writer.size.
cdef void save_core(Core *core, Writer *writer) noexcept nogil
