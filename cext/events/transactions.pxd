# Mails, put together from commands and replies: events/transactions.py.
from libc.stdint cimport uint8_t, uint64_t

from nfmailguard.cext.events.session cimport Mail, Session, Sessions
from nfmailguard.cext.record cimport Record

cdef enum:  # what a verb does to mails
    ROLE_NONE = 0
    ROLE_HELLO
    ROLE_MAIL
    ROLE_RECIPIENT
    ROLE_RESET
    ROLE_AUTH
    ROLE_STARTTLS
    ROLE_CHUNK
    ROLE_DATA
    ROLE_END_OF_DATA
    ROLES

# What the numbers in records mean.
cdef struct Meaning:
    uint8_t role[256]          # by verb
    uint64_t illegal           # the bit of address.illegal_character
    uint64_t by_packets        # a bit a finding that packets make, whatever their source address
    uint8_t keyword_masked     # the number of reply.keyword_masked

# The flow's session, begun if it has none; NULL: there is no memory, or a finding is of no flow.
cdef Session *session_of(Sessions *sessions, const Record *record) noexcept nogil
# Takes a finding; nothing is told.
cdef void take_finding(Sessions *sessions, Session *session, const Record *record) noexcept nogil
# Takes a command, a message or a reply. The mail it completes, which is the caller's then, or NULL.
cdef Mail *take_said(Sessions *sessions, Session *session, const Meaning *meaning, const Record *record) noexcept nogil
