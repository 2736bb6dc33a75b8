# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Whether a packet is of the flow that has its addresses and ports: by its interface, and by conntrack's entry.
"""

from nfmailguard.cext.flow.table cimport CLIENT_ANSWERED, FLOW_BYPASSED, SERVER_ANSWERED, flow_closed
from nfmailguard.cext.policy.conditions cimport report_condition
from nfmailguard.cext.policy.numbers cimport ACTION_PASS, PACKET_WRONG_INTERFACE
from nfmailguard.cext.tcp.stream cimport INTERFACE_KNOWN, SYN_SEEN
from nfmailguard.cext.wire.packet cimport TCP_ACK, TCP_SYN


cdef bint on_its_interface(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """Whether the packet came in where its direction began.

    The server's begins with the SYN and ACK that answers the client's, and comes from where that one went: nobody
    on the client's side can speak for the server then, nor in a third network.
    """
    if flow.stream[to_server].facts & INTERFACE_KNOWN:
        return flow.interface[to_server] == packet.queued.in_interface
    if to_server or not flow.stream[1].facts & INTERFACE_KNOWN or flow.server_interface == 0:
        return True                                # not known, or this machine is the server
    # What this machine sends itself came in nowhere (0).
    return packet.queued.in_interface in (flow.server_interface, 0)


cdef bint belongs(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """Whether a packet that another entry of conntrack's is of has its place in the flow all the same.

    Two entries, of two addresses that lead to one server, or of one that was forgotten and picked up anew, may have
    the same addresses and ports here and not beyond. A client's address is translated behind us, so a SYN does not
    tell of it yet, and the server's answer does.
    """
    if not flow.policy.apart:
        return True                                # it began when nothing was marked
    if not flow.stream[1].facts & SYN_SEEN:
        return True                                # its beginning was not seen
    if not packet.flags & TCP_SYN:
        return False
    if flow_closed(flow) or flow.mode > FLOW_BYPASSED:
        return True                                # another flow, if any
    if flow.handshake & SERVER_ANSWERED or not (to_server or flow.connection == 0):
        return False
    flow.connection = packet.queued.connection     # the latest one counts, as a SYN's numbers do
    return True


cdef uint8_t pin_interface(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now) noexcept nogil:
    if on_its_interface(flow, to_server, packet):
        return ACTION_PASS
    if to_server and packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN and not flow.handshake & CLIENT_ANSWERED:
        return ACTION_PASS                         # no connection yet: this SYN begins it anew
    return report_condition(core, flow, PACKET_WRONG_INTERFACE, to_server, now)
