# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Streams: what one side has said, exactly as it was let through.

Keeps invariant 2 (delivered is decided): octets that went out are kept until the
receiver acknowledges them and are put back over any retransmission; so are those
that went out ahead of a gap. Does not know SMTP, nor what becomes of a packet.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from nfmailguard.cext.pool cimport PAGE_OCTETS, pool_give, pool_take
from nfmailguard.cext.share cimport Source
from nfmailguard.cext.store cimport store_append, store_compare, store_drop, store_span


cdef Aside *put_aside(Stream *stream, Pool *pool) noexcept nogil:
    """The stream's, made when it has none; NULL without memory."""
    if stream.aside == NULL:
        stream.aside = <Aside *> pool_take(pool, sizeof(Aside), 0)
        if stream.aside != NULL:
            memset(stream.aside, 0, sizeof(Aside))
    return stream.aside


cdef void forget_aside(Stream *stream, Pool *pool) noexcept nogil:
    """What a stream remembers nothing in."""
    cdef Aside *aside = stream.aside
    if aside != NULL and aside.edits == NULL and aside.ahead == NULL and aside.held == NULL:
        pool_give(pool, aside, sizeof(Aside))
        stream.aside = NULL


cdef int stream_keep(Stream *stream, Pool *pool, const uint8_t *octets, uint32_t length) noexcept nogil:
    if store_append(&stream.kept, pool, octets, length, 0) < 0:
        return -1
    stream.next_seq += length
    stream.octets += length
    return 0


cdef void stream_note_edit(Stream *stream, Pool *pool, const uint8_t *came, const uint8_t *octets,
                           uint32_t length) noexcept nogil:
    cdef uint32_t first = 0
    cdef Edit *edit
    cdef Aside *aside
    if stream.aside != NULL and stream.aside.edit_count == MOST_EDITS:
        return
    while first < length and came[first] == octets[first]:
        first += 1
    while length > first and came[length - 1] == octets[length - 1]:
        length -= 1
    if first == length:
        return
    aside = put_aside(stream, pool)
    if aside == NULL:
        return
    edit = <Edit *> pool_take(pool, sizeof(Edit) + length - first, stream.kept.length)
    if edit == NULL:
        forget_aside(stream, pool)
        return
    edit.next = NULL
    edit.seq = stream.next_seq + first
    edit.length = length - first
    memcpy(edit + 1, came + first, length - first)
    if aside.last_edit != NULL:
        aside.last_edit.next = edit
    else:
        aside.edits = edit
    aside.last_edit = edit
    aside.edit_count += 1


cdef void forget_edits(Stream *stream, Pool *pool, uint32_t ack) noexcept nogil:
    cdef Aside *aside = stream.aside
    cdef Edit *edit = aside.edits
    while edit != NULL and nm_seq_diff(edit.seq + edit.length, ack) <= 0:
        aside.edits = edit.next
        aside.edit_count -= 1
        pool_give(pool, edit, sizeof(Edit) + edit.length)
        edit = aside.edits
    if edit == NULL:
        aside.last_edit = NULL
        forget_aside(stream, pool)


cdef void stream_acknowledge(Stream *stream, Pool *pool, uint32_t ack) noexcept nogil:
    pool.taken += ack - stream.kept_seq
    store_drop(&stream.kept, pool, ack - stream.kept_seq)
    stream.kept_seq = ack
    if stream.aside != NULL and stream.aside.edits != NULL:
        forget_edits(stream, pool, ack)


cdef bint as_they_came(Stream *stream, uint32_t at, const uint8_t *octets, uint32_t length) noexcept nogil:
    """Whether octets are those kept from ``at`` on, or what came where those were made of something else."""
    cdef Edit *edit = stream.aside.edits if stream.aside != NULL else NULL
    cdef uint32_t i = 0, part, j
    cdef uint32_t seq = stream.kept_seq + at
    cdef const uint8_t *kept
    while i < length:
        part = length - i
        kept = store_span(&stream.kept, at + i, &part)
        for j in range(part):
            if octets[i + j] == kept[j]:
                continue
            while edit != NULL and nm_seq_diff(edit.seq + edit.length, seq + i + j) <= 0:
                edit = edit.next
            if (edit == NULL or nm_seq_diff(edit.seq, seq + i + j) > 0
                    or (<const uint8_t *> (edit + 1))[seq + i + j - edit.seq] != octets[i + j]):
                return False
        i += part
    return True


cdef uint32_t stream_put_back(Stream *stream, uint32_t seq, uint8_t *octets, uint32_t length,
                              bint write, bint *conflict) noexcept nogil:
    """What the receiver has acknowledged is not kept any more: it is blanked, for the receiver discards it.

    ``conflict`` is set when they differ from what was kept and from what came before it was
    edited. Nothing is written unless ``write``.
    """
    cdef int32_t before = nm_seq_diff(stream.kept_seq, seq)
    cdef uint32_t at = 0, offset = 0, changed
    conflict[0] = 0
    if before > 0:
        at = <uint32_t> before if <uint32_t> before < length else length
        if write:
            memset(octets, 0, at)
    else:
        offset = 0 - <uint32_t> before
    changed = at
    if at == length or offset >= stream.kept.length:
        return changed
    if length - at > stream.kept.length - offset:
        length = at + (stream.kept.length - offset)
    if store_compare(&stream.kept, offset, octets + at, length - at, False):
        conflict[0] = not as_they_came(stream, offset, octets + at, length - at)
        changed += store_compare(&stream.kept, offset, octets + at, length - at, write)
    return changed


cdef uint32_t stream_put_ahead(Stream *stream, uint32_t seq, uint8_t *octets, uint32_t length,
                               bint write) noexcept nogil:
    cdef Ahead *ahead = stream_ahead(stream)
    cdef uint32_t changed = 0
    cdef int32_t start, stop
    if ahead == NULL or nm_seq_diff(seq, ahead_end(stream.aside.farthest)) >= 0:
        return 0
    while ahead != NULL and nm_seq_diff(ahead.seq, seq + length) < 0:
        start = nm_seq_diff(ahead.seq, seq)
        stop = nm_seq_diff(ahead_end(ahead), seq)
        if stop > <int32_t> length:
            stop = <int32_t> length
        if stop > 0 and stop > start:
            if start < 0:
                changed += store_compare(&ahead.octets, <uint32_t> -start, octets, <uint32_t> stop, write)
            else:
                changed += store_compare(&ahead.octets, 0, octets + start, <uint32_t> (stop - start), write)
        ahead = ahead.next
    return changed


cdef Ahead *new_ahead(Stream *stream, Pool *pool, Ahead *before, uint32_t seq) noexcept nogil:
    cdef Aside *aside = put_aside(stream, pool)
    cdef Ahead *ahead
    if aside == NULL:
        return NULL
    ahead = <Ahead *> pool_take(pool, sizeof(Ahead), <uint64_t> aside.ahead_count * PAGE_OCTETS)
    if ahead == NULL:
        forget_aside(stream, pool)
        return NULL
    memset(ahead, 0, sizeof(Ahead))
    ahead.seq = seq
    if before == NULL:
        ahead.next = aside.ahead
        aside.ahead = ahead
    else:
        ahead.next = before.next
        before.next = ahead
    if ahead.next == NULL:
        aside.farthest = ahead
    aside.ahead_count += 1
    return ahead


cdef void forget_ahead(Stream *stream, Pool *pool) noexcept nogil:
    # The first one.
    cdef Aside *aside = stream.aside
    cdef Ahead *ahead = aside.ahead
    store_drop(&ahead.octets, pool, ahead.octets.length)
    aside.ahead = ahead.next
    if aside.ahead == NULL:
        aside.farthest = NULL
    aside.ahead_count -= 1
    pool_give(pool, ahead, sizeof(Ahead))
    forget_aside(stream, pool)


cdef int stream_go_ahead(Stream *stream, Pool *pool, uint32_t seq, const uint8_t *octets,
                         uint32_t length) noexcept nogil:
    """On -1 a part may be remembered already; first seen, it stands when the sender repeats it."""
    cdef Ahead *before = NULL
    cdef Ahead *ahead
    cdef uint32_t part
    cdef int32_t known
    ahead = stream_ahead(stream)
    if ahead != NULL and nm_seq_diff(seq, stream.aside.farthest.seq) >= 0:
        before = stream.aside.farthest             # in order behind the gap, as nearly always
    else:
        while ahead != NULL and nm_seq_diff(ahead.seq, seq) <= 0:
            before = ahead
            ahead = ahead.next
    while length:
        if before != NULL:
            known = nm_seq_diff(ahead_end(before), seq)
            if known > 0:
                part = <uint32_t> known if <uint32_t> known < length else length
                seq += part
                octets += part
                length -= part
                if length == 0:
                    return 0
        ahead = before.next if before != NULL else stream_ahead(stream)
        part = length
        if ahead != NULL and nm_seq_diff(ahead.seq, seq + length) < 0:
            part = ahead.seq - seq
        if part:
            if before == NULL or ahead_end(before) != seq:
                before = new_ahead(stream, pool, before, seq)
                if before == NULL:
                    return -1
            if store_append(&before.octets, pool, octets, part, <uint64_t> stream.aside.ahead_count * PAGE_OCTETS) < 0:
                return -1
        seq += part
        octets += part
        length -= part
        if length:
            before = ahead
    return 0


cdef void stream_caught_up(Stream *stream, Pool *pool, uint32_t length) noexcept nogil:
    cdef Ahead *ahead = stream.aside.ahead
    if length >= ahead.octets.length:
        forget_ahead(stream, pool)
    else:
        store_drop(&ahead.octets, pool, length)
        ahead.seq += length


cdef Held *stream_hold(Stream *stream, Pool *pool, Packet *packet, uint64_t now) noexcept nogil:
    cdef Aside *aside = put_aside(stream, pool)
    cdef Held *held
    cdef Held **place
    if aside == NULL:
        return NULL
    held = <Held *> pool_take(pool, sizeof(Held) + packet.length, <uint64_t> aside.held_count * packet.length)
    if held == NULL:
        forget_aside(stream, pool)
        return NULL
    place = &aside.held
    held.queued = packet.queued[0]
    held.queued.data = <uint8_t *> (held + 1)
    held.queued.captured = held.queued.length = held.size = packet.length
    memcpy(held.queued.data, packet.ip, packet.length)
    held.arrived = now
    held.seq = packet.seq
    held.payload_at = <uint32_t> (packet.payload - packet.ip)
    held.payload_length = packet.payload_length
    memset(&held.source, 0, sizeof(Source))
    held.cleared = 0
    while place[0] != NULL and nm_seq_diff(place[0].seq, packet.seq) <= 0:
        place = &place[0].next
    held.next = place[0]
    place[0] = held
    aside.held_count += 1
    return held


cdef Held *stream_holding(Stream *stream, uint32_t seq, uint32_t length) noexcept nogil:
    cdef Held *held = stream_held(stream)
    while held != NULL:
        if nm_seq_diff(held.seq, seq + length) < 0 and nm_seq_diff(held.seq + held.payload_length, seq) > 0:
            return held
        held = held.next
    return NULL


cdef void stream_release(Stream *stream, Pool *pool, Held *held) noexcept nogil:
    cdef Held **place = &stream.aside.held
    while place[0] != held:
        place = &place[0].next
    place[0] = held.next
    stream.aside.held_count -= 1
    forget_aside(stream, pool)


cdef void held_free(Pool *pool, Held *held) noexcept nogil:
    pool_give(pool, held, sizeof(Held) + held.size)


cdef void stream_close(Stream *stream, Pool *pool) noexcept nogil:
    cdef Edit *last
    while stream_ahead(stream) != NULL:
        forget_ahead(stream, pool)
    store_drop(&stream.kept, pool, stream.kept.length)
    if stream.aside != NULL:                       # the last edit's octets may never have been kept
        last = stream.aside.last_edit
        forget_edits(stream, pool, last.seq + last.length)
