# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Accounts: what each flow, and each source, has of the streams' memory.

Keeps invariant 6 (bounded): nobody has more than he leaves free. A flow that has a page or
more stands in one list, by when its receivers have last taken a good part of what it has:
whoever is to give way stands at its old end. Does not know what the memory is for.
"""

from libc.stdint cimport UINT32_MAX

from nfmailguard.cext.flow.sources cimport add_bytes, bytes_of
from nfmailguard.cext.flow.table cimport flow_source
from nfmailguard.cext.memory.pool cimport PAGE_BYTES
from nfmailguard.cext.smtp.dialogue cimport (
    dialogue_alloc, dialogue_free, dialogue_free_if_idle, dialogue_list, dialogue_unlist,
)

cdef enum:
    A_GOOD_PART = 4            # of what a flow has, one part in so many
    LISTED_LATE = 250000000    # ns: a flow moves to the young end at most four times a second


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
    # Not of single bytes, nor of one direction while the other one takes nothing.
    cdef Dialogue *dialogue = flow.dialogue
    cdef uint64_t taken = dialogue.account.taken + core.pool.taken
    dialogue.account.taken = <uint32_t> taken if taken < UINT32_MAX else UINT32_MAX
    if dialogue.account.taken >= dialogue.account.bytes // A_GOOD_PART and now - dialogue.account.since >= LISTED_LATE:
        dialogue_unlist(&core.dialogue_pool, dialogue)
        dialogue.account.since = now
        dialogue.account.taken = 0
        dialogue_list(&core.dialogue_pool, dialogue)


cdef bint within_shares(Core *core, Flow *flow, uint64_t need) noexcept nogil:
    """What the source has, and again what the flow will have, is to be left free (Choudhury and Hahne 1998)."""
    cdef uint64_t flow_has = flow.dialogue.account.bytes if flow.dialogue != NULL else 0
    return streams_have(&core.pool) + need + flow_has + need + bytes_of(
        &core.flows.shares, flow_source(&core.flows, flow)) <= core.pool.limit // 2


cdef uint64_t window_share(Core *core, Flow *flow) noexcept nogil:
    """As many bytes as the flow may have on their way: each leaves free two more, and one for what pages waste."""
    cdef Dialogue *dialogue = flow.dialogue
    cdef uint64_t own = dialogue.account.bytes if dialogue != NULL else 0
    cdef uint64_t charged = dialogue.account.charged if dialogue != NULL else 0
    cdef uint64_t others = streams_have(&core.pool) - own + bytes_of(
        &core.flows.shares, flow_source(&core.flows, flow)) - charged
    return (core.pool.limit // 2 - others) // 4 if others < core.pool.limit // 2 else 0
