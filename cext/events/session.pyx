# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is kept of flows until their mails are reported, by flow and by source, under a memory limit.

Promises: `octets` exceeds `memory` for a single flow only; where memory is short the flow idle longest is forgotten,
one of the same source if the source has more than is left free. No text is in two lists. Does not know SMTP.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from nfmailguard.cext.events.text cimport text_release

cdef extern from "bytes.h" nogil:
    uint64_t nm_siphash(const uint64_t *key, const uint8_t *data, size_t length)

cdef enum:
    FIRST_SIZE = 1024
    MOST_CHANGES = 20
    ENVELOPE = 4096                    # bytes that each flow may keep, whatever the others keep
    MOST_FREE = 4096                   # most sessions and mails, together, kept for reuse


cdef int sessions_open(Sessions *sessions, int64_t memory, const uint64_t *key) noexcept nogil:
    memset(sessions, 0, sizeof(Sessions))
    sessions.memory = memory
    sessions.key[0], sessions.key[1] = key[0], key[1]
    sessions.size = FIRST_SIZE
    sessions.buckets = <Session **> calloc(FIRST_SIZE, sizeof(Session *))
    sessions.source_buckets = <Source **> calloc(FIRST_SIZE, sizeof(Source *))
    return -1 if sessions.buckets == NULL or sessions.source_buckets == NULL else 0


cdef void sessions_close(Sessions *sessions) noexcept nogil:
    cdef Session *session
    cdef Mail *mail
    while sessions.stillest != NULL:
        session = sessions.stillest
        session_take_out(sessions, session)
        session_free(sessions, session)
    while sessions.free_sessions != NULL:
        session = sessions.free_sessions
        sessions.free_sessions = session.next_in_bucket
        free(session)
    while sessions.free_mails != NULL:
        mail = sessions.free_mails
        sessions.free_mails = mail.next
        free(mail)
    free(sessions.buckets)
    free(sessions.source_buckets)
    sessions.buckets = NULL
    sessions.source_buckets = NULL


cdef inline uint32_t bucket_of_flow(const Sessions *sessions, uint64_t flow_id) noexcept nogil:
    # Flow numbers are consecutive, so that no peer can choose a bucket: no keyed hash is needed.
    return <uint32_t> flow_id & (sessions.size - 1)


cdef inline uint32_t bucket_of_source(const Sessions *sessions, uint64_t key) noexcept nogil:
    return <uint32_t> nm_siphash(sessions.key, <const uint8_t *> &key, 8) & (sessions.size - 1)


cdef void grow(Sessions *sessions) noexcept nogil:
    """Doubles the hash tables; where there is no memory for that, the chains become longer instead."""
    cdef uint32_t i, bucket, before = sessions.size
    cdef Session **buckets = <Session **> calloc(2 * <size_t> before, sizeof(Session *))
    cdef Source **sources = <Source **> calloc(2 * <size_t> before, sizeof(Source *))
    cdef Session **old = sessions.buckets
    cdef Source **old_sources = sessions.source_buckets
    cdef Session *session
    cdef Source *source
    if buckets == NULL or sources == NULL:
        free(buckets)
        free(sources)
        return
    sessions.size = 2 * before
    for i in range(before):
        while old[i] != NULL:
            session = old[i]
            old[i] = session.next_in_bucket
            bucket = bucket_of_flow(sessions, session.flow_id)
            session.next_in_bucket = buckets[bucket]
            buckets[bucket] = session
        while old_sources[i] != NULL:
            source = old_sources[i]
            old_sources[i] = source.next_in_bucket
            bucket = bucket_of_source(sessions, source.key)
            source.next_in_bucket = sources[bucket]
            sources[bucket] = source
    free(old)
    free(old_sources)
    sessions.buckets, sessions.source_buckets = buckets, sources


cdef Session *session_find(Sessions *sessions, uint64_t flow_id) noexcept nogil:
    cdef Session *session = sessions.buckets[bucket_of_flow(sessions, flow_id)]
    while session != NULL and session.flow_id != flow_id:
        session = session.next_in_bucket
    return session


cdef Source *source_of_client(Sessions *sessions, uint8_t family, const uint8_t *client) noexcept nogil:
    """The source with this client address, created if new. NULL: out of memory."""
    cdef uint64_t key = 0
    cdef uint32_t bucket
    cdef Source *source
    # IPv6 clients are counted by their /64 (RFC 4291 2.5.1), for one host has 2^64 addresses.
    memcpy(&key, client, 4 if family == 4 else 8)
    bucket = bucket_of_source(sessions, key)
    source = sessions.source_buckets[bucket]
    while source != NULL and (source.key != key or source.is_6 != (family != 4)):
        source = source.next_in_bucket
    if source == NULL:
        source = <Source *> calloc(1, sizeof(Source))
        if source != NULL:
            source.key = key
            source.is_6 = family != 4
            source.next_in_bucket = sessions.source_buckets[bucket]
            sessions.source_buckets[bucket] = source
    return source


cdef void source_forget(Sessions *sessions, Source *source) noexcept nogil:
    cdef Source **at = &sessions.source_buckets[bucket_of_source(sessions, source.key)]
    while at[0] != source:
        at = &at[0].next_in_bucket
    at[0] = source.next_in_bucket
    free(source)


cdef inline void be_latest(Sessions *sessions, Session *session) noexcept nogil:
    cdef Source *source = session.source
    session.later, session.stiller = NULL, sessions.latest
    if sessions.latest != NULL:
        sessions.latest.later = session
    else:
        sessions.stillest = session
    sessions.latest = session
    session.later_of_source, session.stiller_of_source = NULL, source.latest
    if source.latest != NULL:
        source.latest.later_of_source = session
    else:
        source.stillest = session
    source.latest = session


cdef inline void leave_lists(Sessions *sessions, Session *session) noexcept nogil:
    cdef Source *source = session.source
    if session.stiller != NULL:
        session.stiller.later = session.later
    else:
        sessions.stillest = session.later
    if session.later != NULL:
        session.later.stiller = session.stiller
    else:
        sessions.latest = session.stiller
    if session.stiller_of_source != NULL:
        session.stiller_of_source.later_of_source = session.later_of_source
    else:
        source.stillest = session.later_of_source
    if session.later_of_source != NULL:
        session.later_of_source.stiller_of_source = session.stiller_of_source
    else:
        source.latest = session.stiller_of_source


cdef Session *session_begin(Sessions *sessions, uint64_t flow_id, uint8_t family, const uint8_t *client) noexcept nogil:
    cdef Session *session = sessions.free_sessions
    cdef Source *source = source_of_client(sessions, family, client)
    cdef uint32_t bucket
    if session != NULL:
        sessions.free_sessions = session.next_in_bucket
        sessions.free_count -= 1
    else:
        session = <Session *> malloc(sizeof(Session))
    if session == NULL or source == NULL:
        free(session)
        if source != NULL and source.flows == 0:
            source_forget(sessions, source)
        sessions.forgotten += 1
        return NULL
    memset(session, 0, sizeof(Session))
    session.flow_id = flow_id
    session.source = source
    source.flows += 1
    sessions.count += 1
    if sessions.count > sessions.size:
        grow(sessions)
    bucket = bucket_of_flow(sessions, flow_id)
    session.next_in_bucket = sessions.buckets[bucket]
    sessions.buckets[bucket] = session
    be_latest(sessions, session)
    session_charge(sessions, session, FLOW_OCTETS)
    return session


cdef void session_charge(Sessions *sessions, Session *session, int64_t octets) noexcept nogil:
    session.octets += octets
    session.source.octets += octets
    sessions.octets += octets


cdef void session_take_out(Sessions *sessions, Session *session) noexcept nogil:
    cdef Session **at = &sessions.buckets[bucket_of_flow(sessions, session.flow_id)]
    cdef Source *source = session.source
    while at[0] != session:
        at = &at[0].next_in_bucket
    at[0] = session.next_in_bucket
    leave_lists(sessions, session)
    sessions.count -= 1
    sessions.octets -= session.octets
    source.octets -= session.octets
    source.flows -= 1
    if source.flows == 0:
        source_forget(sessions, source)
    session.source = NULL


cdef void session_free(Sessions *sessions, Session *session) noexcept nogil:
    text_release(session.helo)
    while session.hellos.first != NULL:
        text_release(text_shift(&session.hellos))
    while session.recipients.first != NULL:
        text_release(text_shift(&session.recipients))
    while session.mails.first != NULL:
        mail_free(sessions, mail_shift(&session.mails))
    if session.mail != NULL:
        mail_free(sessions, session.mail)
    if sessions.free_count >= MOST_FREE:
        free(session)
        return
    sessions.free_count += 1
    session.next_in_bucket = sessions.free_sessions
    sessions.free_sessions = session


cdef void session_settle(Sessions *sessions, Session *session) noexcept nogil:
    cdef Source *source = session.source
    cdef Session *least
    cdef bint own
    if sessions.latest != session or source.latest != session:
        leave_lists(sessions, session)
        be_latest(sessions, session)
    while sessions.octets > sessions.memory and sessions.count > 1:
        # A source that uses more than it leaves free loses its own idle flows; the mails of others go on.
        own = source.octets > sessions.memory - source.octets and source.flows > 1
        least = source.stillest if own else sessions.stillest
        session_take_out(sessions, least)
        session_free(sessions, least)
        sessions.forgotten += 1


cdef bint session_may_keep(const Sessions *sessions, const Session *session, int64_t octets) noexcept nogil:
    cdef int64_t left = sessions.memory - sessions.octets
    if session.octets + octets <= ENVELOPE:
        return True
    return session.octets + octets <= left and session.source.octets + octets <= left


cdef Mail *mail_made(Sessions *sessions) noexcept nogil:
    cdef Mail *mail = sessions.free_mails
    if mail != NULL:
        sessions.free_mails = mail.next
        sessions.free_count -= 1
    else:
        mail = <Mail *> malloc(sizeof(Mail))
        if mail == NULL:
            return NULL
    # `change` need not be cleared: only its first `changes` entries are read
    memset(mail, 0, sizeof(Mail) - MOST_FINDINGS)
    return mail


cdef void mail_free(Sessions *sessions, Mail *mail) noexcept nogil:
    cdef Text *text = mail.first_recipient
    cdef Text *following
    while text != NULL:
        following = text.next
        text_release(text)
        text = following
    text_release(mail.helo)
    text_release(mail.sender)
    text_release(mail.reply)
    if sessions.free_count >= MOST_FREE:
        free(mail)
        return
    sessions.free_count += 1
    mail.next = sessions.free_mails
    sessions.free_mails = mail


cdef void mail_add_changed(Mail *mail, uint64_t found) noexcept nogil:
    cdef uint8_t number = 0
    found &= ~mail.changed
    while found and mail.changes < MOST_CHANGES:
        while not found >> number & 1:
            number += 1
        found &= found - 1
        mail.changed |= 1ULL << number
        mail.change[mail.changes] = number
        mail.changes += 1


cdef void mail_merge_changed(Mail *mail, const Mail *other) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t number
    for i in range(other.changes):
        number = other.change[i]
        if not mail.changed >> number & 1:
            mail.changed |= 1ULL << number
            mail.change[mail.changes] = number
            mail.changes += 1
