# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Limits event lines by a rate for all sources, and a share for each: `events.allowance` in C, with the same sums.

Promises: uses no memory besides its structure. Does not know what the lines say.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

cdef enum:
    NANOSECONDS = 1000000000
    SOURCE_BITS = 13                   # bits of a bucket's number: 2^13 is SOURCE_BUCKETS
    BURST = 10                         # seconds of the rate that may be written at once: a short burst is no flood
    FORGEABLE_PART = 8                 # an eighth of the rate is for lines that forged packets can cause

cdef uint64_t TELL = 10 * <uint64_t> NANOSECONDS


cdef inline uint32_t bucket_of(const uint64_t *key, uint64_t source) noexcept nogil:
    # Multiply-shift hashing (Dietzfelbinger and others 1997) with a secret key: nobody outside can choose sources that
    # share a bucket, and there are never many sources.
    return <uint32_t> ((source * (key[0] | 1) + key[1]) >> (64 - SOURCE_BITS))


cdef void rate_open(Rate *rate) noexcept nogil:
    memset(rate, 0, sizeof(Rate))
    rate.rate = UNLIMITED
    rate.scale = 1.0


cdef void rate_change(Rate *rate, int64_t octets) noexcept nogil:
    rate.rate = octets
    rate.most = 0.0 if octets < 0 else <double> (octets * BURST)


cdef void forget_place(Rate *rate, uint16_t place) noexcept nogil:
    cdef Used *used = &rate.sources[place]
    cdef uint16_t *at = &rate.bucket[used.bucket]
    while at[0] != place:
        at = &rate.sources[at[0]].next_in_bucket
    at[0] = used.next_in_bucket
    if used.earlier:
        rate.sources[used.earlier].later = used.later
    else:
        rate.earliest = used.later
    if used.later:
        rate.sources[used.later].earlier = used.earlier
    else:
        rate.latest = used.earlier
    used.next_in_bucket = rate.free_places
    rate.free_places = place
    rate.count -= 1


cdef void forget_all(Rate *rate) noexcept nogil:
    if rate.count > SOURCE_BUCKETS // 16:
        memset(rate.bucket, 0, sizeof(rate.bucket))
        rate.count = rate.earliest = rate.latest = rate.free_places = rate.touched = 0
    while rate.count:
        forget_place(rate, rate.earliest)


cdef void pay_off(Rate *rate, uint64_t now) noexcept nogil:
    cdef double left
    cdef uint16_t place
    if now <= rate.now:
        return
    left = rate.used - <double> (now - rate.now) / <double> NANOSECONDS * <double> rate.rate
    rate.now = now
    if left < 1:
        rate.used, rate.scale = 0.0, 1.0
        forget_all(rate)
        return
    rate.scale = rate.scale * (left / rate.used)
    rate.used = left
    if rate.scale < 1e-100:
        place = rate.earliest
        while place:
            rate.sources[place].octets = rate.sources[place].octets * rate.scale
            place = rate.sources[place].later
        rate.scale = 1.0


cdef void be_latest(Rate *rate, uint16_t place) noexcept nogil:
    cdef Used *used = &rate.sources[place]
    if rate.latest == place:
        return
    if used.earlier:
        rate.sources[used.earlier].later = used.later
    else:
        rate.earliest = used.later
    rate.sources[used.later].earlier = used.earlier
    used.earlier, used.later = rate.latest, 0
    rate.sources[rate.latest].later = place
    rate.latest = place


cdef uint16_t place_made(Rate *rate, uint32_t bucket, uint64_t source, bint is_6) noexcept nogil:
    """A place for a source that has none; where all are in use, the source asked about longest ago loses its place."""
    cdef uint16_t place
    if rate.count == MOST_SOURCES:
        forget_place(rate, rate.earliest)
    place = rate.free_places
    if place:
        rate.free_places = rate.sources[place].next_in_bucket
    else:
        rate.touched += 1
        place = rate.touched
    rate.count += 1
    rate.sources[place].key, rate.sources[place].is_6 = source, is_6
    rate.sources[place].bucket = <uint16_t> bucket
    rate.sources[place].next_in_bucket = rate.bucket[bucket]
    rate.bucket[bucket] = place
    rate.sources[place].earlier, rate.sources[place].later = rate.latest, 0
    if rate.latest:
        rate.sources[rate.latest].later = place
    else:
        rate.earliest = place
    rate.latest = place
    return place


cdef bint rate_takes(Rate *rate, uint64_t source, bint is_6, uint64_t octets, uint64_t now,
                     const uint64_t *key) noexcept nogil:
    cdef uint32_t bucket
    cdef uint16_t place
    cdef double used = 0.0
    cdef bint taken
    if rate.rate < 0:
        return True
    pay_off(rate, now)
    bucket = bucket_of(key, source)
    place = rate.bucket[bucket]
    while place and (rate.sources[place].key != source or rate.sources[place].is_6 != is_6):
        place = rate.sources[place].next_in_bucket
    if place:
        used = rate.sources[place].octets * rate.scale
    taken = used + <double> octets <= rate.most - rate.used
    if taken:
        rate.used = rate.used + <double> octets
        used = used + <double> octets
    if used == 0.0:
        if place:
            forget_place(rate, place)
        return taken
    if place:
        be_latest(rate, place)
    else:
        place = place_made(rate, bucket, source, is_6)
    rate.sources[place].octets = used / rate.scale
    return taken


cdef void allowance_open(Allowance *allowance, const uint64_t *key) noexcept nogil:
    memset(allowance, 0, sizeof(Allowance))
    allowance.key[0], allowance.key[1] = key[0], key[1]
    rate_open(&allowance.proven)
    rate_open(&allowance.forgeable)


cdef void allowance_change(Allowance *allowance, int64_t rate) noexcept nogil:
    cdef int64_t part = rate // FORGEABLE_PART
    rate_change(&allowance.proven, rate if rate < 0 else rate - part)
    rate_change(&allowance.forgeable, rate if rate < 0 else part)


cdef void withhold(Allowance *allowance, uint64_t source, uint8_t family, uint8_t kind) noexcept nogil:
    cdef uint32_t at = bucket_of(allowance.key, source)
    allowance.withheld[kind] += 1
    if allowance.untold[kind] == 0:
        allowance.order[allowance.kinds] = kind
        allowance.kinds += 1
    allowance.untold[kind] += 1
    if allowance.sources >= MOST_SOURCES:
        return
    while allowance.source_is[at] and (allowance.source_is[at] != family or allowance.source[at] != source):
        at = (at + 1) & (SOURCE_BUCKETS - 1)
    if not allowance.source_is[at]:
        allowance.source_is[at] = family
        allowance.source[at] = source
        allowance.sources += 1


cdef bint allowance_takes(Allowance *allowance, uint8_t family, const uint8_t *client, uint64_t octets, uint8_t kind,
                          uint64_t now, bint forgeable) noexcept nogil:
    cdef Rate *rate = &allowance.forgeable if forgeable else &allowance.proven
    cdef uint64_t source = 0
    # IPv6 clients are counted by their /64 (RFC 4291 2.5.1), for one host has 2^64 addresses.
    memcpy(&source, client, 4 if family == 4 else 8)
    if rate_takes(rate, source, family != 4, octets, now, allowance.key):
        return True
    withhold(allowance, source, family, kind)
    return False


cdef bint allowance_is_due(const Allowance *allowance, uint64_t now) noexcept nogil:
    return allowance.kinds != 0 and now >= allowance.reported + TELL


cdef void allowance_told(Allowance *allowance, uint64_t now) noexcept nogil:
    allowance.reported = now
    memset(allowance.untold, 0, sizeof(allowance.untold))
    allowance.kinds = 0
    if allowance.sources:
        memset(allowance.source_is, 0, sizeof(allowance.source_is))
    allowance.sources = 0
