# Python tables -> a generation's arrays: when an Engine is made, and each time it gets other rules.
from nfmailguard.cext.core cimport Generation

cdef Generation *load_generation(dict tables) except NULL
cdef void free_generation(Generation *generation) noexcept
