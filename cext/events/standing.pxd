# What is known of mails under way, as plain values: for another writer, or of one.
from nfmailguard.cext.events.session cimport Sessions

# Tuples of `events.lines`, the flow that has been still longest first.
cdef list sessions_as_values(const Sessions *sessions)
# Goes on with them, before there is any record. Raises MemoryError.
cdef void sessions_from_values(Sessions *sessions, list values) except *
