# What is kept of each flow's dialogue until its mails are reported; the same as events/transactions.py.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nfmailguard.cext.events.ends cimport COMMUNITY_SIZE
from nfmailguard.cext.events.text cimport Text
from nfmailguard.cext.policy.numbers cimport MOST_FINDINGS
from nfmailguard.cext.record cimport Identity

cdef enum:
    MOST_PENDING_CHUNKS = 100
    # Byte counts for the memory limit: what the same data takes as Python objects, so that the writers in C and in
    # Python keep and forget the same flows. A flow's state in C takes less.
    FLOW_OCTETS = 1440
    MAIL_OCTETS = 410
    TEXT_OCTETS = 60           # bytes counted for a string besides its characters
    ADDRESS_OCTETS = 80        # bytes counted in addition for an address that not every server reads the same way

# One mail as seen by the gateway.
cdef struct Mail:
    Mail *next
    Text *helo
    Text *sender
    Text *reply                # the server's last reply to the mail, code first
    Text *first_recipient
    Text *last_recipient
    uint64_t bytes             # bytes of the mail's message text, without the end of data
    uint64_t omitted           # accepted recipients whose addresses are not kept
    uint64_t changed           # a bit for each finding that changed something in the mail, or would have
    uint32_t recipient_octets  # bytes counted for the recipients
    uint8_t recipients
    uint8_t uncertain
    uint8_t tls
    uint8_t auth
    uint8_t complete
    uint8_t changes
    uint8_t change[MOST_FINDINGS]  # the `changes` findings whose bits are set in `changed`, in the order they occurred

cdef struct MailList:
    Mail *first
    Mail *last
    uint32_t count

cdef struct TextList:
    Text *first
    Text *last
    uint32_t count

# A client address with flows that are kept: an IPv4 address or an IPv6 /64.
cdef struct Source:
    Source *next_in_bucket
    uint64_t key               # first 8 bytes of the client's address
    uint8_t is_6
    uint32_t flows
    int64_t octets             # bytes counted for the state of its flows
    Session *stillest          # the source's flows in a list ordered by last record: the one idle longest
    Session *latest

cdef struct Session:
    uint64_t flow_id
    Session *next_in_bucket
    # Neighbours in two lists ordered by last record: that of all flows, and that of the source's flows.
    Session *stiller
    Session *later
    Session *stiller_of_source
    Session *later_of_source
    Source *source
    int64_t octets
    Text *helo
    # Commands that the server has not answered yet, oldest first; the `more_` fields count later ones not kept.
    TextList hellos
    uint64_t more_hellos
    MailList mails
    uint64_t more_mails
    TextList recipients
    uint64_t more_recipients
    uint64_t chunks[2]         # pending BDAT commands, a bit for each, the oldest in bit 0: 1 if it has LAST
    uint8_t chunk_count
    uint8_t tls
    uint8_t auth
    uint8_t found              # 1: the flow had a finding
    uint8_t has_community
    # 1: `spoken` is NULL because the client's bytes belong to a mail that will not be reported.
    uint8_t speaks_of_none
    Mail *spoken               # the client's bytes belong to it; with pipelining (RFC 2920) it may follow `mail`
    Mail *mail                 # the mail that the server's replies belong to
    uint8_t community[COMMUNITY_SIZE]

# All flows whose mails are put together. `memory`: upper limit for `octets`, in bytes.
cdef struct Sessions:
    int64_t memory
    int64_t octets
    uint64_t forgotten         # flows whose state was given up for want of memory
    uint64_t omitted           # MAIL and RCPT commands that were only counted, for want of memory
    uint64_t key[2]            # secret key of the hash of sources
    Session **buckets          # hash table by flow: `size` buckets, a power of two
    Source **source_buckets    # hash table by source, of the same size
    uint32_t size
    uint32_t count
    Session *stillest
    Session *latest
    Session *free_sessions     # free list of sessions, linked by next_in_bucket
    Mail *free_mails
    uint32_t free_count

cdef int sessions_open(Sessions *sessions, int64_t memory, const uint64_t *key) noexcept nogil
cdef void sessions_close(Sessions *sessions) noexcept nogil
cdef Session *session_find(Sessions *sessions, uint64_t flow_id) noexcept nogil
# Begins the session of a flow that has none; NULL: out of memory, the flow is counted as forgotten.
cdef Session *session_begin(Sessions *sessions, uint64_t flow_id, uint8_t family, const uint8_t *client) noexcept nogil
# Removes a session from all lists; the session and its mails then belong to the caller.
cdef void session_take_out(Sessions *sessions, Session *session) noexcept nogil
cdef void session_free(Sessions *sessions, Session *session) noexcept nogil
# Makes the flow the one heard last; flows idle longest are forgotten until the memory limit is kept.
cdef void session_settle(Sessions *sessions, Session *session) noexcept nogil
# Counts `octets` bytes more (or fewer, if negative) for a session.
cdef void session_charge(Sessions *sessions, Session *session, int64_t octets) noexcept nogil
# Whether `octets` more bytes may be kept for a session.
cdef bint session_may_keep(const Sessions *sessions, const Session *session, int64_t octets) noexcept nogil

cdef Mail *mail_made(Sessions *sessions) noexcept nogil    # a new, empty mail; NULL: out of memory
cdef void mail_free(Sessions *sessions, Mail *mail) noexcept nogil

# Adds findings to a mail; `found`: a bit for each, by number. A mail keeps its first MOST_CHANGES ones.
cdef void mail_add_changed(Mail *mail, uint64_t found) noexcept nogil
# Adds the findings of the mail `other` to `mail`.
cdef void mail_merge_changed(Mail *mail, const Mail *other) noexcept nogil

cdef inline void chunk_append(Session *session, bint last) noexcept nogil:
    session.chunks[session.chunk_count >> 6] |= <uint64_t> last << (session.chunk_count & 63)
    session.chunk_count += 1

cdef inline bint chunk_shift(Session *session) noexcept nogil:
    # Removes the oldest pending BDAT command; returns whether it had LAST.
    cdef bint last = session.chunk_count != 0 and session.chunks[0] & 1
    if session.chunk_count:
        session.chunks[0] = session.chunks[0] >> 1 | session.chunks[1] << 63
        session.chunks[1] >>= 1
        session.chunk_count -= 1
    return last

cdef inline void chunks_clear(Session *session) noexcept nogil:
    session.chunks[0] = session.chunks[1] = 0
    session.chunk_count = 0

cdef inline int64_t cost_of_mail(const Mail *mail) noexcept nogil:
    return (MAIL_OCTETS + (0 if mail.sender == NULL else mail.sender.length)
            + (0 if mail.reply == NULL else mail.reply.length) + mail.recipient_octets)

cdef inline int64_t cost_of_text(const Text *text) noexcept nogil:
    return TEXT_OCTETS + text.length + (0 if text.certain else ADDRESS_OCTETS)

cdef inline void text_append(TextList *texts, Text *text) noexcept nogil:
    if texts.last == NULL:
        texts.first = text
    else:
        texts.last.next = text
    texts.last = text
    texts.count += 1

cdef inline Text *text_shift(TextList *texts) noexcept nogil:
    cdef Text *text = texts.first
    if text != NULL:
        texts.first = text.next
        text.next = NULL
        texts.count -= 1
        if texts.first == NULL:
            texts.last = NULL
    return text

cdef inline void mail_append(MailList *mails, Mail *mail) noexcept nogil:
    mail.next = NULL
    if mails.last == NULL:
        mails.first = mail
    else:
        mails.last.next = mail
    mails.last = mail
    mails.count += 1

cdef inline Mail *mail_shift(MailList *mails) noexcept nogil:
    cdef Mail *mail = mails.first
    if mail != NULL:
        mails.first = mail.next
        mail.next = NULL
        mails.count -= 1
        if mails.first == NULL:
            mails.last = NULL
    return mail
