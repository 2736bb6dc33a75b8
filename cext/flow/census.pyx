# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A census of the flow table, in slices: summaries of its flows, copied between two batches of packets.

Keeps invariant 6 (bounded): a slice examines no more flows than it has room for, and a limited number of buckets.
Promises: a flow that is open during the whole census is listed once. Does not know who asks.
"""

from libc.stdint cimport uint32_t

from nfmailguard.cext.flow.table cimport CLIENT_ANSWERED, CONFIRMED, SERVER_ANSWERED, Flow, nm_prefetch
from nfmailguard.cext.policy.ruling cimport applies
from nfmailguard.cext.smtp.outstanding cimport expected_verb
from nfmailguard.cext.tcp.stream cimport stream_buffered_count, stream_held_count

cdef enum:
    BUCKETS_A_FLOW = 8         # buckets that a slice examines, at most, for each flow it has room for
    FORESIGHT = 8


cdef inline uint32_t chain_length(const Flow *flow) noexcept nogil:
    cdef uint32_t length = 0
    while flow != NULL:
        length += 1
        flow = flow.bucket_next
    return length


cdef void summarise(const Flow *flow, FlowSummary *summary) noexcept nogil:
    summary.identity = flow.identity
    summary.started = flow.started
    summary.seen = flow.seen
    summary.bytes[0] = flow.bytes[0]
    summary.bytes[1] = flow.bytes[1]
    summary.packets[0] = flow.packets[0]
    summary.packets[1] = flow.packets[1]
    summary.held = stream_held_count(&flow.stream[0]) + stream_held_count(&flow.stream[1])
    summary.ahead = stream_buffered_count(&flow.stream[0]) + stream_buffered_count(&flow.stream[1])
    summary.generation = flow.policy.generation
    summary.state = flow.state
    summary.mode = flow.mode
    summary.session_state = flow.session.state
    summary.applied = applies(flow.policy)
    summary.syn_ack = flow.handshake & SERVER_ANSWERED != 0
    summary.answered = flow.handshake & CLIENT_ANSWERED != 0
    summary.confirmed = flow.handshake & CONFIRMED != 0
    summary.outstanding = summary.waiting = summary.verb = summary.input = 0
    if flow.dialogue != NULL:
        summary.outstanding = flow.dialogue.exchange.count
        summary.waiting = flow.dialogue.exchange.waiting != 0
        summary.verb = expected_verb(&flow.dialogue.exchange)
        summary.input = flow.dialogue.exchange.input


cdef void census_fill(Census *census, const FlowTable *table) noexcept nogil:
    cdef uint32_t bucket = census.bucket, end = table.bucket_count, length
    cdef const Flow *flow
    if end - bucket > census.capacity * BUCKETS_A_FLOW:
        end = bucket + census.capacity * BUCKETS_A_FLOW
    census.count = 0
    while bucket < end:
        if bucket + FORESIGHT < end:
            nm_prefetch(table.buckets[bucket + FORESIGHT])
        flow = table.buckets[bucket]
        length = chain_length(flow)
        if length > census.capacity - census.count and census.count:
            break
        while flow != NULL and census.count < census.capacity:
            summarise(flow, &census.summaries[census.count])
            census.count += 1
            flow = flow.bucket_next
        bucket += 1
    census.bucket = bucket
    census.ended = bucket == table.bucket_count
    nm_store_filled(&census.filled, 1)
