# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Scarcity: who gives way, and who waits, when the streams' memory is short.

Keeps invariant 6 (bounded): work a packet is bounded by a few flows that end. Nothing is
decided before there is memory to keep it, so a packet that finds none may be dropped and
come again. Does not know how bytes are decided.
"""

from libc.stdint cimport uint8_t

from nfmailguard.cext.account cimport settle, within_shares
from nfmailguard.cext.core cimport DROP_CONDITION, DROP_MEMORY
from nfmailguard.cext.ending cimport end_flow, refuse, report_condition, stop_following
from nfmailguard.cext.flow cimport FLOW_INSPECTED, flow_source
from nfmailguard.cext.packet cimport nm_seq_diff
from nfmailguard.cext.pool cimport PAGE_OCTETS, memory_cost, pool_is_short
from nfmailguard.cext.share cimport Source
from nfmailguard.cext.smtp cimport ACTION_LOG, STREAM_MEMORY_LIMIT, Dialogue, Line
from nfmailguard.cext.stream cimport Stream
from nfmailguard.cext.verdict cimport drop

cdef enum:
    MOST_EXAMINED = 16         # flows, for one packet
    MOST_ENDED = 8             # of them


cdef uint64_t cost_of(const Flow *flow, const Stream *stream, uint32_t length) noexcept nogil:
    """What it takes to decide and keep so many bytes more, at most."""
    cdef uint64_t cost = memory_cost(sizeof(Line))
    cdef uint32_t end = stream.kept.offset + stream.kept.length
    if flow.dialogue == NULL:
        cost += memory_cost(sizeof(Dialogue))
    if stream.kept.length == 0 or end % PAGE_OCTETS + length > PAGE_OCTETS or end % PAGE_OCTETS == 0:
        cost += (length // PAGE_OCTETS + 1) * memory_cost(PAGE_OCTETS)
    return cost


cdef void ends(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil:
    cdef uint8_t action = report_condition(core, flow, STREAM_MEMORY_LIMIT, True, now)
    core.counters.flows_stalled += 1
    if action <= ACTION_LOG:
        stop_following(core, flow, now, out)
    else:
        end_flow(core, flow, action, now, out)


cdef void stalled_give_way(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil:
    """Ends flows whose receivers have long taken nothing, longest first: of any source where memory is short, of
    the same source where only that has its share."""
    cdef bint short = pool_is_short(&core.pool)
    cdef Dialogue *dialogue = core.lender.oldest
    cdef Dialogue *newer
    cdef Flow *other
    cdef int examined = 0, ended = 0
    settle(core, flow, now)
    while dialogue != NULL and examined < MOST_EXAMINED and ended < MOST_ENDED:
        if now - dialogue.since < core.stalled_timeout:
            return
        newer = dialogue.newer
        other = <Flow *> dialogue.flow
        examined += 1
        if other != flow and other.fate == FLOW_INSPECTED and (short or same_source(core, flow, other)):
            ends(core, other, now, out)
            ended += 1
        dialogue = newer


cdef bint same_source(Core *core, Flow *one, Flow *other) noexcept nogil:
    cdef Source a = flow_source(&core.flows, one), b = flow_source(&core.flows, other)
    return a.place[0] == b.place[0] and a.place[1] == b.place[1]


cdef bint memory_for(Core *core, Flow *flow, bint to_server, uint32_t length, uint64_t now,
                     Operations *out) noexcept nogil:
    cdef uint64_t need = cost_of(flow, &flow.stream[to_server], length)
    cdef bint fits = within_shares(core, flow, need)
    if fits and not pool_is_short(&core.pool):
        return True
    stalled_give_way(core, flow, now, out)
    return fits or within_shares(core, flow, need)


cdef bint room_for(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                   Operations *out) noexcept nogil:
    cdef Stream *stream = &flow.stream[to_server]
    cdef Dialogue *dialogue = flow.dialogue
    cdef uint32_t length = <uint32_t> nm_seq_diff(packet.seq + packet.payload_length, stream.next_seq)
    if memory_for(core, flow, to_server, length, now, out) or not flow.ruling.apply:
        return True                                # who only follows forgets what he cannot keep
    if (cost_of(flow, stream, length) > core.pool.limit // 2
            or (dialogue != NULL and dialogue.listed and now - dialogue.since >= core.stalled_timeout)):
        refuse(core, flow, to_server, STREAM_MEMORY_LIMIT, DROP_CONDITION, packet, now, out)
    else:
        drop(core, DROP_MEMORY, packet.queued.id, out)
    return False
