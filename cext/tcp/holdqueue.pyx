# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The hold queue: packets kept in the kernel's queue until they can be decided.

Keeps invariant 1 (one verdict a packet): a held packet gets its only verdict from the code that takes it out.
"""

from libc.stdint cimport uint32_t

from nfmailguard.cext.core cimport DROP_FLOW_ENDED, DROP_HELD_TOO_LONG
from nfmailguard.cext.flow.sources cimport add_held, held_of
from nfmailguard.cext.memory.accounting cimport charge, free_if_idle
from nfmailguard.cext.memory.pool cimport memory_cost
from nfmailguard.cext.tcp.stream cimport held_free, stream_held, stream_held_count, stream_release
from nfmailguard.cext.verdict cimport drop


cdef bint may_hold(Core *core, Flow *flow, Source source) noexcept nogil:
    # A sender may have as many packets held as it leaves free for others, so that no few senders fill the queue.
    cdef uint32_t have = held_of(&core.flows.shares, source)
    cdef uint32_t left = core.held_limit - <uint32_t> core.counters.held_now
    return (core.counters.held_now < core.held_limit and have < core.held_source_limit and (have < left or have == 0)
            and stream_held_count(&flow.stream[0]) + stream_held_count(&flow.stream[1]) < core.held_flow_limit)


cdef void list_held(Core *core, Held *held) noexcept nogil:
    held.newer = NULL
    held.older = core.held_newest
    if held.older != NULL:
        held.older.newer = held
    else:
        core.held_oldest = held
    core.held_newest = held
    add_held(&core.flows.shares, held.source, 1)
    core.counters.held += 1
    core.counters.held_now += 1


cdef void unhold(Core *core, Stream *stream, Held *held) noexcept nogil:
    stream_release(stream, &core.pool, held)
    if held.older != NULL:
        held.older.newer = held.newer
    else:
        core.held_oldest = held.newer
    if held.newer != NULL:
        held.newer.older = held.older
    else:
        core.held_newest = held.older
    core.counters.held_now -= 1
    add_held(&core.flows.shares, held.source, <uint32_t> -1)


cdef Held *next_held(Core *core, Stream *stream) noexcept nogil:
    cdef Held *held = stream_held(stream)
    if held != NULL:
        unhold(core, stream, held)
    return held


cdef void drop_oldest_held(Core *core, uint64_t now, Operations *out) noexcept nogil:
    # Bytes forwarded ahead of a gap stay remembered: if they were forgotten, the receiver could read them undecided.
    cdef Held *held = core.held_oldest
    cdef Flow *flow = <Flow *> held.flow
    unhold(core, &flow.stream[held.to_server], held)
    drop(core, DROP_HELD_TOO_LONG, held.queued.id, out)
    held_free(&core.pool, held)
    charge(core, flow, now)
    if flow.dialogue != NULL:
        free_if_idle(core, flow)
        charge(core, flow, now)


cdef void answered(Core *core, Held *held) noexcept nogil:
    held.next = core.released
    core.released = held
    core.released_bytes += memory_cost(sizeof(Held) + held.size)


cdef void drop_held(Core *core, Flow *flow, Operations *out) noexcept nogil:
    cdef int direction
    cdef Held *held
    for direction in range(2):
        held = next_held(core, &flow.stream[direction])
        while held != NULL:
            drop(core, DROP_FLOW_ENDED, held.queued.id, out)
            held_free(&core.pool, held)
            held = next_held(core, &flow.stream[direction])
