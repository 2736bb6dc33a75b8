# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Outstanding commands: a ring of verbs, each answered by one reply, in order (RFC 2920 3.1)."""

from libc.stdint cimport UINT16_MAX, uint16_t
from libc.string cimport memcpy

from nfmailguard.cext.memory.pool cimport pool_give, pool_take
from nfmailguard.cext.policy.findings cimport out_of_memory, report
from nfmailguard.cext.policy.numbers cimport COMMAND_TOO_MANY_OUTSTANDING
from nfmailguard.cext.smtp.grammar cimport INPUT_OPAQUE


cdef bint expect_one_more(Context *context, Dialogue *dialogue, uint8_t verb, uint64_t offset) noexcept nogil:
    cdef uint32_t size = ring_size(dialogue), more, behind
    cdef uint8_t *larger
    if dialogue.count >= context.policy.outstanding_commands:
        report(context, COMMAND_TOO_MANY_OUTSTANDING, True, verb, offset, NULL, 0, NULL, 0)
        if not context.policy.apply:
            dialogue.input = INPUT_OPAQUE
            dialogue.tls_checked = 1
        return False
    more = size * 4 if size < UINT16_MAX // 4 else UINT16_MAX
    larger = <uint8_t *> pool_take(context.dialogue_pool.pool, more, 0)
    if larger == NULL:
        out_of_memory(context, True, offset)
        return False
    # It was full, or it would have had room.
    behind = size - dialogue.first
    memcpy(larger, ring_of(dialogue) + dialogue.first, behind)
    memcpy(larger + behind, ring_of(dialogue), dialogue.first)
    pool_give(context.dialogue_pool.pool, dialogue.more, dialogue.capacity)
    dialogue.more = larger
    dialogue.capacity = <uint16_t> more
    dialogue.first = 0
    return expect_reply(context, dialogue, verb, offset)


cdef uint8_t awaited_verb(Dialogue *dialogue) noexcept nogil:
    if not dialogue.waiting:
        return VERB_UNKNOWN
    return ring_of(dialogue)[(dialogue.first + dialogue.waiting - 1) % ring_size(dialogue)] & ~UNTOLD


cdef void free_ring(Context *context, Dialogue *dialogue) noexcept nogil:
    pool_give(context.dialogue_pool.pool, dialogue.more, dialogue.capacity)
    dialogue.more = NULL
    dialogue.capacity = 0
