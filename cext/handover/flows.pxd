# Flows, read back from an image with all they have.
from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.handover.cursor cimport Reader
from nfmailguard.cext.handover.loaded cimport Known, Loaded

# The next flow, in the core's table with all but the packets it holds; nothing is left of one that is not LOADED.
cdef Loaded load_flow(Core *core, const Known *known, Reader *reader) noexcept nogil
# Gives back what a flow has, which holds no packet and is to be freed itself.
cdef void free_parts(Core *core, Flow *flow) noexcept nogil
