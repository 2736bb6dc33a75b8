# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Actions: turns a finding about a packet into the packet's verdict, and ends the flow where the policy says so."""

from nfmailguard.cext.core cimport DROP_CONDITION, DROP_TRUNCATED
from nfmailguard.cext.flow.lifecycle cimport end_flow, stop_following
from nfmailguard.cext.flow.table cimport FLOW_INSPECTED
from nfmailguard.cext.policy.conditions cimport report_condition
from nfmailguard.cext.policy.numbers cimport ACTION_DROP, ACTION_LOG, PACKET_TRUNCATED
from nfmailguard.cext.tcp.passed cimport follow_passed
from nfmailguard.cext.verdict cimport accept, drop


cdef void answer_by(Core *core, Flow *flow, uint8_t action, uint8_t reason, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil:
    if action <= ACTION_LOG:
        accept(core, packet.queued.id, out)
        return
    drop(core, reason, packet.queued.id, out)
    if action != ACTION_DROP and flow.mode == FLOW_INSPECTED:
        end_flow(core, flow, action, now, out)


cdef void bypass(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    stop_following(core, flow, now, out)           # bytes passed unread: the dialogue cannot be followed after them
    follow_passed(flow, to_server, packet)


cdef void apply_condition(Core *core, Flow *flow, bint to_server, uint8_t finding, Packet *packet, uint64_t now,
                          Operations *out) noexcept nogil:
    cdef uint8_t action = report_condition(core, flow, finding, to_server, now)
    answer_by(core, flow, action, DROP_TRUNCATED if finding == PACKET_TRUNCATED else DROP_CONDITION, packet, now, out)
    if action <= ACTION_LOG:
        bypass(core, flow, to_server, packet, now, out)
