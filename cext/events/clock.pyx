# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Timestamps in local time with microseconds and offset, as `2026-11-24T16:20:00.000123+0000`. Does not know events."""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy
from libc.time cimport time_t, tm

from nfmailguard.cext.events.buffer cimport PAIRS, put_byte, put_bytes

cdef extern from "time.h" nogil:
    tm *localtime_r(const time_t *when, tm *local)
    size_t strftime(char *out, size_t most, const char *form, const tm *time)

cdef enum:
    NANOSECONDS = 1000000000


cdef void look_up(Second *second, uint64_t seconds) noexcept nogil:
    cdef time_t when = <time_t> seconds
    cdef tm local
    second.seconds = seconds + 1
    second.before_length = second.after_length = 0
    if localtime_r(&when, &local) == NULL:
        return
    second.before_length = <uint8_t> strftime(second.before, CLOCK_TEXT, b"%Y-%m-%dT%H:%M:%S", &local)
    second.after_length = <uint8_t> strftime(second.after, CLOCK_TEXT, b"%z", &local)


cdef void put_timestamp(Buffer *buffer, Clock *clock, uint64_t now) noexcept nogil:
    cdef uint64_t seconds = now // NANOSECONDS
    cdef uint32_t fraction = <uint32_t> (now % NANOSECONDS) // 1000
    cdef Second *second = &clock.second[seconds & (SECONDS_KEPT - 1)]
    cdef uint8_t *digits
    if second.seconds != seconds + 1:
        look_up(second, seconds)
    put_bytes(buffer, second.before, second.before_length)
    put_byte(buffer, b".")
    digits = buffer.data + buffer.length
    memcpy(digits, PAIRS + 2 * (fraction // 10000), 2)
    memcpy(digits + 2, PAIRS + 2 * (fraction // 100 % 100), 2)
    memcpy(digits + 4, PAIRS + 2 * (fraction % 100), 2)
    buffer.length += 6
    put_bytes(buffer, second.after, second.after_length)
