# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reads an engine's state from an image into a core that has no flow yet.

Promises: only what ``checks`` accepts is believed; an image that cannot be read completely is not read at all, and the
core stays unchanged. Work and memory are bounded by the image's length and the core's limits. Does not know where an
image comes from.
"""

from libc.stdint cimport UINT64_MAX, uint32_t
from libc.string cimport memcmp, memcpy, memset

from nfmailguard.cext.core cimport LINE_BYTES, Counters
from nfmailguard.cext.flow.sources cimport source_of
from nfmailguard.cext.flow.table cimport FLOW_STATES, Flow, flow_find, flow_named, flow_remove
from nfmailguard.cext.handover.cursor cimport Reader, get_bytes, next_bytes
from nfmailguard.cext.handover.flows cimport free_parts, load_flow
from nfmailguard.cext.handover.layout cimport checksum_of, layout_of_core
from nfmailguard.cext.handover.loaded cimport LOADED, LOADED_BROKEN, LOADED_FORMAT, LOADED_NOT, LOADED_ROOM
from nfmailguard.cext.handover.parts cimport FORMAT, MAGIC_BYTES, WORD, CoreState, Header, HeldPart
from nfmailguard.cext.memory.accounting cimport streams_have
from nfmailguard.cext.record cimport Identity
from nfmailguard.cext.smtp.dialogue cimport dialogue_list
from nfmailguard.cext.tcp.holdqueue cimport list_held, next_held
from nfmailguard.cext.tcp.stream cimport Held, held_free, held_of_flow, stream_hold
from nfmailguard.cext.wire.packet cimport MOST_PAYLOAD, PARSED, Packet, QueuedPacket, packet_parse


cdef uint64_t bytes_of_counts(const Core *core) noexcept nogil:
    return (sizeof(core.counters) + sizeof(core.finding_counts) + sizeof(core.drops) + sizeof(core.flowless_findings)
            + sizeof(core.ring.lost))


cdef Loaded load_listed(Core *core, Reader *reader) noexcept nogil:
    """Puts a flow's dialogue back into the list of dialogues with a page or more of memory, the oldest first."""
    cdef Identity identity
    cdef Flow *flow
    if not get_bytes(reader, &identity, sizeof(identity)):
        return LOADED_BROKEN
    flow = flow_named(&core.flows, &identity)
    if flow == NULL or flow.dialogue == NULL or flow.dialogue.account.listed:
        return LOADED_BROKEN
    dialogue_list(&core.dialogue_pool, flow.dialogue)
    return LOADED


cdef Loaded load_held(Core *core, Reader *reader) noexcept nogil:
    """Reads a held packet, and gives it to the flow with its addresses and ports."""
    cdef HeldPart part
    cdef QueuedPacket queued
    cdef Packet packet
    cdef Flow *flow
    cdef Held *held
    cdef const uint8_t *data
    get_bytes(reader, &part, sizeof(part))
    data = next_bytes(reader, part.size)
    if data == NULL or part.size == 0 or part.size > MOST_PAYLOAD or part.to_server > 1:
        return LOADED_BROKEN
    memset(&queued, 0, sizeof(queued))
    queued.data = <uint8_t *> data                 # the packet's bytes in the image are only read, and copied
    queued.captured = queued.length = part.size
    queued.id = part.id
    queued.in_interface = part.in_interface
    queued.out_interface = part.out_interface
    queued.flags = part.flags
    queued.connection = part.connection
    if packet_parse(&packet, &queued) != PARSED or packet.payload_length == 0 or packet.length != part.size:
        return LOADED_BROKEN
    flow = flow_find(&core.flows, &packet, part.to_server)
    if flow == NULL:
        return LOADED_BROKEN
    held = stream_hold(&flow.stream[part.to_server], &core.pool, &packet, part.arrived)
    if held == NULL:
        return LOADED_ROOM
    held_of_flow(held, flow, part.to_server, source_of(&core.flows.shares, packet.family, packet.source), part.cleared)
    list_held(core, held)
    return LOADED


cdef Loaded load_notes(Core *core, const CoreState *state, Reader *reader, const uint8_t **halves) noexcept nogil:
    """Finds the halves of the SYN cookie filter in the image; NULL: the half had no entries and is not there."""
    cdef int half
    if state.notes_lines != core.cookies.lines:
        return LOADED_ROOM
    for half in range(2):
        halves[half] = NULL
        if state.notes_noted[half]:
            halves[half] = next_bytes(reader, <uint64_t> core.cookies.lines * LINE_BYTES)
            if halves[half] == NULL or core.cookies.lines == 0:
                return LOADED_BROKEN
    return LOADED


cdef Loaded load_counted(Core *core, const Known *known, const CoreState *state, Reader *reader) noexcept nogil:
    """Reads the parts that occur several times: flows, listed dialogues, held packets."""
    cdef uint64_t limit = core.pool.limit
    cdef Loaded result = LOADED
    cdef uint32_t flows = state.flow_count, listed = state.listed_count, held = state.held_count
    # While loading, limits per flow or source would depend on the order: only the total is checked, at the end.
    core.pool.limit = UINT64_MAX // 4
    while result == LOADED and flows and core.pool.used <= limit:
        flows -= 1
        result = load_flow(core, known, reader)
    while result == LOADED and listed:
        listed -= 1
        result = load_listed(core, reader)
    while result == LOADED and held and core.pool.used <= limit:
        held -= 1
        result = load_held(core, reader)
    core.pool.limit = limit
    if result == LOADED and (core.pool.used > limit or streams_have(&core.pool) > limit // 2):
        result = LOADED_ROOM
    return result


cdef void discard(Core *core) noexcept nogil:
    """Removes every flow that has been read, without any record: no reader knows of these flows."""
    cdef int state, direction
    cdef Flow *flow
    cdef Held *held
    for state in range(FLOW_STATES):
        while core.flows.oldest[state] != NULL:
            flow = core.flows.oldest[state]
            for direction in range(2):
                held = next_held(core, &flow.stream[direction])
                while held != NULL:
                    held_free(&core.pool, held)
                    held = next_held(core, &flow.stream[direction])
            free_parts(core, flow)
            flow_remove(&core.flows, &core.pool, flow)


cdef void set_keys(Core *core, const uint64_t *key) noexcept nogil:
    memcpy(core.flows.key, key, sizeof(core.flows.key))
    memcpy(core.flows.shares.key, key, sizeof(core.flows.shares.key))


cdef void take_over(Core *core, const CoreState *state, const uint8_t **halves) noexcept nogil:
    """Takes over the state that exists once per core, after everything else has been read."""
    cdef int half
    core.flows.next_id = state.next_id
    core.started = state.started
    core.refusals_second = state.refusals_second
    core.refusals = state.refusals
    core.accounted = streams_have(&core.pool) - state.unaccounted
    core.forgot = state.forgot & 1
    core.cookies.since = state.notes_since
    for half in range(2):
        core.cookies.noted[half] = state.notes_noted[half]
        if halves[half] != NULL:
            memcpy(core.cookies.half[half], halves[half], <uint64_t> core.cookies.lines * LINE_BYTES)


cdef bint take_counts(Core *core, Reader *reader) noexcept nogil:
    cdef uint64_t held = core.counters.held_now
    cdef bint whole = get_bytes(reader, &core.counters, sizeof(core.counters))
    core.counters.held_now = held
    return (whole and get_bytes(reader, core.finding_counts, sizeof(core.finding_counts))
            and get_bytes(reader, core.drops, sizeof(core.drops))
            and get_bytes(reader, core.flowless_findings, sizeof(core.flowless_findings))
            and get_bytes(reader, core.ring.lost, sizeof(core.ring.lost)))


cdef Loaded image_fits(const uint8_t *data, uint64_t length) noexcept nogil:
    cdef Header header
    if length < sizeof(Header) + sizeof(CoreState):
        return LOADED_NOT
    memcpy(&header, data, sizeof(header))
    if memcmp(header.magic, b"nfmgcore", MAGIC_BYTES) != 0:
        return LOADED_NOT
    if header.format != FORMAT or header.layout != layout_of_core():
        return LOADED_FORMAT
    if header.length != length or length % WORD or header.checksum != checksum_of(<const Header *> data):
        return LOADED_NOT
    return LOADED


cdef Loaded load_core(Core *core, const Known *known, const uint8_t *data, uint64_t length) noexcept nogil:
    cdef Loaded result = image_fits(data, length)
    cdef Counters counters = core.counters
    cdef uint64_t key[2]
    cdef const uint8_t *halves[2]
    cdef CoreState state
    cdef Reader reader, counts
    if result != LOADED:
        return result
    reader.data = data
    reader.size = length
    reader.at = sizeof(Header)
    get_bytes(&reader, &state, sizeof(state))
    counts = reader
    memcpy(key, core.flows.key, sizeof(key))
    if next_bytes(&reader, bytes_of_counts(core)) == NULL:
        return LOADED_BROKEN
    result = load_notes(core, &state, &reader, halves)
    if result == LOADED:
        set_keys(core, state.key)
        result = load_counted(core, known, &state, &reader)
    if result == LOADED and reader.size - reader.at >= WORD:
        result = LOADED_BROKEN                     # the image is longer than its parts
    if result != LOADED:
        discard(core)
        set_keys(core, key)
        core.counters = counters
        return result
    take_counts(core, &counts)
    take_over(core, &state, halves)
    return LOADED
