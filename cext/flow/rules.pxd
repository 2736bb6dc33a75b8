# Rules: which rule of the policy a flow comes under.
from libc.stdint cimport uint32_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.record cimport Identity

cdef inline bint inspected_port(Core *core, uint32_t port) noexcept nogil:
    return core.ports[port >> 3] >> (port & 7) & 1

# The index of the first rule that matches; `interface`: the one the client's packets come in on, 0 if it is not known.
# A server port of 0 matches any rule's ports: a fragment's port is not known.
cdef uint32_t choose_rule(Core *core, const Identity *identity, uint32_t interface) noexcept nogil
