# Accounts: what each flow, and each source, has of the streams' memory.
from libc.stdint cimport uint32_t, uint64_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.memory.pool cimport Pool
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.tcp.stream cimport stream_is_empty

# The flow's dialogue, lent when it has none; NULL without memory. Who has memory has a dialogue.
cdef Dialogue *dialogue_of(Core *core, Flow *flow) noexcept nogil
# Gives the dialogue back where nothing is being said, nor kept; or anyway.
cdef void free_idle_dialogue(Core *core, Flow *flow) noexcept nogil

cdef inline void free_if_idle(Core *core, Flow *flow) noexcept nogil:
    if stream_is_empty(&flow.stream[0]) and stream_is_empty(&flow.stream[1]):
        free_idle_dialogue(core, flow)

cdef void free_dialogue(Core *core, Flow *flow) noexcept nogil
# Puts what the flow has on its source's account, and the flow in its place in the list.
cdef void update_share(Core *core, Flow *flow, uint64_t now) noexcept nogil
# What its receivers have taken makes a flow that is listed younger.
cdef void note_progress(Core *core, Flow *flow, uint64_t now) noexcept nogil
# Whether `need` more bytes are within the shares of the flow and its source.
cdef bint within_shares(Core *core, Flow *flow, uint64_t need) noexcept nogil
# How many bytes of the flow fit at once, with all that others have at the moment.
cdef uint64_t window_share(Core *core, Flow *flow) noexcept nogil

cdef inline uint64_t streams_have(const Pool *pool) noexcept nogil:
    return pool.used - pool.flows

# Whether deciding `length` bytes takes no more than anybody may have, be all that is lent one flow's.
cdef inline bint memory_is_ample(const Core *core, uint32_t length) noexcept nogil:
    return streams_have(&core.pool) * 3 + 2 * <uint64_t> length + 8192 <= core.pool.limit // 2

# What has been taken or given back since the last call is the flow's. Called before memory of another flow
# changes. While an eighth is not used nobody is short of anything, and no accounts are kept.
cdef inline void charge(Core *core, Flow *flow, uint64_t now) noexcept nogil:
    # Held packets that have been answered, and are freed with the next call, are nobody's.
    cdef uint64_t have = streams_have(&core.pool) - core.released_bytes
    cdef Dialogue *dialogue = flow.dialogue
    if dialogue != NULL:
        dialogue.account.bytes += have - core.accounted
        if dialogue.account.charged or have > core.pool.limit // 16:
            update_share(core, flow, now)
    core.accounted = have
