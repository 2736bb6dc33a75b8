# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""RSTs that the gateway itself sends.

Keeps invariant 3 (same length) for these RSTs: a RST carries the sequence number that its receiver expects.
"""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from nfmailguard.cext.core cimport MOST_EMITTED
from nfmailguard.cext.operation cimport OP_EMIT, operation_append
from nfmailguard.cext.wire.packet cimport TCP_ACK, TCP_RST, Ends, packet_build

cdef enum:
    SECOND = 1000000000        # one second in nanoseconds
    MOST_REFUSALS = 1000       # RSTs sent in a second, at most, to packets of no flow


cdef void emit_reset(Core *core, Flow *flow, bint to_server, Operations *out) noexcept nogil:
    cdef uint8_t *packet
    cdef uint32_t seq, ack, length
    cdef Ends ends
    if core.emitted_now == MOST_EMITTED:
        return
    packet = core.emitted[core.emitted_now]
    core.emitted_now += 1
    ack = flow.stream[not to_server].next_seq
    # The server expects the first byte that was not forwarded to it; the client expects the byte after its last ACK.
    seq = flow.stream[1].next_seq if to_server else flow.stream[0].last_ack
    ends.family = flow.identity.family
    ends.source, ends.source_port = flow.identity.server, flow.identity.server_port
    ends.destination, ends.destination_port = flow.identity.client, flow.identity.client_port
    if to_server:
        ends.source, ends.source_port = flow.identity.client, flow.identity.client_port
        ends.destination, ends.destination_port = flow.identity.server, flow.identity.server_port
    length = packet_build(packet, &ends, seq, ack, TCP_RST | TCP_ACK)
    operation_append(out, OP_EMIT, 0, packet, length).to_server = to_server
    core.counters.emitted += 1


cdef inline bint may_refuse(Core *core, uint64_t now) noexcept nogil:
    # Sending a RST is a system call and costs more than the packet it answers; a sender that gets none sends again.
    if now // SECOND != core.refusals_second:
        core.refusals_second = now // SECOND
        core.refusals = 0
    if core.refusals >= MOST_REFUSALS:
        core.counters.refusals_omitted += 1
        return False
    core.refusals += 1
    return True


cdef void emit_refusal(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    # What a host answers to a packet of a connection that it does not have (RFC 9293 3.5.2).
    cdef uint8_t *answer
    cdef uint32_t length
    cdef Ends ends
    if core.emitted_now == MOST_EMITTED or packet.flags & TCP_RST or not may_refuse(core, now):
        return
    answer = core.emitted[core.emitted_now]
    core.emitted_now += 1
    ends.family = packet.family
    ends.source, ends.source_port = packet.destination, packet.destination_port
    ends.destination, ends.destination_port = packet.source, packet.source_port
    if packet.flags & TCP_ACK:
        length = packet_build(answer, &ends, packet.ack, 0, TCP_RST)
    else:
        length = packet_build(answer, &ends, 0, packet.seq + packet.payload_length + 1, TCP_RST | TCP_ACK)
    operation_append(out, OP_EMIT, 0, answer, length).to_server = not to_server
    core.counters.emitted += 1
