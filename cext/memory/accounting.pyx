# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Accounts: how much of the memory for streams each flow uses, and each source of flows.

Keeps invariant 6 (bounded): no flow or source uses more memory than it leaves free. Flows that use a page or more are
in a list, ordered by the time when their receivers last acknowledged a good part of what the flow keeps; flows that
have to give way are taken from the old end. Does not know what the memory is for.
"""

from libc.stdint cimport UINT32_MAX

from nfmailguard.cext.flow.sources cimport add_bytes, bytes_of
from nfmailguard.cext.flow.table cimport flow_source
from nfmailguard.cext.memory.pool cimport PAGE_BYTES
from nfmailguard.cext.smtp.dialogue cimport (
    dialogue_alloc, dialogue_free, dialogue_free_if_idle, dialogue_list, dialogue_unlist,
)

cdef enum:
    A_GOOD_PART = 4            # receivers make progress when they acknowledge a quarter of the memory the flow uses
    LISTED_LATE = 250000000    # nanoseconds: a flow moves to the young end of its list at most four times a second


cdef Dialogue *dialogue_of(Core *core, Flow *flow) noexcept nogil:
    if flow.dialogue == NULL:
        flow.dialogue = dialogue_alloc(&core.dialogue_pool, &flow.session, flow.policy.grammar)
        if flow.dialogue != NULL:
            flow.dialogue.flow = flow
    return flow.dialogue


cdef void update_share(Core *core, Flow *flow, uint64_t now) noexcept nogil:
    cdef Dialogue *dialogue = flow.dialogue
    if dialogue.account.charged != dialogue.account.bytes:
        add_bytes(&core.flows.shares, flow_source(&core.flows, flow), dialogue.account.bytes - dialogue.account.charged)
        dialogue.account.charged = dialogue.account.bytes
    if (dialogue.account.bytes >= PAGE_BYTES) != dialogue.account.listed:
        if dialogue.account.listed:
            dialogue_unlist(&core.dialogue_pool, dialogue)
        else:
            dialogue.account.since = now
            dialogue.account.taken = 0
            dialogue_list(&core.dialogue_pool, dialogue)


cdef inline void discharge(Core *core, Flow *flow, uint64_t charged) noexcept nogil:
    if charged:
        add_bytes(&core.flows.shares, flow_source(&core.flows, flow), 0 - charged)


cdef void free_idle_dialogue(Core *core, Flow *flow) noexcept nogil:
    cdef uint64_t charged = flow.dialogue.account.charged
    dialogue_free_if_idle(&core.dialogue_pool, &flow.session, &flow.dialogue)
    if flow.dialogue == NULL:
        discharge(core, flow, charged)


cdef void free_dialogue(Core *core, Flow *flow) noexcept nogil:
    if flow.dialogue != NULL:
        discharge(core, flow, flow.dialogue.account.charged)
    dialogue_free(&core.dialogue_pool, &flow.dialogue)


cdef void note_progress(Core *core, Flow *flow, uint64_t now) noexcept nogil:
    # Acknowledging single bytes is no progress, nor is what one direction acknowledges while the other one stalls.
    cdef Dialogue *dialogue = flow.dialogue
    cdef uint64_t taken = dialogue.account.taken + core.pool.taken
    dialogue.account.taken = <uint32_t> taken if taken < UINT32_MAX else UINT32_MAX
    if dialogue.account.taken >= dialogue.account.bytes // A_GOOD_PART and now - dialogue.account.since >= LISTED_LATE:
        dialogue_unlist(&core.dialogue_pool, dialogue)
        dialogue.account.since = now
        dialogue.account.taken = 0
        dialogue_list(&core.dialogue_pool, dialogue)


cdef bint within_shares(Core *core, Flow *flow, uint64_t need) noexcept nogil:
    """Whether as much memory stays free as the source uses plus what the flow will use (Choudhury and Hahne 1998)."""
    cdef uint64_t flow_has = flow.dialogue.account.bytes if flow.dialogue != NULL else 0
    return streams_have(&core.pool) + need + flow_has + need + bytes_of(
        &core.flows.shares, flow_source(&core.flows, flow)) <= core.pool.limit // 2


cdef uint64_t window_share(Core *core, Flow *flow) noexcept nogil:
    """How many bytes the flow may have in flight. Each of them needs three more bytes to stay free: two for the shares
    of the flow and its source (within_shares), one for what partly filled pages waste."""
    cdef Dialogue *dialogue = flow.dialogue
    cdef uint64_t own = dialogue.account.bytes if dialogue != NULL else 0
    cdef uint64_t charged = dialogue.account.charged if dialogue != NULL else 0
    cdef uint64_t others = streams_have(&core.pool) - own + bytes_of(
        &core.flows.shares, flow_source(&core.flows, flow)) - charged
    return (core.pool.limit // 2 - others) // 4 if others < core.pool.limit // 2 else 0
