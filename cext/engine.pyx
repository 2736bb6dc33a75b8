# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The core's face: finds each packet's flow and answers every packet exactly once.

Keeps invariant 1 (one verdict): every path through ``core_process`` answers the
packet or hands it to a stream that holds it, and every held one is answered by a
later packet, by ``core_expire`` or by ``core_finish``. Keeps invariant 7: nothing a
peer sends raises. No sockets, no clock, no Python object a packet.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint8_t
from libc.stdlib cimport calloc, free

from nfmailguard.cext.core cimport (
    DROP_CHECKSUM, DROP_CONNECTION, DROP_COOKIE, DROP_FLAGS, DROP_FLOW_ENDED, DROP_INTERFACE, DROP_INTERNAL,
    DROP_REASONS, MOST_GENERATIONS as MOST_AT_ONCE, Counters, Generation,
)
from nfmailguard.cext.flow.census cimport Census, census_fill, nm_load_census, nm_store_filled, nm_take_census
from nfmailguard.cext.flow.identity cimport belongs, pin_interface
from nfmailguard.cext.flow.lifecycle cimport count_packet, forget_flow, opens, starting_up
from nfmailguard.cext.flow.rules cimport inspected_port
from nfmailguard.cext.flow.table cimport (
    FLOW_BYPASSED, FLOW_CLOSING, FLOW_EMBRYONIC, FLOW_ESTABLISHED, FLOW_GREETED, FLOW_ONE_SIDED, FLOW_RESET,
    FLOW_STATES, FLOW_UNCONFIRMED, Flow, flow_bucket, flow_closed, flow_find, flow_prefetch, flow_touch, flows_close,
    flows_open, nm_prefetch,
)
from nfmailguard.cext.generation cimport (
    flows_under, free_generations, free_unused_generations, generation_taken, publish_generation,
    republish_generation, take_up_generation,
)
from nfmailguard.cext.inspect cimport inspect_packet
from nfmailguard.cext.memory.accounting cimport charge, note_progress
from nfmailguard.cext.memory.pool cimport memory_cost, pool_close
from nfmailguard.cext.operation cimport Operation, operations_free, operations_reserve
from nfmailguard.cext.policy.actions cimport answer_by
from nfmailguard.cext.policy.conditions cimport policy_without_flow, report_condition, report_without_flow
from nfmailguard.cext.policy.numbers cimport (
    ACTION_DROP, ACTION_LOG, MOST_FINDINGS, PACKET_ODD_FLAGS, PACKET_OTHER_CONNECTION,
)
from nfmailguard.cext.record cimport END_FINISHED, END_TIMEOUT, MOST_RULES as MOST, ring_close, ring_drain, ring_open
from nfmailguard.cext.smtp.dialogue cimport dialogue_pool_close, dialogue_pool_open
from nfmailguard.cext.tables cimport free_generation, load_generation
from nfmailguard.cext.tcp.handshake cimport first_packet, handshake
from nfmailguard.cext.tcp.holdqueue cimport drop_oldest_held
from nfmailguard.cext.tcp.passed cimport pass_packet
from nfmailguard.cext.tcp.peer_reset cimport reset_packet
from nfmailguard.cext.tcp.reset cimport emit_reset
from nfmailguard.cext.tcp.stream cimport Held, held_free
from nfmailguard.cext.tcp.syncookie cimport hide_cookie, notes_close, notes_open
from nfmailguard.cext.tcp.validate cimport handle_malformed, invalid_flags, refused
from nfmailguard.cext.verdict cimport accept, drop, drop_if
from nfmailguard.cext.wire.packet cimport (
    PACKET_CHECKSUM_PARTIAL, PARSED, TCP_ACK, TCP_RST, TCP_SYN, Packet, ParseResult, packet_checksum_ok,
    packet_parse,
)

#: Memory a flow takes, in octets, without what its streams keep. Flows have half of limits.memory.
FLOW_BYTES = memory_cost(sizeof(Flow))

#: Of a generation. In records the rules of generation N are numbered from N times as many.
MOST_RULES = MOST
#: At once.
MOST_GENERATIONS = MOST_AT_ONCE

#: By DropReason.
DROP_NAMES = (
    "checksum", "flags", "fragment", "malformed", "truncated", "flow_limit", "midstream", "interface", "syn_ack",
    "window", "gap", "behind_fin", "repeated", "held_too_long", "super_packet", "condition", "finding", "closes_gap",
    "flow_ended", "end_kept", "internal", "option", "rst", "closed", "cookie", "early", "memory", "connection",
)

#: By RecordKind, from 1 on.
RECORD_NAMES = ("finding", "command", "reply", "message", "flow", "repeated")

cdef enum:
    MOST_HERE = 48             # operations of one packet besides those it releases
    MANY_PACKETS = 1024        # of one side of a flow: no sender repeats so much
    ONE_IN = 64
    WORTH_PREFETCHING = 8192    # flows; fewer lie in a second-level cache


cdef void core_settle(Core *core) noexcept nogil:
    cdef Held *held
    while core.released != NULL:
        held = core.released
        core.released = held.next
        core.released_bytes -= memory_cost(sizeof(Held) + held.size)
        held_free(&core.pool, held)


cdef void begin_call(Core *core, uint64_t now, Operations *out) noexcept nogil:
    core_settle(core)
    core.emitted_now = 0
    core.first_of_call = out.count
    if core.started == 0:
        core.started = now


cdef inline uint8_t state_of(Core *core, Flow *flow) noexcept nogil:
    if flow_closed(flow) or flow.mode > FLOW_BYPASSED:
        return FLOW_CLOSING
    if flow.state == FLOW_ESTABLISHED or flow.session.state >= flow.policy.grammar.state_ready:
        return FLOW_ESTABLISHED                            # a command was accepted, once
    if flow.mode == FLOW_BYPASSED and not flow.stream[1].known and not (flow.packets[0] and flow.packets[1]):
        return FLOW_ONE_SIDED
    if flow.confirmed or flow.mode == FLOW_BYPASSED:
        return FLOW_GREETED
    return FLOW_UNCONFIRMED if flow.answered else FLOW_EMBRYONIC


cdef void core_begin_batch(Core *core, uint64_t now) noexcept nogil:
    cdef Census *census
    take_up_generation(core, now)
    if nm_load_census(&core.census) != NULL:
        census = nm_take_census(&core.census)
        if census != NULL:
            census_fill(census, &core.flows)
            nm_store_filled(&census.filled, 1)


cdef void core_process(Core *core, QueuedPacket *queued, uint64_t now, Operations *out) noexcept nogil:
    cdef Packet packet
    cdef Flow *flow
    cdef bint to_server, from_server
    cdef ParseResult result
    cdef uint8_t state, action, reason
    begin_call(core, now, out)
    core.counters.packets += 1
    if operations_reserve(out, <uint32_t> core.counters.held_now + MOST_HERE) < 0:
        core.counters.internal_errors += 1
        if out.count < out.capacity:               # one answer has room: every caller reserves a first block
            drop_if(core, core.generation.rules[core.generation.rule_count - 1].policy.internal_error >= ACTION_DROP,
                    DROP_INTERNAL, queued.id, out)
        return
    result = packet_parse(&packet, queued)
    if result != PARSED:
        handle_malformed(core, result, &packet, now, out)
        return
    to_server = inspected_port(core, packet.destination_port)
    from_server = inspected_port(core, packet.source_port)
    if not to_server and not from_server:
        core.counters.not_inspected += 1
        accept(core, queued.id, out)
        return
    flow = flow_find(&core.flows, &packet, to_server)
    if flow == NULL and to_server and from_server and not (packet.flags & TCP_SYN and not packet.flags & TCP_ACK):
        flow = flow_find(&core.flows, &packet, False)
        to_server = flow == NULL
    if flow != NULL:
        # At hand when the checksum has been looked at: what is being said, and what an ACK lets go.
        nm_prefetch(flow.dialogue)
        nm_prefetch(flow.stream[not to_server].unacked.memory)
    if not queued.flags & PACKET_CHECKSUM_PARTIAL and not packet_checksum_ok(&packet):
        # No receiver takes it; taking it here would be believing what the server never sees.
        core.counters.bad_checksum += 1
        drop_if(core, (flow.policy if flow != NULL else policy_without_flow(core, &packet)).apply, DROP_CHECKSUM,
                queued.id, out)
        return
    if invalid_flags(packet.flags):
        core.counters.odd_flags += 1
        if flow != NULL:
            answer_by(core, flow, report_condition(core, flow, PACKET_ODD_FLAGS, to_server, now), DROP_FLAGS,
                      &packet, now, out)
        else:
            drop_if(core, report_without_flow(core, &packet, PACKET_ODD_FLAGS, to_server, now) > ACTION_LOG, DROP_FLAGS,
                    queued.id, out)
        return
    if flow == NULL:
        first_packet(core, &packet, to_server, now, out)
        return
    if flow.connection != queued.connection and not belongs(flow, to_server, &packet):
        action = report_condition(core, flow, PACKET_OTHER_CONNECTION, to_server, now)
        if action > ACTION_LOG:
            answer_by(core, flow, action, DROP_CONNECTION, &packet, now, out)
            return
    action = pin_interface(core, flow, to_server, &packet, now)
    if action > ACTION_LOG:
        answer_by(core, flow, action, DROP_INTERFACE, &packet, now, out)
        return
    count_packet(flow, to_server, &packet)
    if handshake(core, flow, to_server, &packet, now, out):
        return
    reason = refused(core, flow, to_server, &packet) if flow.mode <= FLOW_BYPASSED else 0
    if flow.mode > FLOW_BYPASSED:
        drop(core, DROP_FLOW_ENDED, queued.id, out)
        if (flow.mode == FLOW_RESET and not packet.flags & TCP_RST and packet.flags & TCP_ACK
                and (flow.packets[to_server] < MANY_PACKETS or flow.packets[to_server] % ONE_IN == 0)):
            # Whoever still sends has not got the RST, or challenges it (RFC 5961 3.2): again, as it expects; of a
            # flood few, for each costs as much as a packet.
            flow.stream[not to_server].next_seq = flow.stream[not to_server].last_ack = packet.ack
            emit_reset(core, flow, not to_server, out)
    elif reason:
        drop_if(core, flow.policy.hold, reason, queued.id, out)
    elif packet.flags & TCP_RST:
        reset_packet(core, flow, to_server, &packet, now, out)
    elif to_server and flow.policy.hold and not hide_cookie(core, flow, &packet, now):
        drop(core, DROP_COOKIE, queued.id, out)
    elif flow.mode == FLOW_BYPASSED:
        pass_packet(core, flow, to_server, &packet, now, out)
    else:
        inspect_packet(core, flow, to_server, &packet, now, out)
        charge(core, flow, now)
        if core.pool.taken:
            if flow.dialogue != NULL and flow.dialogue.account.listed:
                note_progress(core, flow, now)
            core.pool.taken = 0
    state = state_of(core, flow)
    if flow.state == FLOW_EMBRYONIC and FLOW_EMBRYONIC < state < FLOW_CLOSING:
        opens(core, flow, to_server, now, out)
        state = state_of(core, flow)
    flow_touch(&core.flows, flow, state, now)


cdef void core_prefetch_bucket(Core *core, QueuedPacket *queued) noexcept nogil:
    cdef Packet packet
    cdef bint to_server
    if core.flows.count < WORTH_PREFETCHING or packet_parse(&packet, queued) != PARSED:
        return
    to_server = inspected_port(core, packet.destination_port)
    if to_server != inspected_port(core, packet.source_port):      # else it may be found either way, or not at all
        queued.place = flow_bucket(&core.flows, &packet, to_server)


cdef void core_prefetch_flow(Core *core, QueuedPacket *queued) noexcept nogil:
    if queued.place:
        flow_prefetch(&core.flows, queued.place)


cdef uint64_t time_out(Core *core, Flow *flow) noexcept nogil:
    # While flows that were open before us are let through, none of ours may become unknown by waiting.
    cdef uint64_t at = flow.seen + core.timeout[flow.state]
    cdef uint64_t begun = core.started + core.startup
    return begun if at < begun and starting_up(core, at) else at


cdef void core_expire(Core *core, uint64_t now, Operations *out) noexcept nogil:
    cdef int state
    begin_call(core, now, out)
    if operations_reserve(out, <uint32_t> core.counters.held_now + MOST_HERE) < 0:
        return
    while core.held_oldest != NULL and now >= core.held_oldest.arrived + core.held_timeout:
        core.counters.held_expired += 1
        drop_oldest_held(core, now, out)
    for state in range(FLOW_STATES):
        while core.flows.oldest[state] != NULL and now >= time_out(core, core.flows.oldest[state]):
            forget_flow(core, core.flows.oldest[state], END_TIMEOUT, now, out)


cdef uint64_t core_next_deadline(Core *core) noexcept nogil:
    cdef uint64_t deadline = UINT64_MAX, at
    cdef int state
    if core.held_oldest != NULL:
        deadline = core.held_oldest.arrived + core.held_timeout
    for state in range(FLOW_STATES):
        if core.flows.oldest[state] != NULL:
            at = time_out(core, core.flows.oldest[state])
            if at < deadline:
                deadline = at
    return deadline


cdef bint core_finish(Core *core, uint64_t now, Operations *out, bint leave_room) noexcept nogil:
    cdef int state
    begin_call(core, now, out)
    if operations_reserve(out, <uint32_t> core.counters.held_now + MOST_HERE) < 0:
        return False
    for state in range(FLOW_STATES):
        while core.flows.oldest[state] != NULL:
            if leave_room and core_records_wait(core):
                return True
            forget_flow(core, core.flows.oldest[state], END_FINISHED, now, out)
    return False


cdef class Prepared:
    """Rules and settings as the core reads them, not in use yet; made through ``nfmailguard.engine``."""

    def __cinit__(self, dict tables):
        self.generation = load_generation(tables)

    def __dealloc__(self):
        free_generation(self.generation)


cdef class Engine:
    """One core with its own flow table; made through ``nfmailguard.engine``."""

    def __cinit__(self, dict tables):
        self.core = <Core *> calloc(1, sizeof(Core))
        if self.core == NULL or operations_reserve(&self.out, 1) < 0:
            raise MemoryError
        if (ring_open(&self.core.ring, tables["ring"]) < 0
                or flows_open(&self.core.flows, tables["flows"], tables["key"]) < 0):
            raise MemoryError
        self.core.startup = tables["startup"]
        self.core.cookie_life = tables["cookie_life"]
        self.core.can_hold = tables["can_hold"]
        self.core.offload = tables["offload"]
        if self.core.cookie_life and notes_open(&self.core.cookies, tables["cookie_lines"]) < 0:
            raise MemoryError
        dialogue_pool_open(&self.core.dialogue_pool, &self.core.pool)
        publish_generation(self.core, load_generation(tables), False)
        take_up_generation(self.core, 0)

    def __dealloc__(self):
        if self.core != NULL:
            if self.core.flows.buckets != NULL:
                core_finish(self.core, 0, &self.out, False)
                begin_call(self.core, 0, &self.out)
                flows_close(&self.core.flows)
            dialogue_pool_close(&self.core.dialogue_pool)
            pool_close(&self.core.pool)
            notes_close(&self.core.cookies)
            ring_close(&self.core.ring)
            free_generations(self.core)
            free(self.core)
        operations_free(&self.out)

    def process(self, data, uint64_t now, uint64_t id=0, uint32_t length=0, uint32_t in_interface=0,
                uint32_t out_interface=0, uint32_t flags=0,
                uint32_t connection=0):
        """Answers one packet: a list of (kind, id, bytes or None, to_server), in order.

        ``data`` begins with the IP header and is copied; ``length`` is the packet's
        when ``data`` is cut; ``now`` is in nanoseconds and never goes back.
        """
        cdef QueuedPacket packet
        self.buffer = bytearray(data)
        packet.data = self.buffer
        packet.captured = <uint32_t> len(self.buffer)
        packet.length = length or packet.captured
        packet.id = id
        packet.in_interface = in_interface
        packet.out_interface = out_interface
        packet.flags = flags
        packet.place = 0
        packet.connection = connection
        self.out.count = 0
        core_begin_batch(self.core, now)
        core_process(self.core, &packet, now, &self.out)
        return self.operations()

    def expire(self, uint64_t now):
        """What time has brought about: answers to held packets, like ``process``."""
        self.out.count = 0
        core_begin_batch(self.core, now)
        core_expire(self.core, now, &self.out)
        return self.operations()

    def finish(self, uint64_t now):
        """Ends every flow and answers every held packet."""
        self.out.count = 0
        core_finish(self.core, now, &self.out, False)
        return self.operations()

    cdef list operations(self):
        cdef list out = []
        cdef uint32_t i
        cdef Operation *operation
        for i in range(self.out.count):
            operation = &self.out.items[i]
            out.append((operation.kind, operation.id,
                        None if operation.data == NULL else (<const char *> operation.data)[:operation.length],
                        bool(operation.to_server)))
        return out

    @property
    def next_deadline(self):
        """When ``expire`` has work again, in nanoseconds; None: never, as things stand."""
        cdef uint64_t deadline = core_next_deadline(self.core)
        return None if deadline == UINT64_MAX else deadline

    def drain(self, int most=4096):
        """Up to ``most`` records, oldest first, as tuples in the order of ``events.records.Record``."""
        return ring_drain(&self.core.ring, most)

    def core_publish(self, Prepared prepared, bint begins_anew):
        """Makes them the rules of every flow that begins after the next batch has begun; their number in records.

        ``begins_anew``: what is open by then without a flow is taken for open before us. Raises ValueError where
        flows are under too many older ones. From one thread at a time, as ``generations`` and ``free_unused``.
        """
        cdef Generation *generation = prepared.generation
        if generation == NULL:
            raise ValueError("published already")
        if not publish_generation(self.core, generation, begins_anew):
            raise ValueError(f"flows are open under {MOST_GENERATIONS - 1} older rules; wait until some have ended")
        prepared.generation = NULL
        return generation.number

    def core_republish(self, uint8_t number):
        """The same of rules that were published before; whether they could be."""
        return republish_generation(self.core, number)

    @property
    def taken_up(self):
        """Whether the rules that were published last are those of flows that begin."""
        return generation_taken(self.core)

    def take_up(self, uint64_t now):
        """As a batch's beginning does. For a driver whose packets come through ``process``."""
        core_begin_batch(self.core, now)

    def generations(self):
        """(number, flows under it), the latest first, of all that are not freed."""
        cdef list out = []
        cdef Generation *one = self.core.published
        while one != NULL:
            out.append((one.number, flows_under(one)))
            one = one.older
        return out

    def free_unused(self):
        """Frees rules that nothing refers to any more; those of a flow's end at the second call after it."""
        free_unused_generations(self.core)

    def bound_windows(self, uint32_t data):
        """From now on windows are lowered so that all flows' packets on their way fit into ``data``; 0: no more."""
        self.core.room = data

    def chains(self):
        """How many flows each bucket of the table holds, by its number; empty ones are left out."""
        cdef dict out = {}
        cdef uint32_t i
        cdef Flow *flow
        for i in range(self.core.flows.bucket_count):
            flow = self.core.flows.buckets[i]
            while flow != NULL:
                out[i] = out.get(i, 0) + 1
                flow = flow.bucket_next
        return out

    def core_counters(self):
        """Every counter of the core by name, and the counts of findings by number."""
        cdef Counters counters = self.core.counters
        cdef dict out = counters
        for reason in range(DROP_REASONS):
            out["drop." + DROP_NAMES[reason]] = self.core.drops[reason]
        out["flows_now"] = self.core.flows.count
        out["memory_now"] = self.core.pool.used
        out["flows_opened_now"] = self.core.flows.opened
        out["table_octets"] = self.core.flows.bucket_count * sizeof(Flow *)
        out["records_lost"] = sum(self.core.ring.lost)
        for kind, name in enumerate(RECORD_NAMES, start=1):
            out["records_lost." + name] = self.core.ring.lost[kind]
        return out, [self.core.finding_counts[i] for i in range(MOST_FINDINGS)]
