# Puts mails together from commands and replies; the same as events/transactions.py.
from libc.stdint cimport uint8_t, uint64_t

from nfmailguard.cext.events.session cimport Mail, Session, Sessions
from nfmailguard.cext.record cimport Record

# Roles: what a verb means for the mail transaction that is being put together from records.
cdef enum:
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

# What the numbers in records mean to this module.
cdef struct Meaning:
    uint8_t role[256]          # a verb's ROLE_, by the verb's number
    uint64_t illegal           # the bit of the finding address.illegal_character
    uint64_t by_packets        # a bit for each finding that single packets cause, whose source address may be forged
    uint8_t keyword_masked     # the number of the finding reply.keyword_masked

# Begins the session of a flow that has none yet; NULL: out of memory.
cdef Session *session_of(Sessions *sessions, const Record *record) noexcept nogil
# Notes a finding in the session and its mail; no event is written.
cdef void take_finding(Sessions *sessions, Session *session, const Record *record) noexcept nogil
# Takes the record of a command, message or reply. Returns the mail it completes, which the caller then owns, or NULL.
cdef Mail *take_said(Sessions *sessions, Session *session, const Meaning *meaning, const Record *record) noexcept nogil
