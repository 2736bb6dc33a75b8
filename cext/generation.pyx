# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Generations of rules: published complete, taken up between two batches, freed when nothing refers to them.

Two threads: the packet thread reads one pointer per batch, and never waits; the control thread (whoever calls from
Python, one at a time) makes, publishes and frees generations. Promises: a flow keeps the rules it began under; they are
freed only when no flow is under them, the packet thread has begun another batch since that was seen, and every record
that names them has been read. Does not know what the rules say.
"""

from libc.string cimport memcpy, memset

from nfmailguard.cext.core cimport MOST_GENERATIONS, Settings
from nfmailguard.cext.flow.table cimport FLOW_STATES
from nfmailguard.cext.memory.pool cimport pool_bound
from nfmailguard.cext.tables cimport free_generation

cdef extern from "atomic.h":
    Generation *nm_load_pointer "nm_load_acquire"(Generation **p) noexcept nogil
    void nm_store_pointer "nm_store_release"(Generation **p, Generation *v) noexcept nogil
    uint64_t nm_load_number "nm_load_acquire"(uint64_t *p) noexcept nogil
    void nm_store_number "nm_store_release"(uint64_t *p, uint64_t v) noexcept nogil
    uint32_t nm_load_flows "nm_load_acquire"(uint32_t *p) noexcept nogil


cdef void apply_settings(Core *core, const Settings *settings) noexcept nogil:
    cdef int i
    for i in range(FLOW_STATES):
        core.timeout[i] = settings.timeout[i]
    core.held_timeout = settings.held_timeout
    core.stalled_timeout = settings.stalled_timeout
    core.held_limit = settings.held_limit
    core.held_flow_limit = settings.held_flow_limit
    core.held_source_limit = settings.held_source_limit
    core.pending_limit = settings.pending_limit
    memcpy(core.ports, settings.ports, sizeof(settings.ports))
    pool_bound(&core.pool, settings.memory)
    core.flows.source_limit = settings.source_limit
    core.ring.kinds = settings.record_kinds


cdef void take_up_generation(Core *core, uint64_t now) noexcept nogil:
    cdef Generation *latest
    # The turn is stored before the pointer is loaded: once the control thread sees the new turn, pointers that this
    # thread loaded in earlier turns are out of use.
    nm_store_number(&core.turns, core.turns + 1)
    latest = nm_load_pointer(&core.published)
    if latest == core.generation:
        return
    apply_settings(core, &latest.settings)
    if latest.begins_anew and core.generation != NULL:
        core.started, core.forgot = now, 0
    nm_store_pointer(&core.generation, latest)


cdef bint generation_taken(Core *core) noexcept nogil:
    return nm_load_pointer(&core.generation) == core.published


cdef uint32_t flows_under(Generation *generation) noexcept nogil:
    return nm_load_flows(&generation.flows)


cdef int free_number(Core *core) noexcept:
    # The lowest number that no generation has.
    cdef uint8_t taken[MOST_GENERATIONS]
    cdef Generation *one = core.published
    cdef int number
    memset(taken, 0, sizeof(taken))
    while one != NULL:
        taken[one.number] = 1
        one = one.older
    for number in range(MOST_GENERATIONS):
        if not taken[number]:
            return number
    return -1


cdef bint give_number(Core *core, Generation *generation) noexcept:
    cdef int number = free_number(core)
    cdef uint32_t i
    if number < 0:
        return False
    generation.number = <uint8_t> number
    for i in range(generation.rule_count):
        generation.rules[i].policy.generation = <uint8_t> number
    return True


cdef bint add_older_generation(Core *core, Generation *generation) noexcept:
    if not give_number(core, generation):
        return False
    generation.older = core.published.older
    core.published.older = generation
    return True


cdef bint publish_generation(Core *core, Generation *generation, bint begins_anew) noexcept:
    free_unused_generations(core)
    if not give_number(core, generation):
        return False
    generation.older = core.published
    # If the one before was never taken up, its successor has to begin anew in its place.
    generation.begins_anew = begins_anew or (
        core.published != NULL and core.published.begins_anew and not generation_taken(core))
    nm_store_pointer(&core.published, generation)
    return True


cdef bint republish_generation(Core *core, uint8_t number) noexcept:
    cdef Generation **place = &core.published
    cdef Generation *one
    if not generation_taken(core):
        return False                               # the latest may have to begin anew, an older one never does
    while place[0] != NULL and place[0].number != number:
        place = &place[0].older
    one = place[0]
    if one == NULL:
        return False
    if one != core.published:
        place[0] = one.older
        one.older = core.published
        one.unused = one.begins_anew = 0
        nm_store_pointer(&core.published, one)
    return True


cdef bint is_unused(Core *core, Generation *generation) noexcept:
    cdef uint64_t turn = nm_load_number(&core.turns)
    if flows_under(generation):
        generation.unused = 0
        return False
    if not generation.unused:
        generation.unused = 1
        generation.seen_turn = turn
        generation.seen_head = nm_load_number(&core.ring.head)
        return False
    return turn != generation.seen_turn and core.ring.tail >= generation.seen_head


cdef void free_unused_generations(Core *core) noexcept:
    cdef Generation **place
    cdef Generation *one
    if core.published == NULL or not generation_taken(core):
        return                                     # the packet thread may still use the one before the latest
    place = &core.published.older
    while place[0] != NULL:
        one = place[0]
        if is_unused(core, one):
            place[0] = one.older
            free_generation(one)
        else:
            place = &one.older


cdef void free_generations(Core *core) noexcept:
    cdef Generation *one
    while core.published != NULL:
        one = core.published
        core.published = one.older
        free_generation(one)
    core.generation = NULL
