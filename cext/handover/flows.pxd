# Reads flows, with all that belongs to them, back from a state image.
from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.handover.cursor cimport Reader
from nfmailguard.cext.handover.loaded cimport Known, Loaded

# Reads the next flow into the core's table, without its held packets; where the result is not LOADED nothing is left.
cdef Loaded load_flow(Core *core, const Known *known, Reader *reader) noexcept nogil
# Frees all that belongs to a flow that holds no packet; the caller frees the flow itself.
cdef void free_parts(Core *core, Flow *flow) noexcept nogil
