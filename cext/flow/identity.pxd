# Identity: whether a packet belongs to the flow of its addresses and ports, by interface and by conntrack entry.
from libc.stdint cimport uint64_t, uint8_t

from nfmailguard.cext.core cimport Core
from nfmailguard.cext.flow.table cimport Flow
from nfmailguard.cext.tcp.stream cimport INTERFACE_KNOWN
from nfmailguard.cext.wire.packet cimport Packet

# Where addresses are translated: whether the packet belongs to the flow's own connection, or may begin another one.
cdef bint belongs(Flow *flow, bint to_server, Packet *packet) noexcept nogil
# The action for a packet, by the interface it came in on; a wrong interface is reported.
cdef uint8_t pin_interface(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now) noexcept nogil
cdef bint on_its_interface(Flow *flow, bint to_server, Packet *packet) noexcept nogil

cdef inline void pin(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    flow.interface[to_server] = packet.queued.in_interface
    flow.stream[to_server].facts |= INTERFACE_KNOWN
    if to_server:
        flow.server_interface = packet.queued.out_interface

# For a flow whose first packet seen is the server's: the client's packets come in on the interface where it leaves.
cdef inline void pin_client(Flow *flow, Packet *packet) noexcept nogil:
    flow.interface[1] = packet.queued.out_interface
    flow.stream[1].facts |= INTERFACE_KNOWN
