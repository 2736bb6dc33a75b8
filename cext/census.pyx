# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Requests a census of an engine's flows, from Python.

Promises: only copies made by the packet thread are read; a census that is given up is freed only when the packet
thread is not writing to it. Does not know how a slice is filled.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from nfmailguard.cext.engine cimport Engine
from nfmailguard.cext.flow.census cimport (
    Census, FlowSummary, nm_give_census, nm_load_census, nm_load_filled, nm_take_census,
)
from nfmailguard.cext.record cimport MOST_RULES

cdef enum:
    LONGEST_CHAIN = 64         # most flows in a hash bucket; the hash is keyed, and no longer chain has been seen


cdef class FlowCensus:
    """The flows of an engine, slice by slice: ``ask``, then ``take`` once ``filled`` is true, until ``ended`` is true.

    One census at a time. The packet thread fills a slice when a batch begins; an idle one has to be woken up for that.
    """
    cdef Engine engine
    cdef Census census
    cdef bint asked

    def __cinit__(self, Engine engine, uint32_t capacity):
        self.engine = engine
        self.census.capacity = max(capacity, <uint32_t> LONGEST_CHAIN)
        self.census.summaries = <FlowSummary *> calloc(self.census.capacity, sizeof(FlowSummary))
        if self.census.summaries == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.asked and nm_take_census(&self.engine.core.census) == NULL:
            while not nm_load_filled(&self.census.filled):
                pass                                   # wait: the packet thread is filling the slice at this moment
        free(self.census.summaries)

    def ask(self):
        """Asks for the next slice. Raises RuntimeError while another census is being taken."""
        if nm_load_census(&self.engine.core.census) != NULL:
            raise RuntimeError("flows are being counted out to another")
        self.census.filled = 0
        self.asked = True
        nm_give_census(&self.engine.core.census, &self.census)

    @property
    def filled(self):
        return nm_load_filled(&self.census.filled) != 0

    @property
    def ended(self):
        return self.census.ended != 0

    def take(self, int state=-1, networks=()):
        """The slice's flows in FlowState ``state`` (-1: any) with a client in ``networks`` (empty: any), as tuples."""
        cdef list out = []
        cdef FlowSummary *one
        cdef uint32_t i
        cdef int size
        self.asked = False
        for i in range(self.census.count):
            one = &self.census.summaries[i]
            size = 4 if one.identity.family == 4 else 16
            if state >= 0 and one.state != state:
                continue
            client = (<const char *> one.identity.client)[:size]
            if networks and not any(within(client, network, bits) for network, bits in networks):
                continue
            out.append((
                one.identity.flow_id, one.generation * MOST_RULES + one.identity.rule, client, one.identity.client_port,
                (<const char *> one.identity.server)[:size], one.identity.server_port, one.state, one.mode,
                one.session_state, bool(one.applied), one.started, one.seen, (one.bytes[0], one.bytes[1]),
                (one.packets[0], one.packets[1]), one.held, one.ahead, one.outstanding, bool(one.waiting), one.verb,
                one.input, bool(one.syn_ack), bool(one.answered), bool(one.confirmed),
            ))
        return out


def within(bytes address, bytes network, int bits):
    """Whether an address is in a network with a prefix of ``bits`` bits."""
    cdef int left = 8 * len(address) - bits
    return len(address) == len(network) and (
        int.from_bytes(address, "big") >> left == int.from_bytes(network, "big") >> left)
