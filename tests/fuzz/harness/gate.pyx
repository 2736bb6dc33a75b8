# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One core between two sides: what it answers is checked against its own promises.

Asserts invariant 1 (every packet is answered once, none twice, none out of thin air),
3 (same connection and place, never longer, right lengths and checksums), 5 (without a
ruling that applies every packet passes at once and as it came) and 6 (after the end
nothing of the flows is left in memory). The core sees each packet in an allocation of
its own that is gone after the call, so that the sanitizer sees a pointer that stayed.
Does not know what the packets mean.
"""

from libc.stdint cimport UINT64_MAX
from libc.stdio cimport printf
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from tests.fuzz.harness.fuzzer cimport violation
from nfmailguard.cext.engine cimport Engine
from nfmailguard.cext.process cimport core_expire, core_finish, core_next_deadline, core_process
from nfmailguard.cext.operation cimport (
    OP_ACCEPT, OP_DROP, OP_EMIT, OP_REPLACE, Operation, Operations, operations_reserve,
)
from nfmailguard.cext.wire.packet cimport PACKET_GSO, QueuedPacket

cdef extern from "wire.h" nogil:
    enum: WIRE_SYN, WIRE_RST
    uint32_t wire_length(const uint8_t *packet, uint32_t size) noexcept
    uint32_t wire_tcp(const uint8_t *packet, uint32_t size) noexcept
    void wire_show(const char *what, long number, const uint8_t *packet, uint32_t size) noexcept
    const char *wire_fault(const uint8_t *packet, uint32_t size) noexcept
    const char *wire_changed_more(const uint8_t *before, uint32_t size, const uint8_t *after, uint32_t left) noexcept

cdef extern from *:
    """
    #include <stddef.h>
    /* The address sanitizer's, where it is there: the first octet in a region that nobody may read. */
    extern void *__asan_region_is_poisoned(void *at, size_t size) __attribute__((weak));
    static int poisoned(void *at, size_t size) {
        return __asan_region_is_poisoned && __asan_region_is_poisoned(at, size);
    }
    """
    bint poisoned(void *at, size_t size) noexcept nogil

cdef struct Setting:
    Core *core
    uint32_t profile
    uint8_t changes
    uint8_t holds
    uint8_t inspects_all

# A packet of this execution: what was sent, as long as it may still be asked for.
cdef struct Packet:
    const uint8_t *data
    uint32_t captured
    uint32_t tag
    uint8_t to_server
    uint8_t answered
    uint8_t super_packet       # to be segmented behind the gateway

cdef list engines = []                     # keeps the cores alive
cdef Setting settings[MOST_SETTINGS]
cdef uint32_t setting_count = 0

cdef bint shown = False
cdef bint digesting = False
cdef uint64_t digest_now
cdef Setting *setting
cdef Deliver deliver_to
cdef Operations operations
cdef Packet packets[MOST_PACKETS]
cdef uint32_t packet_count
cdef uint32_t unanswered
cdef uint8_t arena[MOST_BYTES]
cdef uint32_t arena_used
cdef uint64_t first_id = 1                 # of this execution; ids are never used again
cdef uint64_t now = SECOND
cdef uint64_t passed_before, memory_before, held_before, lacking_before
cdef uint64_t passed_at_call
cdef uint8_t *current                      # the core's copy of the packet at work, of id first_id + packet_count - 1


def add_setting(Engine engine, uint32_t profile, bint changes, bint holds, bint inspects_all):
    """One more setting.

    ``profile``: which list of denied verbs is its. ``changes``: a ruling applies. ``holds``: the
    driver can hold packets. ``inspects_all``: no flow goes on uninspected.
    """
    global setting_count
    if setting_count == MOST_SETTINGS or profile >= MOST_PROFILES:
        raise ValueError("too many settings")
    if operations_reserve(&operations, 1) < 0:
        raise MemoryError
    engines.append(engine)
    settings[setting_count] = Setting(core=engine.core, profile=profile, changes=changes, holds=holds,
                                      inspects_all=inspects_all)
    setting_count += 1


def show(bint on):
    """Prints each packet and each answer of what is run from now on."""
    global shown
    shown = on


def begin_digest():
    """From now on `digest` tells one thing of all that is answered."""
    global digesting, digest_now
    digesting = True
    digest_now = 0xcbf29ce484222325


def digest():
    """FNV-1a, 64 bits, of every answer since it began: its kind, its packet, its bytes."""
    return digest_now


cdef inline void digest_byte(uint8_t byte) noexcept nogil:
    global digest_now
    digest_now = (digest_now ^ byte) * <uint64_t> 0x100000001b3


cdef void digest_answer(const Operation *operation) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t packet = operation.id - first_id if operation.id else 0xffff
    digest_byte(operation.kind)
    digest_byte(packet & 0xff)
    digest_byte(packet >> 8 & 0xff)
    for i in range(operation.length if operation.data != NULL else 0):
        digest_byte(operation.data[i])


def clear_settings():
    """Forgets every setting and its engine."""
    global setting_count
    setting_count = 0
    engines.clear()


cdef inline uint64_t lacking() noexcept nogil:
    # Packets that no counter of answers accounts for.
    return (setting.core.counters.packets - setting.core.counters.accepted - setting.core.counters.replaced
            - setting.core.counters.dropped)


cdef void gate_open(uint32_t number, Deliver deliver) noexcept nogil:
    global setting, deliver_to, packet_count, unanswered, arena_used, now
    global passed_before, memory_before, held_before, lacking_before
    setting = &settings[number % setting_count]
    deliver_to = deliver
    packet_count = unanswered = arena_used = 0
    now += SECOND
    # Nobody reads the records: without this the ring would be full soon, and nothing be written any more.
    setting.core.ring.head = setting.core.ring.tail = 0
    passed_before = setting.core.counters.flows_passed
    memory_before = setting.core.pool.used
    held_before = setting.core.counters.held_now
    lacking_before = lacking()


cdef bint gate_changes() noexcept nogil:
    return setting.changes


cdef bint gate_inspects_all() noexcept nogil:
    return setting.inspects_all


cdef uint32_t gate_profile() noexcept nogil:
    return setting.profile


cdef uint64_t gate_passed() noexcept nogil:
    return setting.core.counters.flows_passed - passed_before


cdef void check_emitted(const Operation *operation) noexcept nogil:
    cdef const char *fault = wire_fault(operation.data, operation.length)
    cdef uint32_t at
    if fault != NULL:
        violation("3 an emitted packet", fault, operation.length, operation.kind)
        return
    at = wire_tcp(operation.data, operation.length)
    if not operation.data[at + 13] & WIRE_RST or operation.length != at + 20:
        violation("3 an emitted packet", "no bare RST", operation.length, operation.data[at + 13])
    if operation.id:
        violation("1 an emitted packet", "it has an id", <long> operation.id, 0)
    if not setting.changes:
        violation("5 monitor", "a packet of its own", operation.length, 0)


cdef void check_answer(const Operation *operation) noexcept nogil:
    cdef uint64_t index = operation.id - first_id
    cdef bint at_work = current != NULL and index == packet_count - 1
    cdef Packet *packet
    cdef const char *fault
    if index >= packet_count:
        violation("1 an answer", "to a packet that was never sent", <long> operation.id, operation.kind)
        return
    packet = &packets[index]
    if packet.answered:
        violation("1 an answer", "to a packet that had one", <long> index, operation.kind)
        return
    packet.answered = 1
    unanswered_less()
    if not setting.changes and operation.kind != OP_ACCEPT:
        violation("5 monitor", "a packet did not pass as it came", <long> index, operation.kind)
    if operation.kind == OP_ACCEPT:
        # A flow that is let pass from here on goes as it came.
        if (at_work and memcmp(current, packet.data, packet.captured) != 0
                and setting.core.counters.flows_passed == passed_at_call):
            violation("2 an accepted packet", "octets were changed, but not in what leaves", <long> index, 0)
        deliver_to(packet.tag, packet.to_server, packet.data, packet.captured)
    elif operation.kind == OP_REPLACE:
        fault = wire_fault(operation.data, operation.length)
        if fault == NULL:
            fault = wire_changed_more(packet.data, packet.captured, operation.data, operation.length)
        if fault != NULL:
            violation("3 a replaced packet", fault, <long> index, operation.length)
            return
        if packet.super_packet and operation.length < wire_length(packet.data, packet.captured) and not (
                packet.data[wire_tcp(packet.data, packet.captured) + 13] & (WIRE_SYN | WIRE_RST)):
            # Trimmed below its segment size the kernel drops it.
            violation("3 a super-packet", "was trimmed", <long> index, operation.length)
        deliver_to(packet.tag, packet.to_server, operation.data, operation.length)
    elif operation.kind != OP_DROP:
        violation("1 an answer", "of no known kind", <long> index, operation.kind)


cdef inline void unanswered_less() noexcept nogil:
    global unanswered
    unanswered -= 1


cdef void show_answer(const Operation *operation) noexcept nogil:
    cdef long number = <long> (operation.id - first_id) if operation.id else -1
    if operation.kind == OP_ACCEPT:
        printf("   accept %ld\n", number)
    elif operation.kind == OP_DROP:
        printf("   drop %ld\n", number)
    else:
        wire_show("   replace" if operation.kind == OP_REPLACE else "   emit", number, operation.data, operation.length)


cdef void carry_out() noexcept nogil:
    cdef uint32_t i
    for i in range(operations.count):
        if operations.items[i].data != NULL and poisoned(operations.items[i].data, operations.items[i].length):
            violation("7 an answer", "with octets that are not there", operations.items[i].length, i)
            continue
        if shown:
            show_answer(&operations.items[i])
        if digesting:
            digest_answer(&operations.items[i])
        if operations.items[i].kind == OP_EMIT:
            check_emitted(&operations.items[i])
        else:
            check_answer(&operations.items[i])
    if setting.core.pool.used > setting.core.pool.limit:
        violation("6 memory", "is above its limit", <long> setting.core.pool.used, <long> setting.core.pool.limit)
    if setting.core.flows.count > setting.core.flows.limit:
        violation("6 flows", "are more than the limit", setting.core.flows.count, setting.core.flows.limit)
    if setting.core.counters.held_now > setting.core.held_limit:
        violation("6 held packets", "are more than the limit", <long> setting.core.counters.held_now,
                  setting.core.held_limit)


cdef int gate_send(const Sent *sent) noexcept nogil:
    global packet_count, arena_used, now, unanswered, current, passed_at_call
    cdef QueuedPacket queued
    cdef Packet *packet = &packets[packet_count]
    if packet_count == MOST_PACKETS or arena_used + sent.captured > MOST_BYTES:
        return -1
    memcpy(arena + arena_used, sent.data, sent.captured)
    packet.data = arena + arena_used
    packet.captured = sent.captured
    packet.tag = sent.tag
    packet.to_server = sent.to_server
    packet.answered = 0
    packet.super_packet = sent.flags & PACKET_GSO
    arena_used += sent.captured
    current = <uint8_t *> malloc(sent.captured)
    if current == NULL:
        return -1
    memcpy(current, sent.data, sent.captured)
    memset(&queued, 0, sizeof(queued))
    queued.data = current
    queued.id = first_id + packet_count
    queued.captured = sent.captured
    queued.length = sent.length
    queued.flags = sent.flags
    queued.in_interface = sent.in_interface
    queued.out_interface = sent.out_interface
    packet_count += 1
    unanswered += 1
    now += 1000
    if shown:
        wire_show("packet" if sent.tag < 256 else "packet, lost later,", packet_count - 1, sent.data, sent.captured)
    operations.count = 0
    passed_at_call = setting.core.counters.flows_passed
    core_process(setting.core, &queued, now, &operations)
    carry_out()
    free(current)
    current = NULL
    if unanswered and not (setting.changes and setting.holds):
        violation("1 a packet", "held where nothing may be held", packet_count - 1, setting.changes)
    return 0


cdef void gate_wait(uint64_t nanoseconds) noexcept nogil:
    global now
    now += nanoseconds
    if core_next_deadline(setting.core) > now:
        return
    operations.count = 0
    core_expire(setting.core, now, &operations)
    carry_out()
    if core_next_deadline(setting.core) <= now:
        violation("6 a deadline", "is still there after its expiry", 0, 0)


cdef void gate_expire() noexcept nogil:
    cdef uint64_t deadline = core_next_deadline(setting.core)
    if deadline != UINT64_MAX:
        gate_wait(deadline - now if deadline > now else 0)


cdef void gate_close() noexcept nogil:
    global first_id
    cdef uint32_t i
    operations.count = 0
    core_finish(setting.core, now, &operations, False)
    carry_out()
    for i in range(packet_count):
        if not packets[i].answered:
            violation("1 a packet", "without an answer", i, packet_count)
    first_id += packet_count
    operations.count = 0
    core_expire(setting.core, now, &operations)      # what was lent until the next call comes back
    if operations.count:
        violation("1 an answer", "after the end", operations.count, 0)
    if setting.core.flows.count:
        violation("6 flows", "are left after the end", setting.core.flows.count, 0)
    if setting.core.pool.used != memory_before:
        violation("6 memory", "is left after the end", <long> setting.core.pool.used, <long> memory_before)
    if setting.core.counters.held_now != held_before:
        violation("6 held packets", "are left after the end", <long> setting.core.counters.held_now, 0)
    if lacking() != lacking_before:
        violation("1 counters", "packets are not all accepted, replaced or dropped", <long> lacking(), 0)
