# Accounts: how much of the memory for streams each flow uses, and each source of flows.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.tcp.stream cimport stream_is_empty

# The flow's dialogue, allocated if it has none; NULL without memory. A flow that uses stream memory has a dialogue.
cdef Dialogue *dialogue_of(Core *core, Flow *flow) noexcept nogil
# Frees the flow's dialogue if nothing of it is in progress; free_dialogue frees it in any case.
cdef void free_idle_dialogue(Core *core, Flow *flow) noexcept nogil

cdef inline void free_if_idle(Core *core, Flow *flow) noexcept nogil:
    if stream_is_empty(&flow.stream[0]) and stream_is_empty(&flow.stream[1]):
        free_idle_dialogue(core, flow)

cdef void free_dialogue(Core *core, Flow *flow) noexcept nogil
# Counts the flow's memory in its source's account too, and puts the flow in, or takes it out of, the list of flows that
# use a page or more.
cdef void update_share(Core *core, Flow *flow, uint64_t now) noexcept nogil
# The flow's receivers have acknowledged bytes: if these were enough, the flow moves to the young end of its list.
cdef void note_progress(Core *core, Flow *flow, uint64_t now) noexcept nogil
# Whether the flow may use `need` more bytes, by the shares of both the flow and its source.
cdef bint within_shares(Core *core, Flow *flow, uint64_t need) noexcept nogil
# How many bytes the flow may have in flight, given the memory that all other flows use at the moment.
cdef uint64_t window_share(Core *core, Flow *flow) noexcept nogil

cdef inline uint64_t streams_have(const Pool *pool) noexcept nogil:
    return pool.used - pool.flows

# Whether `length` bytes can be decided within the shares, even if all memory in use belonged to a single flow.
cdef inline bint memory_is_ample(const Core *core, uint32_t length) noexcept nogil:
    return streams_have(&core.pool) * 3 + 2 * <uint64_t> length + 8192 <= core.pool.limit // 2

# Counts the memory taken or given back since the last call as this flow's. To be called before another flow's memory
# changes. While less than an eighth of the memory is used, nobody runs short, and sources have no accounts.
cdef inline void charge(Core *core, Flow *flow, uint64_t now) noexcept nogil:
    # Held packets that have been answered are freed in the next call; until then their memory is no flow's.
    cdef uint64_t have = streams_have(&core.pool) - core.released_bytes
    cdef Dialogue *dialogue = flow.dialogue
    if dialogue != NULL:
        dialogue.account.bytes += have - core.accounted
        if dialogue.account.charged or have > core.pool.limit // 16:
            update_share(core, flow, now)
    core.accounted = have
