# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Identity: whether a packet belongs to the flow of its addresses and ports, by interface and by conntrack entry."""

from nfmailguard.cext.flow.table cimport CLIENT_ANSWERED, FLOW_BYPASSED, SERVER_ANSWERED, flow_closed
from nfmailguard.cext.policy.conditions cimport report_condition
from nfmailguard.cext.policy.numbers cimport ACTION_PASS, PACKET_WRONG_INTERFACE
from nfmailguard.cext.tcp.stream cimport INTERFACE_KNOWN, SYN_SEEN
from nfmailguard.cext.wire.packet cimport TCP_ACK, TCP_SYN


cdef bint on_its_interface(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """Whether the packet came in on the interface where its direction of the flow began.

    The server's direction begins with the SYN+ACK that answers the client's SYN, and comes in on the interface where
    that SYN left: so nobody on the client's side, or in a third network, can speak for the server.
    """
    if flow.stream[to_server].facts & INTERFACE_KNOWN:
        return flow.interface[to_server] == packet.queued.in_interface
    if to_server or not flow.stream[1].facts & INTERFACE_KNOWN or flow.server_interface == 0:
        return True                                # the interface is not known, or this machine is the server
    # A packet that this machine itself sends has no incoming interface (0).
    return packet.queued.in_interface in (flow.server_interface, 0)


cdef bint belongs(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """Whether a packet of another conntrack entry than the flow's belongs to the flow all the same.

    Two entries may have the same addresses and ports here, but not beyond: those of two addresses that lead to one
    server, or one that conntrack has forgotten and picked up anew. A client's address is translated after the gateway,
    so its SYN does not show the entry yet, but the server's answer does.
    """
    if not flow.policy.apart:
        return True                                # the flow began when no packets were marked by conntrack entry
    if not flow.stream[1].facts & SYN_SEEN:
        return True                                # the flow's beginning was not seen
    if not packet.flags & TCP_SYN:
        return False
    if flow_closed(flow) or flow.mode > FLOW_BYPASSED:
        return True                                # the flow is over: the packet belongs to another one, if any
    if flow.handshake & SERVER_ANSWERED or not (to_server or flow.connection == 0):
        return False
    flow.connection = packet.queued.connection     # the latest entry counts, as the latest SYN's numbers do
    return True


cdef uint8_t pin_interface(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now) noexcept nogil:
    if on_its_interface(flow, to_server, packet):
        return ACTION_PASS
    if to_server and packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN and not flow.handshake & CLIENT_ANSWERED:
        return ACTION_PASS                         # no connection yet: this SYN begins the flow anew
    return report_condition(core, flow, PACKET_WRONG_INTERFACE, to_server, now)
