# One engine: a core, and what is wanted of it from Python. What drivers call is in `process`.
from nfmailguard.cext.core cimport Core, Generation
from nfmailguard.cext.operation cimport Operations

cdef class Prepared:
    cdef Generation *generation    # NULL once it is the core's

cdef class Engine:
    cdef Core *core
    cdef Operations out        # for calls from Python
    cdef bytearray buffer      # the packet of the running call from Python
    cdef list operations(self)
