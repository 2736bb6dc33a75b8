# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Conditions: findings about a flow as a whole, or about a packet that belongs to no flow.

Promises: each condition is reported once, under its flow's rule. Returns the action; never carries it out itself.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from nfmailguard.cext.core cimport FlowlessFindings
from nfmailguard.cext.flow.rules cimport choose_rule, inspected_port
from nfmailguard.cext.flow.table cimport source_at
from nfmailguard.cext.policy.findings cimport report
from nfmailguard.cext.policy.numbers cimport ACTION_LOG, ACTION_PASS, STREAM_CONFLICTING_RETRANSMISSION, UNTOLD
from nfmailguard.cext.policy.tally cimport TALLY_UNTOLD
from nfmailguard.cext.record cimport Identity
from nfmailguard.cext.smtp.session cimport Session

cdef enum:
    SECOND = 1000000000                # one second in nanoseconds


cdef void set_context(Core *core, Flow *flow, Context *context, uint64_t now) noexcept nogil:
    memset(context, 0, sizeof(Context))
    context.policy = flow.policy
    context.grammar = flow.policy.grammar
    context.ring = &core.ring
    context.line_pool = &core.dialogue_pool.line_pool
    context.identity = &flow.identity
    context.session = &flow.session
    context.untold = UNTOLD if flow.session.junk > flow.policy.junk_commands else 0
    context.omitted = &core.counters.records_omitted
    context.finding_counts = core.finding_counts
    context.repeated = &core.counters.findings_repeated
    context.now = now


cdef uint8_t report_condition(Core *core, Flow *flow, uint8_t finding, bint to_server, uint64_t now) noexcept nogil:
    cdef Context context
    set_context(core, flow, &context, now)
    return report(&context, finding, to_server, 0, flow.stream[to_server].bytes)


cdef uint8_t conflicting(Core *core, Flow *flow, bint to_server, uint64_t now) noexcept nogil:
    # The first copy's bytes stand in any case; the action says whether this packet and the flow go on.
    cdef uint8_t action = report_condition(core, flow, STREAM_CONFLICTING_RETRANSMISSION, to_server, now)
    return ACTION_PASS if action <= ACTION_LOG else action


cdef uint32_t flowless_number(FlowlessFindings *flowless_findings, uint32_t first, uint64_t now) noexcept nogil:
    # At most `first` findings of a kind are logged per second. The number in the next logged one says how many it
    # stands for: itself, and those left out since the one before.
    cdef uint32_t number
    if now // SECOND != flowless_findings.second:
        flowless_findings.second = now // SECOND
        flowless_findings.count = 0
    if flowless_findings.count >= first:
        flowless_findings.untold += 1
        return TALLY_UNTOLD
    flowless_findings.count += 1
    number = flowless_findings.untold + 1
    flowless_findings.untold = 0
    return number


cdef void identify_flowless(Core *core, Packet *packet, bint to_server, Identity *identity) noexcept nogil:
    """Fills in the identity that a flow begun by this packet would have: addresses, ports and rule."""
    cdef uint32_t size = 4 if packet.family == 4 else 16
    memset(identity, 0, sizeof(Identity))
    identity.family = packet.family
    memcpy(identity.client, packet.source if to_server else packet.destination, size)
    memcpy(identity.server, packet.destination if to_server else packet.source, size)
    if packet.tcp != NULL:
        identity.client_port = packet.source_port if to_server else packet.destination_port
        identity.server_port = packet.destination_port if to_server else packet.source_port
    identity.rule = <uint8_t> choose_rule(
        core, identity, packet.queued.in_interface if to_server else packet.queued.out_interface)


cdef bint is_to_server(Core *core, Packet *packet) noexcept nogil:
    # Without ports (IP fragments) the rules decide: to the server if a rule other than the last one matches this
    # direction; from the server if one matches the opposite direction only; else to the server.
    cdef Identity identity
    if packet.tcp != NULL:
        return inspected_port(core, packet.destination_port)
    identify_flowless(core, packet, True, &identity)
    if identity.rule != core.generation.rule_count - 1:
        return True
    identify_flowless(core, packet, False, &identity)
    return identity.rule == core.generation.rule_count - 1


cdef CompiledPolicy *policy_of(Core *core, Packet *packet, bint to_server) noexcept nogil:
    cdef Identity identity
    identify_flowless(core, packet, to_server, &identity)
    return &core.generation.rules[identity.rule].policy


cdef CompiledPolicy *policy_without_flow(Core *core, Packet *packet) noexcept nogil:
    if packet.source == NULL:
        return &core.generation.rules[core.generation.rule_count - 1].policy
    return policy_of(core, packet, is_to_server(core, packet))


cdef uint8_t report_without_flow(Core *core, Packet *packet, uint8_t finding, bint to_server,
                                 uint64_t now) noexcept nogil:
    cdef Context context
    cdef Session session
    cdef Identity identity
    memset(&context, 0, sizeof(Context))
    memset(&session, 0, sizeof(Session))
    identify_flowless(core, packet, to_server, &identity)
    identity.source = source_at(&core.flows, identity.client, identity.family)
    context.policy = &core.generation.rules[identity.rule].policy
    context.grammar = context.policy.grammar
    context.ring = &core.ring
    context.line_pool = &core.dialogue_pool.line_pool
    context.identity = &identity
    context.session = &session
    context.finding_counts = core.finding_counts
    context.repeated = &core.counters.findings_repeated
    context.number = flowless_number(&core.flowless_findings[finding], context.policy.findings_told, now)
    context.now = now
    return report(&context, finding, to_server, 0, 0)
