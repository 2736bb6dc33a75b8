# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rules: addresses, ports and interfaces against the list.

Promises: the first match, and the last rule matches all. Does not know flows.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

from nfmailguard.cext.core cimport Network, Rule


cdef bint in_networks(const Network *networks, uint32_t count, uint8_t family, const uint8_t *address) noexcept nogil:
    cdef uint32_t i, octets, bits
    for i in range(count):
        if networks[i].family != family:
            continue
        octets = networks[i].bits // 8
        bits = networks[i].bits % 8
        if memcmp(networks[i].octets, address, octets) != 0:
            continue
        if bits == 0 or (networks[i].octets[octets] ^ address[octets]) >> (8 - bits) == 0:
            return True
    return count == 0


cdef uint32_t choose_rule(Core *core, const Identity *identity, uint32_t interface) noexcept nogil:
    cdef uint32_t i, port
    cdef Rule *rule
    cdef bint found
    for i in range(core.rule_count - 1):
        rule = &core.rules[i]
        found = rule.port_count == 0 or identity.server_port == 0
        for port in range(rule.port_count):
            found |= rule.ports[port] == identity.server_port
        if (found and (rule.interface == 0 or rule.interface == interface)
                and in_networks(rule.sources, rule.source_count, identity.family, identity.client)
                and in_networks(rule.destinations, rule.destination_count, identity.family, identity.server)):
            return i
    return core.rule_count - 1
