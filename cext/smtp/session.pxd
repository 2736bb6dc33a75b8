# The session: what a dialogue has come to, kept with its flow.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.tally cimport Tally
from nfmailguard.cext.smtp.grammar cimport Grammar

cdef enum:  # Asked: whether a reply may be the one to an EHLO
    ASKED_NOTHING = 0          # the client has not spoken yet
    ASKED_OTHER = 1            # it has, and no EHLO has passed
    ASKED_EHLO = 2             # EHLO was the first thing said, and is not answered
    ASKED_TOLD = 3             # and its reply has been read: there is no other, whatever the count of replies
    ASKED_DOUBT = 4            # any may be

cdef enum:  # Secret: bits of Session.secret
    SECRET_BEGUN = 1           # AUTH was begun: what is no command may be a part of it
    SECRET_SAID = 2            # ever: a server may repeat it in any reply

# What a session has come to, in few octets: all that is left between two lines with nothing outstanding.
cdef struct Session:
    Tally tally                # of its findings
    uint64_t found             # bits of the findings in what the client has said since its last record
    uint32_t recipients
    uint32_t invalid_recipients
    uint32_t untold_recipients  # accepted, of whom no record tells
    uint8_t state              # smtp.states.State
    uint8_t greeted            # the greeting is not outstanding any more
    uint8_t secret             # Secret
    uint8_t ehlo_restored      # ever
    uint8_t asked              # Asked
    uint8_t noop_seen          # CSCdk46673: what matters to the next message
    uint8_t seven_bits         # of the mail: a MAIL has said BODY=7BIT, by which some servers clear eighth bits
    uint8_t offered_chunking   # CHUNK_REFUSED: and the last reply refused one
    uint8_t hypothetical

# A session that waits for its greeting.
cdef void session_open(Session *session, Grammar *grammar) noexcept nogil
