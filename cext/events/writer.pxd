# The events of a queue, from its ring of records to lines.
from libc.stdint cimport uint32_t

from nfmailguard.cext.events.lines cimport Word, Writing

cdef class EventLines:
    cdef Writing *writing
    cdef list kept             # what the names point into, and
    cdef dict rules            # those of rules, by number
    cdef void fill(self, Word *words, uint32_t most, list values) except *
