# The session: what a dialogue has come to, kept with its flow.
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

from nfmailguard.cext.policy.tally cimport Tally
from nfmailguard.cext.smtp.grammar cimport Grammar

cdef enum:  # Asked: whether a reply may be the one to an EHLO
    ASKED_NOTHING = 0          # the client has not spoken yet
    ASKED_OTHER = 1            # it has, and no EHLO has passed
    ASKED_EHLO = 2             # EHLO was the first thing said, and is not answered
    ASKED_TOLD = 3             # and its reply has been read: there is no other, whatever the count of replies
    ASKED_DOUBT = 4            # any may be

cdef enum:  # Mark: bits of Session.marks
    GREETED = 1                # the server's greeting is not outstanding any more
    EHLO_RESTORED = 2          # ever
    HYPOTHETICAL = 4           # what enforce would have done has sent the dialogue another way
    SECRET_SAID = 8            # ever: a server may repeat it in any reply
    SECRET_BEGUN = 16          # AUTH was begun: what is no command may be a part of it
    NOOP_SEEN = 32             # CSCdk46673: what matters to the next message
    MAIL_SEVEN_BITS = 64       # of the mail: a MAIL has said BODY=7BIT, by which some servers clear eighth bits

cdef enum:
    COUNTED_MOST = 0xffff      # of invalid_recipients and untold_recipients: so many or more

# What a session has come to, in few octets: all that is left between two lines with nothing outstanding.
cdef struct Session:
    Tally tally                # of its findings
    uint64_t found             # bits of the findings in what the client has said since its last record
    uint32_t recipients
    uint32_t junk              # commands since the last message that was accepted which led to nothing
    uint16_t invalid_recipients
    uint16_t untold_recipients  # accepted, of whom no record tells
    uint8_t state              # smtp.states.State
    uint8_t asked              # Asked
    uint8_t marks              # Mark
    uint8_t offered_chunking   # CHUNK_REFUSED: and the last reply refused one

# A kind of finding is in what the client has said; several are.
cdef inline void note_found(Session *session, uint8_t finding) noexcept nogil:
    session.found |= <uint64_t> 1 << finding

cdef inline void note_all_found(Session *session, uint64_t kinds) noexcept nogil:
    session.found |= kinds

# Those of them that no record tells yet; from here on one does.
cdef inline uint64_t take_found(Session *session) noexcept nogil:
    cdef uint64_t found = session.found
    session.found = 0
    return found

# What enforce would have done has sent the dialogue another way.
cdef inline void note_hypothetical(Session *session, bint differs) noexcept nogil:
    session.marks |= HYPOTHETICAL if differs else 0

cdef inline void move_session(Session *session, uint8_t state) noexcept nogil:
    session.state = state

cdef inline void note_greeted(Session *session) noexcept nogil:
    session.marks |= GREETED

cdef inline void note_restored(Session *session, bint ehlo) noexcept nogil:
    session.marks |= EHLO_RESTORED if ehlo else 0

# A command that began the session anew takes the offer of CHUNKING back; a line of the reply to it offers that.
cdef inline void offer_chunking(Session *session, bint offered) noexcept nogil:
    session.offered_chunking = offered

# The server's last reply has refused none.
cdef inline void renew_offer(Session *session) noexcept nogil:
    session.offered_chunking = session.offered_chunking != 0

# A reply that no command is outstanding for.
cdef inline void note_unasked(Session *session) noexcept nogil:
    session.asked = ASKED_DOUBT if session.asked > ASKED_EHLO else ASKED_OTHER

# What follows may be another line to some servers, maybe AUTH's.
cdef inline void note_secret_said(Session *session) noexcept nogil:
    session.marks |= SECRET_SAID

cdef inline void note_secret_begun(Session *session) noexcept nogil:
    session.marks |= SECRET_BEGUN | SECRET_SAID

cdef inline void note_secret_over(Session *session) noexcept nogil:
    session.marks &= <uint8_t> ~SECRET_BEGUN

# Of the mail: RCPT, MAIL's BODY=7BIT, NOOP before it.
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

# The mail is over: of its body nothing holds any more.
cdef inline void forget_seven_bits(Session *session) noexcept nogil:
    session.marks &= <uint8_t> ~MAIL_SEVEN_BITS

# One more command that led to nothing: how many they are.
cdef inline uint32_t add_junk(Session *session) noexcept nogil:
    session.junk += 1
    return session.junk

cdef inline void clear_junk(Session *session) noexcept nogil:
    session.junk = 0

# A session that waits for its greeting.
cdef void session_open(Session *session, Grammar *grammar) noexcept nogil
