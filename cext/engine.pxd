# An engine: a core, and its functions for Python. The functions for drivers are in `process`.
from nfmailguard.cext.core cimport Core, Generation
from nfmailguard.cext.operation cimport Operations

cdef class Prepared:
    cdef Generation *generation    # NULL once the core has taken it over

cdef class Engine:
    cdef Core *core
    cdef Operations out        # operations of calls from Python
    cdef bytearray buffer      # the packet being processed for Python
    cdef list operations(self)
