# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Outstanding commands: a ring of verbs, each answered by one reply, in order (RFC 2920 3.1)."""

from libc.stdint cimport UINT16_MAX, uint16_t
from libc.string cimport memcpy

from nfmailguard.cext.memory.pool cimport pool_give, pool_take
from nfmailguard.cext.policy.findings cimport out_of_memory, report
from nfmailguard.cext.policy.numbers cimport COMMAND_TOO_MANY_OUTSTANDING
from nfmailguard.cext.policy.ruling cimport applies


cdef bint expect_one_more(Context *context, Exchange *exchange, uint8_t verb, uint64_t offset) noexcept nogil:
    cdef uint32_t size = ring_size(exchange), more, behind
    cdef uint8_t *larger
    if exchange.count >= context.policy.outstanding_commands:
        report(context, COMMAND_TOO_MANY_OUTSTANDING, True, verb, offset)
        if not applies(context.policy):
            read_no_more(exchange)
        return False
    more = size * 4 if size < UINT16_MAX // 4 else UINT16_MAX
    larger = <uint8_t *> pool_take(context.line_pool.pool, more, 0)
    if larger == NULL:
        out_of_memory(context, True, offset)
        return False
    # The old ring is full, since has_room was false: both its parts are copied, oldest command first.
    behind = size - exchange.first
    memcpy(larger, ring_of(exchange) + exchange.first, behind)
    memcpy(larger + behind, ring_of(exchange), exchange.first)
    pool_give(context.line_pool.pool, exchange.more, exchange.capacity)
    exchange.more = larger
    exchange.capacity = <uint16_t> more
    exchange.first = 0
    return expect_reply(context, exchange, verb, offset)


cdef uint8_t awaited_verb(Exchange *exchange) noexcept nogil:
    if not exchange.waiting:
        return VERB_UNKNOWN
    return ring_of(exchange)[(exchange.first + exchange.waiting - 1) % ring_size(exchange)] & ~UNTOLD


cdef void free_ring(Context *context, Exchange *exchange) noexcept nogil:
    pool_give(context.line_pool.pool, exchange.more, exchange.capacity)
    exchange.more = NULL
    exchange.capacity = 0
