# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Writes an engine's whole state into one flat image.

Promises: the engine does not change, except that packets answered in the last call are freed; no pointer and no
uninitialised byte is written. What follows from the rest (shares, positions in lists, counts) is left out and is
computed again by the reader. Does not know who reads the image, nor where it is kept.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset

from nfmailguard.cext.core cimport LINE_BYTES
from nfmailguard.cext.flow.table cimport FLOW_STATES, Flow
from nfmailguard.cext.handover.cursor cimport put_bytes
from nfmailguard.cext.handover.layout cimport checksum_of, layout_of_core
from nfmailguard.cext.handover.parts cimport (
    FORMAT, MAGIC_BYTES, WORD, BufferedPart, CoreState, DialogueParts, EditPart, FlowParts, Header, HeldPart, LinePart,
)
from nfmailguard.cext.memory.accounting cimport streams_have
from nfmailguard.cext.memory.pagebuffer cimport PageBuffer, PageRing, pagebuffer_span
from nfmailguard.cext.policy.tally cimport TALLY_KINDS, counts_of
from nfmailguard.cext.process cimport core_settle
from nfmailguard.cext.smtp.dialogue cimport Dialogue
from nfmailguard.cext.smtp.line cimport Line
from nfmailguard.cext.smtp.outstanding cimport Exchange, ring_of, ring_size
from nfmailguard.cext.tcp.stream cimport Edit, Held, OutOfOrder, Stream


cdef inline uint32_t ring_capacity(const PageBuffer *buffer) noexcept nogil:
    return (<PageRing *> buffer.memory).capacity if buffer.ringed else 0


cdef void save_pages(PageBuffer *buffer, Writer *writer) noexcept nogil:
    cdef uint32_t at = 0, part
    cdef const uint8_t *data
    while at < buffer.length:
        part = buffer.length - at
        data = pagebuffer_span(buffer, at, &part)
        put_bytes(writer, data, part)
        at += part


cdef void save_edits(const Stream *stream, Writer *writer) noexcept nogil:
    cdef const Edit *edit = stream.backlog.edits
    cdef EditPart part
    while edit != NULL:
        part.seq = edit.seq
        part.length = edit.length
        put_bytes(writer, &part, sizeof(part))
        put_bytes(writer, edit + 1, edit.length)
        edit = edit.next


cdef void save_buffered(const Stream *stream, Writer *writer) noexcept nogil:
    cdef OutOfOrder *buffered = stream.backlog.buffered
    cdef BufferedPart part
    while buffered != NULL:
        part.seq = buffered.seq
        part.length = buffered.data.length
        part.offset = buffered.data.offset
        part.ring = ring_capacity(&buffered.data)
        put_bytes(writer, &part, sizeof(part))
        save_pages(&buffered.data, writer)
        buffered = buffered.next


cdef void save_line(const Line *line, Writer *writer) noexcept nogil:
    cdef LinePart part
    if line != NULL:
        part.length = line.length
        part.sent = line.sent
        put_bytes(writer, &part, sizeof(part))
        put_bytes(writer, line.data, line.length)


cdef void save_outstanding(const Dialogue *dialogue, Writer *writer) noexcept nogil:
    """Writes the verbs of outstanding commands that are stored outside the dialogue, oldest first."""
    cdef uint32_t i
    cdef const Exchange *exchange = &dialogue.exchange
    for i in range(exchange.count):
        put_bytes(writer, ring_of(exchange) + (exchange.first + i) % ring_size(exchange), 1)


cdef void save_dialogue(const Dialogue *dialogue, Writer *writer) noexcept nogil:
    cdef Dialogue image
    cdef DialogueParts parts
    memcpy(&image, dialogue, sizeof(Dialogue))
    memset(&parts, 0, sizeof(parts))
    image.older = image.newer = NULL
    image.flow = NULL
    image.command.kept = image.reply.kept = NULL
    image.exchange.more = NULL
    parts.command = dialogue.command.kept != NULL
    parts.reply = dialogue.reply.kept != NULL
    parts.more = dialogue.exchange.more != NULL
    put_bytes(writer, &image, sizeof(image))
    put_bytes(writer, &parts, sizeof(parts))
    save_line(dialogue.command.kept, writer)
    save_line(dialogue.reply.kept, writer)
    if dialogue.exchange.more != NULL:
        save_outstanding(dialogue, writer)


cdef void save_flow(Flow *flow, Writer *writer) noexcept nogil:
    cdef Flow image
    cdef FlowParts parts
    cdef const uint32_t *counts = counts_of(&flow.session.tally)
    cdef int i
    memcpy(&image, flow, sizeof(Flow))
    memset(&parts, 0, sizeof(parts))
    image.bucket_next = image.older = image.newer = NULL
    image.policy = NULL
    image.dialogue = NULL
    if counts != NULL:
        image.session.tally.word = 0
        parts.tally = 1
    parts.generation = flow.policy.generation
    parts.dialogue = flow.dialogue != NULL
    for i in range(2):
        image.stream[i].unacked.memory = NULL
        image.stream[i].backlog = NULL
        parts.ring[i] = ring_capacity(&flow.stream[i].unacked)
        if flow.stream[i].backlog != NULL:
            parts.edits[i] = flow.stream[i].backlog.edit_count
            parts.buffered[i] = flow.stream[i].backlog.buffered_count
    put_bytes(writer, &image, sizeof(image))
    put_bytes(writer, &parts, sizeof(parts))
    if counts != NULL:
        put_bytes(writer, counts, TALLY_KINDS * sizeof(uint32_t))
    if flow.dialogue != NULL:
        save_dialogue(flow.dialogue, writer)
    for i in range(2):
        save_pages(&flow.stream[i].unacked, writer)
        if flow.stream[i].backlog != NULL:
            save_edits(&flow.stream[i], writer)
            save_buffered(&flow.stream[i], writer)


cdef void save_held(const Held *held, Writer *writer) noexcept nogil:
    cdef HeldPart part
    memset(&part, 0, sizeof(part))
    part.arrived = held.arrived
    part.id = held.queued.id
    part.in_interface = held.queued.in_interface
    part.out_interface = held.queued.out_interface
    part.flags = held.queued.flags
    part.connection = held.queued.connection
    part.size = held.size
    part.cleared = held.cleared
    part.to_server = held.to_server
    put_bytes(writer, &part, sizeof(part))
    put_bytes(writer, held.queued.data, held.size)


cdef void save_notes(const Core *core, Writer *writer) noexcept nogil:
    cdef int half
    for half in range(2):
        if core.cookies.noted[half]:
            put_bytes(writer, core.cookies.half[half], <uint64_t> core.cookies.lines * LINE_BYTES)


cdef void save_counts(const Core *core, Writer *writer) noexcept nogil:
    put_bytes(writer, &core.counters, sizeof(core.counters))
    put_bytes(writer, core.finding_counts, sizeof(core.finding_counts))
    put_bytes(writer, core.drops, sizeof(core.drops))
    put_bytes(writer, core.flowless_findings, sizeof(core.flowless_findings))
    put_bytes(writer, core.ring.lost, sizeof(core.ring.lost))


cdef uint32_t listed(const Core *core) noexcept nogil:
    cdef const Dialogue *dialogue = core.dialogue_pool.oldest
    cdef uint32_t count = 0
    while dialogue != NULL:
        count += 1
        dialogue = dialogue.newer
    return count


cdef void save_state(const Core *core, Writer *writer) noexcept nogil:
    cdef CoreState state
    memset(&state, 0, sizeof(state))
    state.key[0] = core.flows.key[0]
    state.key[1] = core.flows.key[1]
    state.next_id = core.flows.next_id
    state.started = core.started
    state.refusals_second = core.refusals_second
    state.refusals = core.refusals
    state.unaccounted = streams_have(&core.pool) - core.accounted
    state.notes_since = core.cookies.since
    state.notes_noted[0] = core.cookies.noted[0]
    state.notes_noted[1] = core.cookies.noted[1]
    state.notes_lines = core.cookies.lines
    state.flow_count = core.flows.count
    state.listed_count = listed(core)
    state.held_count = <uint32_t> core.counters.held_now
    state.forgot = core.forgot
    put_bytes(writer, &state, sizeof(state))


cdef void seal(Writer *writer) noexcept nogil:
    """Fills in the image's header, once the rest is written."""
    cdef Header *header = <Header *> writer.data
    memcpy(header.magic, b"nfmgcore", MAGIC_BYTES)
    header.format = FORMAT
    header.layout = layout_of_core()
    header.length = writer.used
    header.checksum = checksum_of(header)


cdef void save_core(Core *core, Writer *writer) noexcept nogil:
    cdef Header none
    cdef Flow *flow
    cdef const Dialogue *dialogue
    cdef const Held *held
    cdef uint64_t zeros = 0
    cdef int state
    core_settle(core)
    memset(&none, 0, sizeof(none))
    put_bytes(writer, &none, sizeof(none))
    save_state(core, writer)
    save_counts(core, writer)
    save_notes(core, writer)
    for state in range(FLOW_STATES):
        flow = core.flows.oldest[state]
        while flow != NULL:
            save_flow(flow, writer)
            flow = flow.newer
    dialogue = core.dialogue_pool.oldest
    while dialogue != NULL:
        put_bytes(writer, &(<Flow *> dialogue.flow).identity, sizeof((<Flow *> dialogue.flow).identity))
        dialogue = dialogue.newer
    held = core.held_oldest
    while held != NULL:
        save_held(held, writer)
        held = held.newer
    put_bytes(writer, &zeros, (WORD - writer.used % WORD) % WORD)
    if writer.data != NULL and writer.used <= writer.size:
        seal(writer)
