# A census: what flows there are, counted out by the packet thread in slices between two batches.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.flow.table cimport FlowTable
from nfmailguard.cext.record cimport Identity

cdef struct FlowSummary:
    Identity identity
    uint64_t started           # nanoseconds
    uint64_t seen
    uint64_t bytes[2]          # to the client, to the server
    uint32_t packets[2]
    uint32_t held              # packets in the kernel's queue
    uint32_t ahead             # segments that went ahead of a gap
    uint32_t outstanding       # commands without a reply
    uint8_t generation
    uint8_t state              # FlowState
    uint8_t mode               # FlowMode
    uint8_t session_state      # smtp.states.State
    uint8_t applied
    uint8_t waiting            # the client has to wait for a reply
    uint8_t verb               # to this verb of its grammar, or the oldest outstanding one
    uint8_t input              # smtp.verbs.Input
    uint8_t syn_ack
    uint8_t answered
    uint8_t confirmed

# One slice. Who asks makes it and hands it over; the packet thread fills it and gives it back.
cdef struct Census:
    FlowSummary *summaries
    uint32_t capacity
    uint32_t count
    uint32_t bucket            # of the flow table: where the next slice begins
    uint32_t filled            # atomic: it is the asking thread's again
    uint8_t ended              # there is no more

cdef extern from "atomic.h":
    Census *nm_load_census "nm_load_relaxed"(Census **p) noexcept nogil
    Census *nm_take_census "nm_take"(Census **p) noexcept nogil
    void nm_give_census "nm_store_release"(Census **p, Census *v) noexcept nogil
    uint32_t nm_load_filled "nm_load_acquire"(uint32_t *p) noexcept nogil
    void nm_store_filled "nm_store_release"(uint32_t *p, uint32_t v) noexcept nogil

# As many flows as fit, from the bucket on: a bucket's all at once, so that none that stays is missed or told twice.
cdef void census_fill(Census *census, const FlowTable *table) noexcept nogil
