# The events of a queue, from its ring of records to lines.
from libc.stdint cimport uint32_t

from nfmailguard.cext.events.lines cimport Word, Writing
from nfmailguard.cext.record cimport Record

# A drained record as it was in the ring. Raises TypeError, ValueError.
cdef void record_from_tuple(tuple drained, Record *record) except *

cdef class EventLines:
    cdef Writing *writing
    cdef list kept             # what the names point into, and
    cdef dict rules            # those of rules, by number
    cdef void keep_names(self, Word *words, uint32_t most, list values) except *
