# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Streams: the bytes of one direction, exactly as they were forwarded.

Keeps invariant 2 (delivered is decided): forwarded bytes are kept until the receiver acknowledges them, and overwrite
any retransmission of them; so do bytes that were forwarded ahead of a gap. Does not know SMTP, nor which verdict a
packet gets.
"""

from libc.string cimport memcpy, memset

from nfmailguard.cext.memory.pagebuffer cimport pagebuffer_append, pagebuffer_compare, pagebuffer_drop, pagebuffer_span
from nfmailguard.cext.memory.pool cimport PAGE_BYTES, pool_give, pool_note_taken, pool_take


cdef Backlog *take_backlog(Stream *stream, Pool *pool) noexcept nogil:
    """The stream's backlog, allocated if it has none; NULL without memory."""
    if stream.backlog == NULL:
        stream.backlog = <Backlog *> pool_take(pool, sizeof(Backlog), 0)
        if stream.backlog != NULL:
            memset(stream.backlog, 0, sizeof(Backlog))
    return stream.backlog


cdef void free_backlog(Stream *stream, Pool *pool) noexcept nogil:
    """Frees the stream's backlog if nothing is in it."""
    cdef Backlog *backlog = stream.backlog
    if backlog != NULL and backlog.edits == NULL and backlog.buffered == NULL and backlog.held == NULL:
        pool_give(pool, backlog, sizeof(Backlog))
        stream.backlog = NULL


cdef int stream_keep(Stream *stream, Pool *pool, const uint8_t *data, uint32_t length) noexcept nogil:
    if pagebuffer_append(&stream.unacked, pool, data, length, 0) < 0:
        return -1
    stream.next_seq += length
    stream.bytes += length
    return 0


cdef void stream_note_edit(Stream *stream, Pool *pool, const uint8_t *original, const uint8_t *data,
                           uint32_t length) noexcept nogil:
    cdef uint32_t first = 0
    cdef Edit *edit
    cdef Backlog *backlog
    if stream.backlog != NULL and stream.backlog.edit_count == MOST_EDITS:
        return
    while first < length and original[first] == data[first]:
        first += 1
    while length > first and original[length - 1] == data[length - 1]:
        length -= 1
    if first == length:
        return
    backlog = take_backlog(stream, pool)
    if backlog == NULL:
        return
    edit = <Edit *> pool_take(pool, sizeof(Edit) + length - first, stream.unacked.length)
    if edit == NULL:
        free_backlog(stream, pool)
        return
    edit.next = NULL
    edit.seq = stream.next_seq + first
    edit.length = length - first
    memcpy(edit + 1, original + first, length - first)
    if backlog.last_edit != NULL:
        backlog.last_edit.next = edit
    else:
        backlog.edits = edit
    backlog.last_edit = edit
    backlog.edit_count += 1


cdef void forget_edits(Stream *stream, Pool *pool, uint32_t ack) noexcept nogil:
    cdef Backlog *backlog = stream.backlog
    cdef Edit *edit = backlog.edits
    while edit != NULL and nm_seq_diff(edit.seq + edit.length, ack) <= 0:
        backlog.edits = edit.next
        backlog.edit_count -= 1
        pool_give(pool, edit, sizeof(Edit) + edit.length)
        edit = backlog.edits
    if edit == NULL:
        backlog.last_edit = NULL
        free_backlog(stream, pool)


cdef void stream_acknowledge(Stream *stream, Pool *pool, uint32_t ack) noexcept nogil:
    pool_note_taken(pool, ack - stream.last_ack)
    pagebuffer_drop(&stream.unacked, pool, ack - stream.last_ack)
    stream.last_ack = ack
    if stream.backlog != NULL and stream.backlog.edits != NULL:
        forget_edits(stream, pool, ack)


cdef bint equals_forwarded(Stream *stream, uint32_t at, const uint8_t *data, uint32_t length) noexcept nogil:
    """Whether retransmitted bytes equal those kept from offset ``at`` on or, where these were edited, the sender's
    original bytes."""
    cdef Edit *edit = stream.backlog.edits if stream.backlog != NULL else NULL
    cdef uint32_t i = 0, part, j
    cdef uint32_t seq = stream.last_ack + at
    cdef const uint8_t *kept
    while i < length:
        part = length - i
        kept = pagebuffer_span(&stream.unacked, at + i, &part)
        for j in range(part):
            if data[i + j] == kept[j]:
                continue
            while edit != NULL and nm_seq_diff(edit.seq + edit.length, seq + i + j) <= 0:
                edit = edit.next
            if (edit == NULL or nm_seq_diff(edit.seq, seq + i + j) > 0
                    or (<const uint8_t *> (edit + 1))[seq + i + j - edit.seq] != data[i + j]):
                return False
        i += part
    return True


cdef uint32_t stream_overwrite_with_first_copy(Stream *stream, uint32_t seq, uint8_t *data, uint32_t length, bint write,
                                               bint *conflict) noexcept nogil:
    """Overwrites retransmitted bytes with the first copy. Bytes that the receiver has acknowledged are no longer kept:
    they become NULs, for the receiver discards them.

    ``conflict`` is set when other bytes differ both from those that were forwarded and from those that the sender first
    sent. Nothing is written unless ``write``.
    """
    cdef int32_t before = nm_seq_diff(stream.last_ack, seq)
    cdef uint32_t at = 0, offset = 0, changed
    conflict[0] = 0
    if before > 0:
        at = <uint32_t> before if <uint32_t> before < length else length
        if write:
            memset(data, 0, at)
    else:
        offset = 0 - <uint32_t> before
    changed = at
    if at == length or offset >= stream.unacked.length:
        return changed
    if length - at > stream.unacked.length - offset:
        length = at + (stream.unacked.length - offset)
    if pagebuffer_compare(&stream.unacked, offset, data + at, length - at, False):
        conflict[0] = not equals_forwarded(stream, offset, data + at, length - at)
        changed += pagebuffer_compare(&stream.unacked, offset, data + at, length - at, write)
    return changed


cdef uint32_t stream_overwrite_with_buffered(Stream *stream, uint32_t seq, uint8_t *data, uint32_t length,
                                             bint write) noexcept nogil:
    cdef OutOfOrder *buffered = stream_buffered(stream)
    cdef uint32_t changed = 0
    cdef int32_t start, stop
    if buffered == NULL or nm_seq_diff(seq, buffered_end(stream.backlog.farthest)) >= 0:
        return 0
    while buffered != NULL and nm_seq_diff(buffered.seq, seq + length) < 0:
        start = nm_seq_diff(buffered.seq, seq)
        stop = nm_seq_diff(buffered_end(buffered), seq)
        if stop > <int32_t> length:
            stop = <int32_t> length
        if stop > 0 and stop > start:
            if start < 0:
                changed += pagebuffer_compare(&buffered.data, <uint32_t> -start, data, <uint32_t> stop, write)
            else:
                changed += pagebuffer_compare(&buffered.data, 0, data + start, <uint32_t> (stop - start), write)
        buffered = buffered.next
    return changed


cdef OutOfOrder *new_buffered(Stream *stream, Pool *pool, OutOfOrder *before, uint32_t seq) noexcept nogil:
    cdef Backlog *backlog = take_backlog(stream, pool)
    cdef OutOfOrder *buffered
    if backlog == NULL:
        return NULL
    buffered = <OutOfOrder *> pool_take(pool, sizeof(OutOfOrder), <uint64_t> backlog.buffered_count * PAGE_BYTES)
    if buffered == NULL:
        free_backlog(stream, pool)
        return NULL
    memset(buffered, 0, sizeof(OutOfOrder))
    buffered.seq = seq
    if before == NULL:
        buffered.next = backlog.buffered
        backlog.buffered = buffered
    else:
        buffered.next = before.next
        before.next = buffered
    if buffered.next == NULL:
        backlog.farthest = buffered
    backlog.buffered_count += 1
    return buffered


cdef void free_buffered(Stream *stream, Pool *pool) noexcept nogil:
    # Frees the stream's first OutOfOrder.
    cdef Backlog *backlog = stream.backlog
    cdef OutOfOrder *buffered = backlog.buffered
    pagebuffer_drop(&buffered.data, pool, buffered.data.length)
    backlog.buffered = buffered.next
    if backlog.buffered == NULL:
        backlog.farthest = NULL
    backlog.buffered_count -= 1
    pool_give(pool, buffered, sizeof(OutOfOrder))
    free_backlog(stream, pool)


cdef int stream_buffer(Stream *stream, Pool *pool, uint32_t seq, const uint8_t *data, uint32_t length) noexcept nogil:
    """On -1 a part of the bytes may be remembered already; as the first copy, it stands when the sender sends them
    again."""
    cdef OutOfOrder *before = NULL
    cdef OutOfOrder *buffered
    cdef uint32_t part
    cdef int32_t known
    buffered = stream_buffered(stream)
    if buffered != NULL and nm_seq_diff(seq, stream.backlog.farthest.seq) >= 0:
        before = stream.backlog.farthest             # the usual case: it follows the last segment forwarded ahead
    else:
        while buffered != NULL and nm_seq_diff(buffered.seq, seq) <= 0:
            before = buffered
            buffered = buffered.next
    while length:
        if before != NULL:
            known = nm_seq_diff(buffered_end(before), seq)
            if known > 0:
                part = <uint32_t> known if <uint32_t> known < length else length
                seq += part
                data += part
                length -= part
                if length == 0:
                    return 0
        buffered = before.next if before != NULL else stream_buffered(stream)
        part = length
        if buffered != NULL and nm_seq_diff(buffered.seq, seq + length) < 0:
            part = buffered.seq - seq
        if part:
            if before == NULL or buffered_end(before) != seq:
                before = new_buffered(stream, pool, before, seq)
                if before == NULL:
                    return -1
            if pagebuffer_append(&before.data, pool, data, part,
                                 <uint64_t> stream.backlog.buffered_count * PAGE_BYTES) < 0:
                return -1
        seq += part
        data += part
        length -= part
        if length:
            before = buffered
    return 0


cdef void stream_consume(Stream *stream, Pool *pool, uint32_t length) noexcept nogil:
    cdef OutOfOrder *buffered = stream.backlog.buffered
    if length >= buffered.data.length:
        free_buffered(stream, pool)
    else:
        pagebuffer_drop(&buffered.data, pool, length)
        buffered.seq += length


cdef Held *stream_hold(Stream *stream, Pool *pool, Packet *packet, uint64_t now) noexcept nogil:
    cdef Backlog *backlog = take_backlog(stream, pool)
    cdef Held *held
    cdef Held **place
    if backlog == NULL:
        return NULL
    held = <Held *> pool_take(pool, sizeof(Held) + packet.length, <uint64_t> backlog.held_count * packet.length)
    if held == NULL:
        free_backlog(stream, pool)
        return NULL
    place = &backlog.held
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
    backlog.held_count += 1
    return held


cdef Held *stream_holding(Stream *stream, uint32_t seq, uint32_t length) noexcept nogil:
    cdef Held *held = stream_held(stream)
    while held != NULL:
        if nm_seq_diff(held.seq, seq + length) < 0 and nm_seq_diff(held.seq + held.payload_length, seq) > 0:
            return held
        held = held.next
    return NULL


cdef void stream_release(Stream *stream, Pool *pool, Held *held) noexcept nogil:
    cdef Held **place = &stream.backlog.held
    while place[0] != held:
        place = &place[0].next
    place[0] = held.next
    stream.backlog.held_count -= 1
    free_backlog(stream, pool)


cdef void held_free(Pool *pool, Held *held) noexcept nogil:
    pool_give(pool, held, sizeof(Held) + held.size)


cdef void stream_close(Stream *stream, Pool *pool) noexcept nogil:
    cdef Edit *last
    while stream_buffered(stream) != NULL:
        free_buffered(stream, pool)
    pagebuffer_drop(&stream.unacked, pool, stream.unacked.length)
    if stream.backlog != NULL:                       # an edit may be noted for bytes that were then never kept
        last = stream.backlog.last_edit
        forget_edits(stream, pool, last.seq + last.length)
