# Python tables -> the core's arrays, when an Engine is made.
from nfmailguard.cext.core cimport Core

cdef int load_tables(Core *core, dict tables) except -1
cdef void free_tables(Core *core) noexcept
