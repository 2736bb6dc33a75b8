# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The core's interface for Python: an engine, its rules, and packets one by one.

Does not know how a packet is decided.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free

from nfmailguard.cext.core cimport DROP_REASONS, MOST_GENERATIONS as MOST_AT_ONCE, Counters, Generation
from nfmailguard.cext.flow.table cimport Flow, flows_close, flows_open
from nfmailguard.cext.generation cimport (
    flows_under, free_generations, free_unused_generations, generation_taken, publish_generation,
    republish_generation, take_up_generation,
)
from nfmailguard.cext.memory.pool cimport memory_cost, pool_close
from nfmailguard.cext.operation cimport Operation, operations_clear, operations_free, operations_reserve
from nfmailguard.cext.policy.numbers cimport MOST_FINDINGS
from nfmailguard.cext.process cimport (
    begin_call, core_begin_batch, core_expire, core_finish, core_next_deadline, core_process,
)
from nfmailguard.cext.record cimport MOST_RULES as MOST, ring_close, ring_drain, ring_open
from nfmailguard.cext.smtp.dialogue cimport dialogue_pool_close, dialogue_pool_open
from nfmailguard.cext.tables cimport free_generation, load_generation
from nfmailguard.cext.tcp.syncookie cimport notes_close, notes_open
from nfmailguard.cext.wire.packet cimport QueuedPacket

#: Bytes of memory for a flow, without what its streams keep. Flows may have half of limits.memory.
FLOW_BYTES = memory_cost(sizeof(Flow))

#: Most rules of a generation. In records, rule R of generation N has the number N * MOST_RULES + R.
MOST_RULES = MOST
#: Most generations of rules in use at once.
MOST_GENERATIONS = MOST_AT_ONCE

#: Names of the reasons for drops, in the order of DropReason.
DROP_NAMES = (
    "checksum", "flags", "fragment", "malformed", "truncated", "flow_limit", "midstream", "interface", "syn_ack",
    "window", "gap", "behind_fin", "repeated", "held_too_long", "super_packet", "condition", "finding", "closes_gap",
    "flow_ended", "end_kept", "internal", "option", "rst", "closed", "cookie", "early", "memory", "connection",
)

#: Names of the kinds of records, in the order of RecordKind, from 1 on.
RECORD_NAMES = ("finding", "command", "reply", "message", "flow", "repeated")


cdef class Prepared:
    """Rules and settings in the core's form, not in use yet; made through ``nfmailguard.engine``."""

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
        """Processes one packet; returns a list of (kind, id, bytes or None, to_server), in order.

        ``data`` begins with the IP header and is copied; ``length`` is the packet's real length
        where ``data`` is cut; ``now`` is in nanoseconds and never goes back.
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
        operations_clear(&self.out)
        core_begin_batch(self.core, now)
        core_process(self.core, &packet, now, &self.out)
        return self.operations()

    def expire(self, uint64_t now):
        """Runs the timers due by ``now``; returns answers to held packets in the form of ``process``."""
        operations_clear(&self.out)
        core_begin_batch(self.core, now)
        core_expire(self.core, now, &self.out)
        return self.operations()

    def finish(self, uint64_t now):
        """Ends every flow and answers every held packet."""
        operations_clear(&self.out)
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
        """When ``expire`` next has work, in nanoseconds; None: never, unless a packet comes."""
        cdef uint64_t deadline = core_next_deadline(self.core)
        return None if deadline == UINT64_MAX else deadline

    def drain(self, int most=4096):
        """Up to ``most`` records, oldest first, as tuples in the order of ``events.records.Record``."""
        return ring_drain(&self.core.ring, most)

    def core_publish(self, Prepared prepared, bint begins_anew):
        """Makes the prepared rules those of flows that begin after the next batch has begun; their number in records.

        ``begins_anew``: connections open by then without a flow count as opened before our start. ValueError where
        too many older generations have flows. For one thread at a time, like ``generations`` and ``free_unused``.
        """
        cdef Generation *generation = prepared.generation
        if generation == NULL:
            raise ValueError("published already")
        if not publish_generation(self.core, generation, begins_anew):
            raise ValueError(f"flows are open under {MOST_GENERATIONS - 1} older rules; wait until some have ended")
        prepared.generation = NULL
        return generation.number

    def core_republish(self, uint8_t number):
        """Publishes rules again that were published before; returns whether that was possible."""
        return republish_generation(self.core, number)

    @property
    def taken_up(self):
        """Whether the rules published last are already those of new flows."""
        return generation_taken(self.core)

    def take_up(self, uint64_t now):
        """Takes up new rules, as the beginning of a batch does; for a driver whose packets come through ``process``."""
        core_begin_batch(self.core, now)

    def generations(self):
        """All generations that are not freed, as (number, open flows under it), the latest first."""
        cdef list out = []
        cdef Generation *one = self.core.published
        while one != NULL:
            out.append((one.number, flows_under(one)))
            one = one.older
        return out

    def free_unused(self):
        """Frees rules that nothing refers to any more: at the second call after the end of their last flow."""
        free_unused_generations(self.core)

    def bound_windows(self, uint32_t data):
        """Lowers TCP windows from now on so that all flows' packets in flight fit into ``data`` bytes; 0: no longer."""
        self.core.room = data

    def chains(self):
        """The number of flows in each hash bucket of the flow table, by bucket; empty buckets are left out."""
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
        """All counters of the core by name, and the counts of findings by number."""
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
