# Unfinished mails as plain values, to be handed from one event writer to another.
from nfmailguard.cext.events.session cimport Sessions

# The sessions as tuples in the form of `events.lines`, the flow idle longest first.
cdef list sessions_as_values(const Sessions *sessions)
# Restores sessions from such tuples, before any record is read. Raises MemoryError.
cdef void sessions_from_values(Sessions *sessions, list values) except *
