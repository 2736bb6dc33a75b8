# Turns the ring buffer of a queue's records into event lines.
from libc.stdint cimport uint32_t

from nfmailguard.cext.events.lines cimport Word, Writing
from nfmailguard.cext.record cimport Record

# Fills in a record from the tuple that draining it had given. Raises TypeError, ValueError.
cdef void record_from_tuple(tuple drained, Record *record) except *

cdef class EventLines:
    cdef Writing *writing
    cdef list kept             # the bytes objects that own the names in `writing`
    cdef dict rules            # the same for names of rules, by rule number
    cdef void keep_names(self, Word *words, uint32_t most, list values) except *
