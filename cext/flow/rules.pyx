# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rules: a flow's addresses, ports and interface are compared with the list of rules.

Promises: the first rule that matches counts, and the last rule matches everything. Does not know flows.
"""

from nfmailguard.cext.core cimport Rule
from nfmailguard.cext.policy.network cimport in_networks


cdef uint32_t choose_rule(Core *core, const Identity *identity, uint32_t interface) noexcept nogil:
    cdef uint32_t i, port
    cdef Rule *rule
    cdef bint found
    for i in range(core.generation.rule_count - 1):
        rule = &core.generation.rules[i]
        found = rule.port_count == 0 or identity.server_port == 0
        for port in range(rule.port_count):
            found |= rule.ports[port] == identity.server_port
        if (found and (rule.interface == 0 or rule.interface == interface)
                and in_networks(rule.sources, rule.source_count, identity.family, identity.client)
                and in_networks(rule.destinations, rule.destination_count, identity.family, identity.server)):
            return i
    return core.generation.rule_count - 1
