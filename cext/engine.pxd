# An engine: a core, and its functions for Python. The functions for drivers are in `process`.
from nfmailguard.cext.core cimport Core, Generation
from nfmailguard.cext.operation cimport Operations

cdef class Prepared:
    cdef Generation *generation    # the prepared rules; NULL once the core has taken them over

cdef class Engine:
    cdef Core *core
    cdef Operations out        # operations returned by the core in calls from Python
    cdef bytearray buffer      # the packet being processed for Python
    cdef list operations(self)
