# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Streams: what one side has said, exactly as it was let through.

Keeps invariant 2 (delivered is decided): octets that went out are kept until the
receiver acknowledges them and are put back over any retransmission. Keeps
invariant 6: every octet here is counted against one cap. Does not know SMTP, nor
what becomes of a segment.
"""

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from nfmailguard.cext.packet cimport nm_seq_diff


cdef Page *take_page(Pool *pool) noexcept nogil:
    cdef Page *page = pool.free
    if pool.used + sizeof(Page) > pool.limit:
        return NULL
    if page != NULL:
        pool.free = page.next
    else:
        page = <Page *> malloc(sizeof(Page))
        if page == NULL:
            return NULL
    page.next = NULL
    pool.used += sizeof(Page)
    return page


cdef void give_page(Pool *pool, Page *page) noexcept nogil:
    page.next = pool.free
    pool.free = page
    pool.used -= sizeof(Page)


cdef int stream_keep(Stream *stream, Pool *pool, const uint8_t *octets, uint32_t length) noexcept nogil:
    """Appends what was decided to the store and moves ``next_seq``; -1 when memory runs out.

    On -1 nothing has moved, though pages taken on the way stay with the stream.
    """
    cdef uint32_t kept = stream.next_seq - stream.kept_seq
    cdef uint32_t end = stream.first_offset + kept
    cdef uint32_t room, part, at = 0
    cdef Page *page
    if stream.first == NULL:
        stream.first = stream.last = take_page(pool)
        if stream.first == NULL:
            return -1
        stream.first_offset = 0
        end = 0
    # The room left in the last page; a page that is exactly full has none.
    room = (PAGE_OCTETS - end % PAGE_OCTETS) if end % PAGE_OCTETS or end == 0 else 0
    page = stream.last
    while at < length:
        if room == 0:
            page.next = take_page(pool)
            if page.next == NULL:
                stream_drop_pages(stream, pool)
                return -1
            page = page.next
            room = PAGE_OCTETS
        part = length - at if length - at < room else room
        memcpy(page.data + (PAGE_OCTETS - room), octets + at, part)
        at += part
        room -= part
    stream.last = page
    stream.next_seq += length
    stream.octets += length
    return 0


cdef void stream_drop_pages(Stream *stream, Pool *pool) noexcept nogil:
    # Gives back the pages behind `last`, taken for an append that did not succeed.
    cdef Page *page = stream.last.next
    cdef Page *after
    stream.last.next = NULL
    while page != NULL:
        after = page.next
        give_page(pool, page)
        page = after


cdef void stream_acknowledge(Stream *stream, Pool *pool, uint32_t ack) noexcept nogil:
    """Lets go of what lies before ``ack``; the caller has checked kept_seq <= ack <= next_seq."""
    cdef uint32_t offset
    cdef Page *page
    if stream.first == NULL:
        stream.kept_seq = ack
        return
    offset = stream.first_offset + (ack - stream.kept_seq)
    stream.kept_seq = ack
    while stream.first != NULL and (offset >= PAGE_OCTETS or ack == stream.next_seq):
        page = stream.first
        stream.first = page.next
        give_page(pool, page)
        if offset >= PAGE_OCTETS:
            offset -= PAGE_OCTETS
        elif stream.first == NULL:
            offset = 0
    stream.first_offset = <uint16_t> offset
    if stream.first == NULL:
        stream.last = NULL
        stream.first_offset = 0


cdef uint32_t stream_put_back(Stream *stream, uint32_t seq, uint8_t *octets, uint32_t length,
                              bint write, bint *conflict) noexcept nogil:
    """Puts the first-seen octets over a retransmission at ``octets``; how many octets differed.

    What the receiver has acknowledged is not kept any more: it is blanked, for the
    receiver discards it. ``conflict`` is set when kept octets differed. Nothing is
    written unless ``write``.
    """
    cdef int32_t before = nm_seq_diff(stream.kept_seq, seq)
    cdef uint32_t changed = 0, part, offset, at = 0, kept = stream.next_seq - stream.kept_seq
    cdef Page *page = stream.first
    conflict[0] = 0
    if before > 0:
        at = <uint32_t> before if <uint32_t> before < length else length
        if write:
            memset(octets, 0, at)
        changed = at
        offset = 0
    else:
        offset = <uint32_t> -before
    if at == length or offset >= kept:
        return changed
    if length - at > kept - offset:
        length = at + (kept - offset)
    offset += stream.first_offset
    while page != NULL and offset >= PAGE_OCTETS:
        page = page.next
        offset -= PAGE_OCTETS
    while page != NULL and at < length:
        part = length - at if length - at < PAGE_OCTETS - offset else PAGE_OCTETS - offset
        if memcmp(octets + at, page.data + offset, part) != 0:
            conflict[0] = 1
            changed += part
            if write:
                memcpy(octets + at, page.data + offset, part)
        at += part
        offset = 0
        page = page.next
    return changed


cdef Segment *stream_remember(Stream *stream, Pool *pool, Packet *packet, uint64_t now, bint gone) noexcept nogil:
    """Copies ``packet`` into the list of pending segments; NULL when memory runs out."""
    cdef uint64_t size = sizeof(Segment) + packet.length
    cdef Segment *segment
    cdef Segment **place = &stream.pending
    if pool.used + size > pool.limit:
        return NULL
    segment = <Segment *> malloc(size)
    if segment == NULL:
        return NULL
    pool.used += size
    segment.queued = packet.queued[0]
    segment.queued.data = <uint8_t *> (segment + 1)
    segment.queued.captured = segment.queued.length = segment.size = packet.length
    memcpy(segment.queued.data, packet.ip, packet.length)
    segment.arrived = now
    segment.seq = packet.seq
    segment.payload_at = <uint32_t> (packet.payload - packet.ip)
    segment.payload_length = packet.payload_length
    segment.gone = gone
    while place[0] != NULL and nm_seq_diff(place[0].seq, packet.seq) <= 0:
        place = &place[0].next
    segment.next = place[0]
    place[0] = segment
    stream.pending_count += 1
    return segment


cdef Segment *stream_overlapping(Stream *stream, uint32_t seq, uint32_t length) noexcept nogil:
    """The first pending segment that shares an octet with [seq, seq + length), or NULL."""
    cdef Segment *segment = stream.pending
    while segment != NULL:
        if (nm_seq_diff(segment.seq, seq + length) < 0
                and nm_seq_diff(segment.seq + segment.payload_length, seq) > 0):
            return segment
        segment = segment.next
    return NULL


cdef void stream_take_out(Stream *stream, Segment *segment) noexcept nogil:
    """Takes ``segment`` out of the list of pending ones; its memory is the caller's now."""
    cdef Segment **place = &stream.pending
    while place[0] != NULL and place[0] != segment:
        place = &place[0].next
    if place[0] != NULL:
        place[0] = segment.next
        stream.pending_count -= 1


cdef void segment_free(Pool *pool, Segment *segment) noexcept nogil:
    pool.used -= sizeof(Segment) + segment.size
    free(segment)


cdef void stream_forget(Stream *stream, Pool *pool, Segment *segment) noexcept nogil:
    """Takes ``segment`` out and frees it; its queued id must have been answered."""
    stream_take_out(stream, segment)
    segment_free(pool, segment)


cdef void stream_close(Stream *stream, Pool *pool) noexcept nogil:
    """Gives back everything; pending ids must have been answered."""
    cdef Page *page
    while stream.pending != NULL:
        stream_forget(stream, pool, stream.pending)
    while stream.first != NULL:
        page = stream.first
        stream.first = page.next
        give_page(pool, page)
    stream.last = NULL


cdef void pool_close(Pool *pool) noexcept nogil:
    """Frees the pages nobody uses; called last."""
    cdef Page *page
    while pool.free != NULL:
        page = pool.free
        pool.free = page.next
        free(page)
