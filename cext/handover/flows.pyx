# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reads flows back from a state image, with their unacknowledged bytes, edits, dialogues and tallies of findings.

Promises: of a flow that cannot be read completely nothing is left. Does not know held packets, which the image lists
in the order of arrival for all flows together.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t, uintptr_t
from libc.string cimport memcpy, memset

from nfmailguard.cext.core cimport Generation
from nfmailguard.cext.flow.lifecycle cimport release_flow_memory
from nfmailguard.cext.flow.sources cimport add_bytes
from nfmailguard.cext.flow.table cimport flow_begins, flow_ends, flow_restore, flow_source
from nfmailguard.cext.handover.checks cimport (
    buffered_fits, dialogue_fits, edit_fits, flow_fits, outstanding_fit, ring_fits, tally_fits,
)
from nfmailguard.cext.handover.cursor cimport get_bytes, next_bytes
from nfmailguard.cext.handover.loaded cimport LOADED, LOADED_BROKEN, LOADED_ROOM, LOADED_RULES
from nfmailguard.cext.handover.parts cimport BufferedPart, DialogueParts, EditPart, FlowParts, LinePart
from nfmailguard.cext.memory.freelist cimport freelist_alloc
from nfmailguard.cext.memory.pagebuffer cimport PageBuffer, PageRing, pagebuffer_append
from nfmailguard.cext.memory.pool cimport Pool, pool_give_flow, pool_take, pool_take_flow
from nfmailguard.cext.policy.tally cimport TALLY_KINDS, tally_close
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.line cimport Line, alloc_line
from nfmailguard.cext.smtp.outstanding cimport ring_of, ring_size
from nfmailguard.cext.tcp.stream cimport Backlog, Edit, OutOfOrder, Stream, free_backlog, take_backlog


cdef Loaded load_pages(PageBuffer *buffer, Pool *pool, Reader *reader, uint32_t length, uint32_t offset,
                       uint32_t capacity) noexcept nogil:
    """Reads the bytes of a page buffer, into a ring of ``capacity`` pages (0: none) that ``ring_fits`` has accepted."""
    cdef const uint8_t *data = next_bytes(reader, length)
    cdef PageRing *ring
    memset(buffer, 0, sizeof(PageBuffer))
    if data == NULL:
        return LOADED_BROKEN
    if length == 0:
        return LOADED
    if capacity:
        ring = <PageRing *> pool_take(pool, sizeof(PageRing) + <uint64_t> capacity * sizeof(uint8_t *), 0)
        if ring == NULL:
            return LOADED_ROOM
        ring.capacity = capacity
        ring.first = 0
        buffer.memory = <uint8_t *> ring
        buffer.ringed = 1
    buffer.offset = <uint16_t> offset
    return LOADED if pagebuffer_append(buffer, pool, data, length, 0) == 0 else LOADED_ROOM


cdef Loaded load_edit(Stream *stream, Pool *pool, Reader *reader) noexcept nogil:
    cdef Backlog *backlog = stream.backlog
    cdef EditPart part
    cdef Edit seen
    cdef Edit *edit
    cdef const uint8_t *data
    get_bytes(reader, &part, sizeof(part))
    seen.next = NULL
    seen.seq = part.seq
    seen.length = part.length
    if not edit_fits(stream, backlog.last_edit, &seen):
        return LOADED_BROKEN
    data = next_bytes(reader, part.length)
    if data == NULL:
        return LOADED_BROKEN
    edit = <Edit *> pool_take(pool, sizeof(Edit) + part.length, 0)
    if edit == NULL:
        return LOADED_ROOM
    edit[0] = seen
    memcpy(edit + 1, data, part.length)
    if backlog.last_edit != NULL:
        backlog.last_edit.next = edit
    else:
        backlog.edits = edit
    backlog.last_edit = edit
    backlog.edit_count += 1
    return LOADED


cdef Loaded load_ahead(Stream *stream, Pool *pool, Reader *reader) noexcept nogil:
    """Reads a segment that was received ahead of a gap."""
    cdef Backlog *backlog = stream.backlog
    cdef BufferedPart part
    cdef OutOfOrder *buffered
    get_bytes(reader, &part, sizeof(part))
    if not (buffered_fits(stream, backlog.farthest, part.seq, part.length)
            and ring_fits(part.ring, part.length, part.offset)):
        return LOADED_BROKEN
    buffered = <OutOfOrder *> pool_take(pool, sizeof(OutOfOrder), 0)
    if buffered == NULL:
        return LOADED_ROOM
    memset(buffered, 0, sizeof(OutOfOrder))
    buffered.seq = part.seq
    if backlog.farthest != NULL:
        backlog.farthest.next = buffered
    else:
        backlog.buffered = buffered
    backlog.farthest = buffered
    backlog.buffered_count += 1
    return load_pages(&buffered.data, pool, reader, part.length, part.offset, part.ring)


cdef Loaded load_stream(Stream *stream, Pool *pool, Reader *reader, const PageBuffer *unacked, const FlowParts *parts,
                        int direction) noexcept nogil:
    cdef Loaded result = load_pages(&stream.unacked, pool, reader, unacked.length, unacked.offset,
                                    parts.ring[direction])
    cdef uint32_t edits = parts.edits[direction], buffered = parts.buffered[direction]
    if result != LOADED or not (edits or buffered):
        return result
    if take_backlog(stream, pool) == NULL:
        return LOADED_ROOM
    while result == LOADED and edits:
        edits -= 1
        result = load_edit(stream, pool, reader)
    while result == LOADED and buffered:
        buffered -= 1
        result = load_ahead(stream, pool, reader)
    free_backlog(stream, pool)                     # frees the stream's backlog if it is empty
    return result


cdef Loaded load_line(Core *core, Line **line, Reader *reader) noexcept nogil:
    cdef LinePart part
    cdef const uint8_t *data
    get_bytes(reader, &part, sizeof(part))
    data = next_bytes(reader, part.length)
    if data == NULL or part.length > sizeof(line[0].data):
        return LOADED_BROKEN
    line[0] = alloc_line(&core.dialogue_pool.line_pool)
    if line[0] == NULL:
        return LOADED_ROOM
    memset(line[0], 0, sizeof(Line))
    line[0].length = part.length
    line[0].sent = part.sent
    memcpy(line[0].data, data, part.length)
    return LOADED


cdef Loaded load_outstanding(Core *core, Dialogue *dialogue, Reader *reader) noexcept nogil:
    cdef const uint8_t *verbs = next_bytes(reader, dialogue.exchange.count)
    cdef uint32_t i
    if verbs == NULL:
        return LOADED_BROKEN
    dialogue.exchange.more = <uint8_t *> pool_take(&core.pool, dialogue.exchange.capacity, 0)
    if dialogue.exchange.more == NULL:
        return LOADED_ROOM
    memset(dialogue.exchange.more, 0, dialogue.exchange.capacity)
    for i in range(dialogue.exchange.count):
        ring_of(&dialogue.exchange)[(dialogue.exchange.first + i) % ring_size(&dialogue.exchange)] = verbs[i]
    return LOADED


cdef Loaded load_dialogue(Core *core, Flow *flow, Reader *reader) noexcept nogil:
    cdef Dialogue *dialogue = <Dialogue *> freelist_alloc(&core.dialogue_pool.dialogues)
    cdef DialogueParts parts
    cdef Loaded result = LOADED
    if dialogue == NULL:
        return LOADED_ROOM
    get_bytes(reader, dialogue, sizeof(Dialogue))
    get_bytes(reader, &parts, sizeof(parts))
    # Even if a later check fails, the dialogue now belongs to the flow, which will free it; it must hold no address.
    dialogue.older = dialogue.newer = NULL
    dialogue.command.kept = dialogue.reply.kept = NULL
    dialogue.exchange.more = NULL
    dialogue.flow = flow
    dialogue.account.listed = 0
    flow.dialogue = dialogue
    add_bytes(&core.flows.shares, flow_source(&core.flows, flow), dialogue.account.charged)
    if not dialogue_fits(dialogue, &parts, flow.policy.grammar):
        return LOADED_BROKEN
    if parts.command:
        result = load_line(core, &dialogue.command.kept, reader)
    if result == LOADED and parts.reply:
        result = load_line(core, &dialogue.reply.kept, reader)
    if result == LOADED and parts.more:
        result = load_outstanding(core, dialogue, reader)
    if result == LOADED and not outstanding_fit(dialogue, flow.policy.grammar):
        result = LOADED_BROKEN
    return result


cdef Loaded load_tally(Core *core, Flow *flow, const Known *known, Reader *reader) noexcept nogil:
    cdef uint32_t counts[TALLY_KINDS]
    cdef void *memory
    if not get_bytes(reader, counts, sizeof(counts)) or not tally_fits(counts, known.findings):
        return LOADED_BROKEN
    memory = pool_take(&core.pool, sizeof(counts), 0)
    if memory == NULL:
        return LOADED_ROOM
    memcpy(memory, counts, sizeof(counts))
    flow.session.tally.word = <uint64_t> <uintptr_t> memory
    return LOADED


cdef Loaded load_parts(Core *core, Flow *flow, const Flow *image, const FlowParts *parts, const Known *known,
                       Reader *reader) noexcept nogil:
    """Reads what a flow has besides its own structure; after a failure the parts already read are freed with it."""
    cdef Loaded result = LOADED
    cdef int i
    if parts.tally:
        result = load_tally(core, flow, known, reader)
    if result == LOADED and parts.dialogue:
        result = load_dialogue(core, flow, reader)
    for i in range(2):
        if result == LOADED:
            result = load_stream(&flow.stream[i], &core.pool, reader, &image.stream[i].unacked, parts, i)
    return result


cdef void free_parts(Core *core, Flow *flow) noexcept nogil:
    release_flow_memory(core, flow)
    tally_close(&flow.session.tally, &core.pool)
    flow_ends(flow)


cdef Loaded load_flow(Core *core, const Known *known, Reader *reader) noexcept nogil:
    cdef Flow image
    cdef FlowParts parts
    cdef Flow *flow
    cdef Generation *generation
    cdef Loaded result
    cdef int i
    get_bytes(reader, &image, sizeof(image))
    if not get_bytes(reader, &parts, sizeof(parts)) or not flow_fits(&image, &parts, known.states, known.findings):
        return LOADED_BROKEN
    generation = known.generations[parts.generation]
    if generation == NULL or image.identity.rule >= generation.rule_count:
        return LOADED_RULES
    if core.flows.count >= core.flows.limit:
        return LOADED_ROOM
    flow = <Flow *> pool_take_flow(&core.pool, sizeof(Flow))
    if flow == NULL:
        return LOADED_ROOM
    memcpy(flow, &image, sizeof(Flow))
    flow.bucket_next = flow.older = flow.newer = NULL
    flow.dialogue = NULL
    for i in range(2):
        memset(&flow.stream[i].unacked, 0, sizeof(PageBuffer))
        flow.stream[i].backlog = NULL
    flow.policy = &generation.rules[image.identity.rule].policy
    flow_begins(flow)
    result = load_parts(core, flow, &image, &parts, known, reader)
    if result == LOADED and not flow_restore(&core.flows, flow):
        result = LOADED_BROKEN                     # two flows in the image have the same addresses and ports
    if result != LOADED:
        free_parts(core, flow)
        pool_give_flow(&core.pool, flow, sizeof(Flow))
    return result
