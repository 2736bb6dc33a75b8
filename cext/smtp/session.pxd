# The session: what is remembered of a flow's SMTP dialogue as long as the flow exists.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.tally cimport Tally
from nfmailguard.cext.smtp.grammar cimport Grammar

cdef enum:  # Asked: whether a reply may be the reply to an EHLO
    ASKED_NOTHING = 0          # the client has sent nothing yet
    ASKED_OTHER = 1            # the client has sent something, but no EHLO has passed
    ASKED_EHLO = 2             # EHLO was the first thing the client sent, and is not answered
    ASKED_TOLD = 3             # the reply to that EHLO has been read; there is no other, however replies are counted
    ASKED_DOUBT = 4            # any reply may be the reply to an EHLO

cdef enum:  # Mark: bits of Session.marks, what is known of the session
    GREETED = 1                # the server's greeting is not outstanding any more
    EHLO_RESTORED = 2          # restore mode has restored an EHLO at some time in the session
    HYPOTHETICAL = 4           # monitor mode: what enforce mode would do would have changed the dialogue's course
    SECRET_SAID = 8            # a secret was sent at some time: a server may repeat it in any reply
    SECRET_BEGUN = 16          # AUTH was begun: a line that is no command may be part of it
    NOOP_SEEN = 32             # a NOOP was sent, which matters to the next message (CSCdk46673)
    MAIL_SEVEN_BITS = 64       # a MAIL said BODY=7BIT, so some servers clear eighth bits of this mail

cdef enum:
    COUNTED_MOST = 0xffff      # Session.invalid_recipients and untold_recipients: this many or more

# The state of a session, kept small: it is all that is left between two lines with nothing outstanding.
cdef struct Session:
    Tally tally                # counts of the session's findings, by kind
    uint64_t found             # bits of the findings in what the client has sent since its last event record
    uint32_t recipients
    uint32_t junk              # commands since the last accepted message that led to nothing
    uint16_t invalid_recipients  # recipients of the current mail that the server has refused, at most COUNTED_MOST
    uint16_t untold_recipients  # recipients accepted for which no event record was made, at most COUNTED_MOST
    uint8_t state              # the dialogue's state: smtp.states.State
    uint8_t asked              # Asked: whether a reply may be the reply to an EHLO
    uint8_t marks              # bits of Mark: what is known of the session
    uint8_t offered_chunking   # 1: EHLO's reply offered CHUNKING; CHUNK_REFUSED: and a chunk was refused; 0: no offer

# note_found notes a kind of finding in what the client has sent; note_all_found notes several kinds, given as bits.
cdef inline void note_found(Session *session, uint8_t finding) noexcept nogil:
    session.found |= <uint64_t> 1 << finding

cdef inline void note_all_found(Session *session, uint64_t kinds) noexcept nogil:
    session.found |= kinds

# Returns the kinds of findings that no event record reports yet, and clears them: the caller's record reports them.
cdef inline uint64_t take_found(Session *session) noexcept nogil:
    cdef uint64_t found = session.found
    session.found = 0
    return found

# In monitor mode: notes whether enforce mode would have changed the dialogue's course.
cdef inline void note_hypothetical(Session *session, bint differs) noexcept nogil:
    session.marks |= HYPOTHETICAL if differs else 0

cdef inline void move_session(Session *session, uint8_t state) noexcept nogil:
    session.state = state

cdef inline void note_greeted(Session *session) noexcept nogil:
    session.marks |= GREETED

cdef inline void note_restored(Session *session, bint ehlo) noexcept nogil:
    session.marks |= EHLO_RESTORED if ehlo else 0

# Notes whether CHUNKING is offered: a command that begins the session anew withdraws the offer, a line of its reply may
# make it again.
cdef inline void offer_chunking(Session *session, bint offered) noexcept nogil:
    session.offered_chunking = offered

# The server's last reply has not refused a chunk: CHUNK_REFUSED becomes 1 (offered).
cdef inline void renew_offer(Session *session) noexcept nogil:
    session.offered_chunking = session.offered_chunking != 0

# A reply has come for which no command is outstanding: it may be in doubt now which reply answers an EHLO.
cdef inline void note_unasked(Session *session) noexcept nogil:
    session.asked = ASKED_DOUBT if session.asked > ASKED_EHLO else ASKED_OTHER

# Some servers may take what follows for another line, maybe AUTH's: their replies may repeat a secret from now on.
cdef inline void note_secret_said(Session *session) noexcept nogil:
    session.marks |= SECRET_SAID

cdef inline void note_secret_begun(Session *session) noexcept nogil:
    session.marks |= SECRET_BEGUN | SECRET_SAID

cdef inline void note_secret_over(Session *session) noexcept nogil:
    session.marks &= <uint8_t> ~SECRET_BEGUN

# Of the current mail: its number of RCPT commands, BODY=7BIT of its MAIL, and a NOOP before it.
cdef inline void add_recipients(Session *session, uint32_t number) noexcept nogil:
    session.recipients += number

cdef inline void forget_recipients(Session *session) noexcept nogil:
    session.recipients = 0

cdef inline void note_seven_bits(Session *session, bint said) noexcept nogil:
    session.marks |= MAIL_SEVEN_BITS if said else 0

cdef inline void note_noop(Session *session, bint said) noexcept nogil:
    session.marks |= NOOP_SEEN if said else 0

cdef inline void forget_noop(Session *session) noexcept nogil:
    session.marks &= <uint8_t> ~NOOP_SEEN

# The mail is over: what its MAIL said of the body holds no more.
cdef inline void forget_seven_bits(Session *session) noexcept nogil:
    session.marks &= <uint8_t> ~MAIL_SEVEN_BITS

# Counts one more command that led to nothing; returns how many there are.
cdef inline uint32_t add_junk(Session *session) noexcept nogil:
    session.junk += 1
    return session.junk

cdef inline void clear_junk(Session *session) noexcept nogil:
    session.junk = 0

# Initialises a session that waits for the server's greeting.
cdef void session_open(Session *session, Grammar *grammar) noexcept nogil
