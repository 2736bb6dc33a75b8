# Fills the arrays of a generation from Python tables: when an Engine is made, and each time it gets new rules.
from nfmailguard.cext.core cimport Generation

cdef Generation *load_generation(dict tables) except NULL
cdef void free_generation(Generation *generation) noexcept
