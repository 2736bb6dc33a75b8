# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Connections: how a flow begins, under which rule, and how another connection takes its place.

Promises: only a SYN begins a flow that is inspected, so nothing is ever read from the middle of a connection; a RST or
FIN never removes a flow from the table. Does not know streams or SMTP.
"""

from libc.stdint cimport uint32_t, uint8_t

from nfmailguard.cext.core cimport DROP_FLAGS, DROP_MIDSTREAM, DROP_OPTION, DROP_SYN_ACK
from nfmailguard.cext.flow.identity cimport on_its_interface, pin, pin_client
from nfmailguard.cext.flow.lifecycle cimport (
    count_packet, forget_flow, open_flow, refuse_flow, starting_up, stop_following,
)
from nfmailguard.cext.flow.rules cimport inspected_port
from nfmailguard.cext.flow.table cimport (
    CLIENT_ANSWERED, CONFIRMED, FLOW_BYPASSED, FLOW_INSPECTED, FLOW_ONE_SIDED, OTHER_SYN_SEEN, SERVER_ANSWERED,
    flow_begins, flow_closed, flow_ends, flow_find, flow_take_rule, flow_touch,
)
from nfmailguard.cext.policy.actions cimport answer_by
from nfmailguard.cext.policy.conditions cimport policy_of, report_condition, report_without_flow
from nfmailguard.cext.policy.numbers cimport (
    ACTION_LOG, ACTION_PASS, ACTION_RESET, FLOW_MIDSTREAM, PACKET_MULTIPATH, PACKET_ODD_FLAGS, PACKET_SYN_DATA,
)
from nfmailguard.cext.policy.ruling cimport CompiledPolicy, applies, gates
from nfmailguard.cext.record cimport END_TIMEOUT
from nfmailguard.cext.tcp.passed cimport pass_packet
from nfmailguard.cext.tcp.reset cimport emit_refusal
from nfmailguard.cext.tcp.stream cimport INTERFACE_KNOWN, SYN_SEEN, Stream, stream_isn
from nfmailguard.cext.tcp.syncookie cimport note_cookie, old_number
from nfmailguard.cext.tcp.validate cimport take_acknowledgement
from nfmailguard.cext.tcp.window cimport narrow_window
from nfmailguard.cext.verdict cimport accept, drop, drop_if, replace
from nfmailguard.cext.wire.options cimport MOST_SCALE, OPTIONS_OF_SYN, OPTION_SCALE, options_read
from nfmailguard.cext.wire.packet cimport (
    TCP_ACK, TCP_RST, TCP_SYN, nm_put16, nm_put32, packet_blank_ip_options, packet_fix_checksums, packet_trim,
)


cdef void begin_stream(Flow *flow, bint to_server, uint32_t isn) noexcept nogil:
    flow.stream[to_server].next_seq = flow.stream[to_server].last_ack = isn + 1
    flow.stream[to_server].facts |= SYN_SEEN


cdef void first_packet(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """Handles a packet that belongs to no known flow."""
    cdef Flow *flow
    cdef CompiledPolicy *policy
    cdef uint8_t action = ACTION_PASS
    cdef bint from_before = starting_up(core, now) and not packet.flags & TCP_SYN
    if packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN and (not to_server or inspected_port(core, packet.source_port)):
        drop_if(core, report_without_flow(core, packet, PACKET_ODD_FLAGS, False, now) > ACTION_LOG, DROP_FLAGS,
                packet.queued.id, out)             # no mail connection is opened by a server, or from its port
        return
    if packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN:
        flow = open_flow(core, packet, True, now, out)
        if flow == NULL:
            refuse_flow(core, packet, True, now, out)
            return
        pin(flow, True, packet)
        count_packet(flow, True, packet)
        begin_stream(flow, True, packet.seq)
        syn_packet(core, flow, True, False, packet, now, out)
        return
    if packet.flags & TCP_RST:
        accept(core, packet.queued.id, out)           # a RST for an unknown flow is harmless: it opens nothing
        return
    core.counters.flows_midstream += 1
    policy = policy_of(core, packet, to_server)
    if not from_before or policy.midstream_at_start > ACTION_LOG:
        action = report_without_flow(core, packet, FLOW_MIDSTREAM, to_server, now)
    if from_before and applies(policy):
        action = policy.midstream_at_start
    if action > ACTION_LOG:
        # Answered as by a host without the connection, and not remembered, for anybody can forge such packets. A
        # SYN+ACK gets no RST: its client repeats the SYN, which was not seen, or has received this SYN+ACK already and
        # goes on.
        drop(core, DROP_MIDSTREAM, packet.queued.id, out)
        if action == ACTION_RESET and not packet.flags & TCP_SYN:
            emit_refusal(core, packet, to_server, now, out)
        return
    flow = open_flow(core, packet, to_server, now, out)
    if flow == NULL:
        refuse_flow(core, packet, to_server, now, out)
        return
    pin(flow, to_server, packet)
    if not to_server:
        pin_client(flow, packet)
    count_packet(flow, to_server, packet)
    flow.stream[to_server].next_seq = packet.seq
    flow.stream[not to_server].next_seq = flow.stream[not to_server].last_ack = packet.ack
    flow.stream[to_server].last_ack = packet.seq
    stop_following(core, flow, now, out)
    pass_packet(core, flow, to_server, packet, now, out)
    flow_touch(&core.flows, flow, FLOW_ONE_SIDED, now)


cdef void note_offer(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """Notes the options and the window scale that a SYN offers."""
    cdef Stream *stream = &flow.stream[to_server]
    # The server may have answered any copy of a client's repeated SYN: options count as offered if any copy offers
    # them, and the largest window scale of all copies counts.
    cdef bint again = to_server and stream.offers & OPTION_SCALE != 0
    stream.offers = packet.options.present | (stream.offers if to_server else 0)
    if packet.options.present & OPTION_SCALE and not (again and packet.options.scale < stream.scale):
        stream.scale = packet.options.scale


cdef void syn_packet(Core *core, Flow *flow, bint to_server, bint other, Packet *packet, uint64_t now,
                     Operations *out) noexcept nogil:
    """Forwards a SYN without anything that could carry data around the inspection (options, payload); ``other``: the
    SYN belongs to another connection than the flow's."""
    cdef bint apply = applies(flow.policy)
    cdef bint changed = 0
    options_read(packet, OPTIONS_OF_SYN, gates(flow.policy))
    if packet.options.multipath and apply:
        options_read(packet, OPTIONS_OF_SYN, True)
        packet.options.multipath = 1
    core.counters.options_blanked += packet.changed
    if gates(flow.policy) and (packet.options.refused or (packet.extended and packet.family == 6)):
        drop(core, DROP_OPTION, packet.queued.id, out)
        return
    if packet.extended and packet.family == 4 and gates(flow.policy):
        packet_blank_ip_options(packet)
    if not other:
        note_offer(flow, to_server, packet)
    if packet.payload_length:
        # TCP Fast Open (RFC 7413): data before there is a stream. It is not acknowledged, so it is sent again later.
        report_condition(core, flow, PACKET_SYN_DATA, to_server, now)
        if apply:
            packet_trim(packet, 0)
            changed = 1
    if packet.options.multipath:
        # Multipath TCP (RFC 8684) spreads one stream over several connections. Without the option there is only one.
        report_condition(core, flow, PACKET_MULTIPATH, to_server, now)
    if not to_server and narrow_window(core, flow, packet):
        changed = 1
    if changed or packet.changed:
        packet_fix_checksums(packet)
        replace(core, packet.queued.id, packet.ip, packet.length, out)
    else:
        accept(core, packet.queued.id, out)


cdef void ask_server(Core *core, Flow *flow, Packet *packet, Operations *out) noexcept nogil:
    """Turns a SYN on an open flow into an ACK with an old sequence number: this asks if the server has the connection.

    If the server has it, it answers with its current sequence numbers, and a client that has forgotten them sends the
    RST that ends the connection on both sides. If not, the server sends a RST (RFC 9293 3.5.1, 3.10.7.4). The client
    repeats its SYN, which then finds no open flow: no other connection ever begins at the server while this one is
    taken for open.
    """
    options_read(packet, 0, True)
    if packet.options.refused or (packet.extended and packet.family == 6):
        drop(core, DROP_OPTION, packet.queued.id, out)
        return
    if packet.extended:
        packet_blank_ip_options(packet)
    packet_trim(packet, 0)
    nm_put32(packet.tcp + 4, old_number(core, flow))
    nm_put32(packet.tcp + 8, flow.stream[0].last_ack)
    packet.tcp[12] &= 0xf0
    packet.tcp[13] = TCP_ACK
    nm_put16(packet.tcp + 18, 0)
    packet_fix_checksums(packet)
    core.counters.syns_asked += 1
    replace(core, packet.queued.id, packet.ip, packet.length, out)


cdef void client_syn(Core *core, Flow *flow, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    if (flow.stream[1].facts & SYN_SEEN and packet.seq == stream_isn(&flow.stream[1]) and flow.mode == FLOW_INSPECTED
            and not flow_closed(flow) and not flow.handshake & CLIENT_ANSWERED
            and on_its_interface(flow, True, packet)):
        syn_packet(core, flow, True, False, packet, now, out)
    elif flow_closed(flow) or flow.mode > FLOW_BYPASSED or (flow.mode == FLOW_INSPECTED and (
            not flow.handshake & SERVER_ANSWERED
            or (not flow.handshake & CLIENT_ANSWERED and not on_its_interface(flow, True, packet)))):
        # The client uses its port again: this is another connection, inspected from its beginning.
        forget_flow(core, flow, END_TIMEOUT, now, out)
        first_packet(core, packet, True, now, out)
        if flow_find(&core.flows, packet, True) == NULL:
            core.forgot = 1                        # its next packet must not pass for a flow's from before the start
    elif not gates(flow.policy):
        flow.handshake |= OTHER_SYN_SEEN
        syn_packet(core, flow, True, True, packet, now, out)
    else:
        ask_server(core, flow, packet, out)


cdef void server_syn_ack(Core *core, Flow *flow, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    """Handles the server's SYN+ACK: it begins the server's direction, begins another flow, or is dropped.

    A server that has sent or acknowledged data has the connection, and sends no SYN in it (RFC 9293 3.10.7.4). If a
    later SYN could reach the server all the same, a SYN+ACK that answers it belongs to another connection, even if its
    numbers are the same, as SYN cookies' numbers are (RFC 4987 3.6).
    """
    cdef Stream *stream = &flow.stream[0]
    if flow.handshake & OTHER_SYN_SEEN and flow.handshake & CLIENT_ANSWERED:
        flow = reopen(core, flow, packet, now, out)
        if flow == NULL:
            refuse_flow(core, packet, False, now, out)
            return
        stream = &flow.stream[0]
    if (flow.mode == FLOW_INSPECTED and not flow.handshake & CONFIRMED and flow.stream[1].facts & SYN_SEEN
            and packet.ack == stream_isn(&flow.stream[1]) + 1):
        if not flow.handshake & CLIENT_ANSWERED:
            # Until the client has answered, the server's latest SYN+ACK counts: SYN cookies change with time.
            pin(flow, False, packet)
            begin_stream(flow, False, packet.seq)
            flow.handshake |= SERVER_ANSWERED
            flow.started = now                     # a SYN cookie's age counts from the SYN+ACK that carries it
            note_cookie(core, flow, now)
        if packet.seq == stream_isn(stream):
            take_acknowledgement(core, flow, False, packet, now, out)
            syn_packet(core, flow, False, False, packet, now, out)
            return
    drop_if(core, applies(flow.policy), DROP_SYN_ACK, packet.queued.id, out)


cdef bint handshake(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil:
    """Handles packets with SYN; returns False if the packet has none."""
    if not packet.flags & TCP_SYN:
        return False
    if to_server and not packet.flags & TCP_ACK:
        client_syn(core, flow, packet, now, out)
    elif to_server or not packet.flags & TCP_ACK:
        # A simultaneous open (RFC 9293 3.5, figure 7), or a SYN sent by a server: no mail server does this.
        answer_by(core, flow, report_condition(core, flow, PACKET_ODD_FLAGS, to_server, now), DROP_FLAGS, packet,
                  now, out)
    else:
        server_syn_ack(core, flow, packet, now, out)
    return True


cdef Flow *reopen(Core *core, Flow *flow, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    """Replaces ``flow`` with the flow that the server's SYN+ACK to another SYN begins; returns NULL without memory.

    What that other SYN offered is not known: all options and the largest window scale are assumed.
    """
    cdef Flow old = flow[0]
    flow_begins(&old)                              # keeps the old flow's rules in use until the new flow is there
    forget_flow(core, flow, END_TIMEOUT, now, out)
    flow = open_flow(core, packet, False, now, out)
    if flow == NULL:
        flow_ends(&old)
        core.forgot = 1
        return NULL
    flow_ends(flow)
    flow_take_rule(flow, old.identity.rule)
    flow.policy = old.policy
    begin_stream(flow, True, packet.ack - 1)
    flow.interface[1] = old.interface[1]
    flow.stream[1].facts |= old.stream[1].facts & INTERFACE_KNOWN
    flow.server_interface = old.server_interface
    flow.stream[1].offers = OPTIONS_OF_SYN
    flow.stream[1].scale = MOST_SCALE
    return flow
