# What flows have said so far, until their mails are told: events/transactions.py.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from nfmailguard.cext.events.ends cimport COMMUNITY_SIZE
from nfmailguard.cext.events.text cimport Text
from nfmailguard.cext.policy.numbers cimport MOST_FINDINGS
from nfmailguard.cext.record cimport Identity

cdef enum:
    MOST_PENDING_CHUNKS = 100
    # What the limit of memory counts, in octets: what the same takes as Python objects, so that both writers keep
    # and forget the same. A flow's state here takes less.
    FLOW_OCTETS = 1440
    MAIL_OCTETS = 410
    TEXT_OCTETS = 60           # of a string besides its characters
    ADDRESS_OCTETS = 80        # more, where an address is not certain

# One mail as the gateway saw it go by.
cdef struct Mail:
    Mail *next
    Text *helo
    Text *sender
    Text *reply                # the server's last word on it, code first
    Text *first_recipient
    Text *last_recipient
    uint64_t bytes             # of the message, without its end
    uint64_t omitted           # further recipients that were accepted, and are not kept
    uint64_t changed           # a bit a finding that changed or would have changed something in it
    uint32_t recipient_octets  # counted for them
    uint8_t recipients
    uint8_t uncertain
    uint8_t tls
    uint8_t auth
    uint8_t complete
    uint8_t changes
    uint8_t change[MOST_FINDINGS]  # the same findings in their order, `changes` of them

cdef struct MailList:
    Mail *first
    Mail *last
    uint32_t count

cdef struct TextList:
    Text *first
    Text *last
    uint32_t count

# Of those whose flows are kept: IPv4 addresses, and IPv6 /64s.
cdef struct Source:
    Source *next_in_bucket
    uint64_t key               # the address's first 8 octets
    uint8_t is_6
    uint32_t flows
    int64_t octets             # of their states
    Session *stillest          # of its flows, by when they were heard last
    Session *latest

cdef struct Session:
    uint64_t flow_id
    Session *next_in_bucket
    Session *stiller           # of all flows, and of the source's
    Session *later
    Session *stiller_of_source
    Session *later_of_source
    Source *source
    int64_t octets
    Text *helo
    # Commands the server has not answered, and how many more behind them.
    TextList hellos
    uint64_t more_hellos
    MailList mails
    uint64_t more_mails
    TextList recipients
    uint64_t more_recipients
    uint64_t chunks[2]         # of BDAT commands, the first in bit 0: whether each is the message's last
    uint8_t chunk_count
    uint8_t tls
    uint8_t auth
    uint8_t found              # there was a finding
    uint8_t has_community
    uint8_t speaks_of_none     # `spoken` is a mail that nobody will be told of
    Mail *spoken               # what the client's bytes belong to: ahead of the replies (RFC 2920)
    Mail *mail                 # what the server's replies belong to
    uint8_t community[COMMUNITY_SIZE]

# All flows whose mails are put together. `memory`: the most that `octets` may be.
cdef struct Sessions:
    int64_t memory
    int64_t octets
    uint64_t forgotten         # flows whose state was given up, and
    uint64_t omitted           # MAIL and RCPT commands that were only counted, for want of memory
    uint64_t key[2]            # of the hash of sources
    Session **buckets          # by flow, `size` of them, a power of two
    Source **source_buckets    # as many
    uint32_t size
    uint32_t count
    Session *stillest
    Session *latest
    Session *free_sessions     # to be used again, by next_in_bucket
    Mail *free_mails
    uint32_t free_count

cdef int sessions_open(Sessions *sessions, int64_t memory, const uint64_t *key) noexcept nogil
cdef void sessions_close(Sessions *sessions) noexcept nogil
cdef Session *session_find(Sessions *sessions, uint64_t flow_id) noexcept nogil
# A new one of a flow that has none; NULL: there is no memory, and it is counted as forgotten.
cdef Session *session_begin(Sessions *sessions, uint64_t flow_id, uint8_t family, const uint8_t *client) noexcept nogil
# It is in no list any more; its mails are the caller's with it.
cdef void session_take_out(Sessions *sessions, Session *session) noexcept nogil
cdef void session_free(Sessions *sessions, Session *session) noexcept nogil
# The flow has been heard; who gives way to what it takes now.
cdef void session_settle(Sessions *sessions, Session *session) noexcept nogil
# So many octets more are kept of it, or fewer.
cdef void session_charge(Sessions *sessions, Session *session, int64_t octets) noexcept nogil
# Whether so many more may be.
cdef bint session_may_keep(const Sessions *sessions, const Session *session, int64_t octets) noexcept nogil

cdef Mail *mail_made(Sessions *sessions) noexcept nogil    # NULL: there is no memory
cdef void mail_free(Sessions *sessions, Mail *mail) noexcept nogil

# `found`: bits of findings, by number; of those that are new the first MOST_CHANGES of a mail.
cdef void mail_add_changed(Mail *mail, uint64_t found) noexcept nogil
# What was found in `other` is in the mail, too.
cdef void mail_merge_changed(Mail *mail, const Mail *other) noexcept nogil

cdef inline void chunk_append(Session *session, bint last) noexcept nogil:
    session.chunks[session.chunk_count >> 6] |= <uint64_t> last << (session.chunk_count & 63)
    session.chunk_count += 1

cdef inline bint chunk_shift(Session *session) noexcept nogil:
    # Whether the first is the message's last.
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
