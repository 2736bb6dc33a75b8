# A census: summaries of all flows, which the packet thread copies in slices between two batches of packets.
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.flow.table cimport FlowTable
from nfmailguard.cext.record cimport Identity

cdef struct FlowSummary:
    Identity identity
    uint64_t started           # time of the flow's beginning in nanoseconds
    uint64_t seen
    uint64_t bytes[2]          # bytes of the flow's packets: [0] to the client, [1] to the server
    uint32_t packets[2]
    uint32_t held              # packets of the flow that are held in the kernel's queue
    uint32_t ahead             # segments of the flow that were forwarded ahead of a gap
    uint32_t outstanding       # SMTP commands of the flow whose replies have not come
    uint8_t generation
    uint8_t state              # FlowState: how far the connection has come, and which timeout applies
    uint8_t mode               # FlowMode: whether its packets are inspected, passed, dropped or reset
    uint8_t session_state      # state of the SMTP session (smtp.states.State)
    uint8_t applied
    uint8_t waiting            # whether the client has to wait for a reply
    uint8_t verb               # number, in its grammar, of the verb whose reply is waited for, or is to come next
    uint8_t input              # how the client's next bytes are read (smtp.verbs.Input)
    uint8_t syn_ack
    uint8_t answered
    uint8_t confirmed

# One slice of a census. The asking thread allocates it and hands it over; the packet thread fills and returns it.
cdef struct Census:
    FlowSummary *summaries
    uint32_t capacity
    uint32_t count
    uint32_t bucket            # bucket of the flow table where the next slice begins
    uint32_t filled            # atomic; 1: the slice is filled, and belongs to the asking thread again
    uint8_t ended              # whether this was the last slice

cdef extern from "atomic.h":
    Census *nm_load_census "nm_load_relaxed"(Census **p) noexcept nogil
    Census *nm_take_census "nm_take"(Census **p) noexcept nogil
    void nm_give_census "nm_store_release"(Census **p, Census *v) noexcept nogil
    uint32_t nm_load_filled "nm_load_acquire"(uint32_t *p) noexcept nogil
    void nm_store_filled "nm_store_release"(uint32_t *p, uint32_t v) noexcept nogil

# Fills a slice with as many flows as fit, from `bucket` on. A bucket's flows are copied together, so that no flow that
# stays in the table is missed or listed twice.
cdef void census_fill(Census *census, const FlowTable *table) noexcept nogil
