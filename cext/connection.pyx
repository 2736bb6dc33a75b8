# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Connections: how a flow begins, under which rule, and how it ends.

Promises: only a SYN begins a flow that is inspected, so nothing is ever read from
its middle; a RST or FIN never makes a flow unknown. Does not know streams or SMTP.
"""

from nfmailguard.cext.admission cimport narrow_window, take_acknowledgement
from nfmailguard.cext.core cimport (
    DROP_FLAGS,
    DROP_FLOW_ENDED,
    DROP_FLOW_LIMIT,
    DROP_FRAGMENT,
    DROP_MALFORMED,
    DROP_MIDSTREAM,
    DROP_SYN_ACK,
    DROP_TRUNCATED,
)
from nfmailguard.cext.ending cimport (
    answer_by,
    drop_held,
    emit_refusal,
    end_flow,
    flow_let_go,
    refuse,
    report_condition,
    report_stranger,
    set_scene,
)
from nfmailguard.cext.flow cimport (
    AGE_CLOSING,
    AGE_EMBRYONIC,
    AGE_OPEN,
    FLOW_INSPECTED,
    FLOW_PASSED,
    flow_add,
    flow_find,
    flow_remove,
    flow_touch,
)
from nfmailguard.cext.packet cimport (
    FRAGMENT,
    NOT_TCP,
    TCP_ACK,
    TCP_RST,
    TCP_SYN,
    TRUNCATED,
    packet_blank_option,
    packet_fix_checksums,
    packet_option,
    packet_trim,
    packet_window_scale,
)
from nfmailguard.cext.record cimport (
    END_EVICTED,
    END_RST,
    END_TIMEOUT,
    RECORD_FLOW,
    Record,
    ring_push,
    ring_reserve,
)
from nfmailguard.cext.rule cimport choose_rule
from nfmailguard.cext.smtp cimport (
    ACTION_LOG,
    ACTION_PASS,
    ACTION_RESET,
    FLOW_LIMIT,
    FLOW_MIDSTREAM,
    PACKET_TRUNCATED,
    PACKET_WRONG_INTERFACE,
    PACKET_FRAGMENT,
    PACKET_MULTIPATH,
    PACKET_ODD_FLAGS,
    PACKET_SYN_DATA,
    Ruling,
    Scene,
    report_repeated,
    session_open,
)
from nfmailguard.cext.stream cimport Stream, stream_ended
from nfmailguard.cext.tally cimport tally_close
from nfmailguard.cext.verdict cimport accept, drop, drop_if, replace

cdef enum:
    OPTION_MULTIPATH = 30      # RFC 8684 3.1


cdef void forget_flow(Core *core, Flow *flow, uint8_t end, uint64_t now, Operations *out) noexcept nogil:
    """Reports the flow's end and takes it out of the table; held packets are dropped."""
    cdef Record *record
    cdef Scene scene
    drop_held(core, flow, out)
    if flow.session.tally.word:
        set_scene(core, flow, &scene, now)
        report_repeated(&scene)
    record = ring_reserve(&core.ring, RECORD_FLOW, &flow.identity, now)
    if record != NULL:
        record.to_server = 1
        record.state = flow.session.state
        record.code = flow.end if flow.end else end
        record.a = flow.started
        record.b = flow.packets[1]
        record.c = flow.octets[1]
        record.d = flow.packets[0]
        record.e = flow.octets[0]
        ring_push(&core.ring)
    flow_let_go(core, flow)
    tally_close(&flow.session.tally, &core.pool)
    flow_remove(&core.flows, &core.pool, flow)


cdef Flow *open_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """A new flow with its ruling, or NULL when the table is full of open ones."""
    cdef Flow *flow = flow_add(&core.flows, &core.pool, packet, to_server, now)
    # Ended flows give way first: nothing is lost but a second RST. Then those that never opened.
    cdef Flow *least = core.flows.oldest[AGE_CLOSING]
    if least == NULL:
        least = core.flows.oldest[AGE_EMBRYONIC]
    if flow == NULL and least != NULL:
        core.counters.flows_evicted += 1
        core.forgot = 1                            # its next packet must not look like one that was open before us
        forget_flow(core, least, END_EVICTED, now, out)
        flow = flow_add(&core.flows, &core.pool, packet, to_server, now)
    if flow == NULL:
        return NULL
    core.counters.flows_opened += 1
    # By the interface the client's packets come in on: a server's packet leaves there.
    flow.identity.rule = <uint8_t> choose_rule(
        core, &flow.identity, packet.queued.in_interface if to_server else packet.queued.out_interface)
    flow.ruling = &core.rules[flow.identity.rule].ruling
    session_open(&flow.session, &core.grammar)
    return flow


cdef void refuse_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    cdef uint8_t action = report_stranger(core, packet, FLOW_LIMIT, to_server, now)
    core.counters.flows_refused += 1
    drop_if(core, action > ACTION_LOG, DROP_FLOW_LIMIT, packet.queued.id, out)
    if action == ACTION_RESET:
        emit_refusal(core, packet, to_server, out)


cdef void begin_stream(Flow *flow, bint to_server, uint32_t isn) noexcept nogil:
    flow.stream[to_server].isn = isn
    flow.stream[to_server].next_seq = flow.stream[to_server].kept_seq = isn + 1
    flow.stream[to_server].known = 1


cdef void first_packet(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """A packet of no known flow."""
    cdef Flow *flow
    cdef uint8_t action = ACTION_PASS
    cdef bint from_before = starting_up(core, now) and not packet.flags & TCP_SYN
    if packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN and not to_server:
        drop_if(core, report_stranger(core, packet, PACKET_ODD_FLAGS, False, now) > ACTION_LOG, DROP_FLAGS,
                packet.queued.id, out)             # no mail server opens a connection from its port
        return
    if packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN:
        flow = open_flow(core, packet, True, now, out)
        if flow == NULL:
            refuse_flow(core, packet, True, now, out)
            return
        pin(flow, True, packet)
        count_packet(flow, True, packet)
        begin_stream(flow, True, packet.seq)
        syn_packet(core, flow, True, packet, now, out)
        return
    if packet.flags & TCP_RST:
        accept(core, packet.queued.id, out)           # ends what we do not know; harmless, and never a way in
        return
    flow = open_flow(core, packet, to_server, now, out)
    if flow == NULL:
        refuse_flow(core, packet, to_server, now, out)
        return
    core.counters.flows_midstream += 1
    count_packet(flow, to_server, packet)
    flow.stream[to_server].next_seq = packet.seq
    flow.stream[not to_server].next_seq = flow.stream[not to_server].kept_seq = packet.ack
    flow.stream[to_server].kept_seq = packet.seq
    if not from_before or flow.ruling.midstream_at_start > ACTION_LOG:
        action = report_condition(core, flow, FLOW_MIDSTREAM, to_server, now)
    if from_before and flow.ruling.apply:
        action = flow.ruling.midstream_at_start
    if action <= ACTION_LOG:
        flow.fate = FLOW_PASSED
        core.counters.flows_passed += 1
        flow_touch(&core.flows, flow, AGE_OPEN, now)
        accept(core, packet.queued.id, out)
        return
    drop(core, DROP_MIDSTREAM, packet.queued.id, out)
    end_flow(core, flow, action, now, out)


cdef void syn_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                     Operations *out) noexcept nogil:
    """Lets a SYN go on, without what would carry data past the stream."""
    cdef int scale = packet_window_scale(packet)
    cdef bint changed = 0
    if scale >= 0:                                 # repeated without the option, the first may have been answered
        flow.stream[to_server].scaled = 1
        flow.stream[to_server].scale = <uint8_t> scale
    if packet.payload_length:
        # RFC 7413: data before there is a stream to decide it in. Not acknowledged, it is sent again later.
        report_condition(core, flow, PACKET_SYN_DATA, to_server, now)
        if flow.ruling.apply:
            packet_trim(packet, 0)
            changed = 1
    if packet_option(packet, OPTION_MULTIPATH) != NULL:
        # RFC 8684: more connections, each with parts of one stream. Without the option there is one.
        report_condition(core, flow, PACKET_MULTIPATH, to_server, now)
        if flow.ruling.apply:
            packet_blank_option(packet, OPTION_MULTIPATH)
            changed = 1
    if not to_server and narrow_window(core, flow, packet):
        changed = 1
    if changed:
        packet_fix_checksums(packet)
        replace(core, packet.queued.id, packet.ip, packet.length, out)
    else:
        accept(core, packet.queued.id, out)


cdef inline void pin(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    flow.interface[to_server] = packet.queued.in_interface
    flow.stream[to_server].interface_known = 1
    if to_server:
        flow.towards = packet.queued.out_interface


cdef bint on_its_interface(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """Whether the packet came in where its direction began.

    The server's begins with the SYN and ACK that answers ours: not where the client's
    packets come in, unless they go out there, too. Nobody on the client's side can
    speak for the server then.
    """
    if flow.stream[to_server].interface_known:
        return flow.interface[to_server] == packet.queued.in_interface
    if to_server or not flow.stream[1].interface_known or flow.towards == 0:
        return True                                # not known, or this machine is the server
    # What this machine sends itself came in nowhere (0).
    return packet.queued.in_interface in (flow.towards, 0) or packet.queued.in_interface != flow.interface[1]


cdef uint8_t pin_interface(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now) noexcept nogil:
    if on_its_interface(flow, to_server, packet):
        return ACTION_PASS
    if to_server and packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN and not flow.syn_ack:
        return ACTION_PASS                         # no connection yet: this SYN begins it anew
    return report_condition(core, flow, PACKET_WRONG_INTERFACE, to_server, now)


cdef void client_syn(Core *core, Flow *flow, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    if (packet.seq == flow.stream[1].isn and flow.stream[1].known and flow.fate == FLOW_INSPECTED and not flow.closed
            and on_its_interface(flow, True, packet)):
        syn_packet(core, flow, True, packet, now, out)
    elif flow.closed or flow.fate > FLOW_PASSED or (not flow.syn_ack and flow.fate == FLOW_INSPECTED):
        # The ports are used again: another connection, inspected from its beginning.
        forget_flow(core, flow, END_TIMEOUT, now, out)
        first_packet(core, packet, True, now, out)
    else:
        # Only the server knows whether it still has the old connection (RFC 9293 3.10.7.4); its
        # SYN and ACK to this one would begin another flow.
        flow.other_syn = packet.seq
        flow.other_syn_seen = 1
        syn_packet(core, flow, True, packet, now, out)


cdef bint handshake(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil:
    """Packets with SYN; False when the packet has none."""
    if not packet.flags & TCP_SYN:
        return False
    if to_server and not packet.flags & TCP_ACK:
        client_syn(core, flow, packet, now, out)
        return True
    if to_server or not packet.flags & TCP_ACK:
        # RFC 9293 3.5, figure 7: simultaneous open, or a SYN that a server sends; no mail server does.
        answer_by(core, flow, report_condition(core, flow, PACKET_ODD_FLAGS, to_server, now), DROP_FLAGS, packet,
                  now, out)
        return True
    if flow.other_syn_seen and packet.ack == flow.other_syn + 1 and not (
            flow.stream[0].known and packet.seq == flow.stream[0].isn):
        flow = reopen(core, flow, packet, now, out)
        if flow == NULL:
            refuse_flow(core, packet, False, now, out)
            return True
    if ((not flow.syn_ack or flow.age == AGE_EMBRYONIC)
            and flow.stream[1].known and packet.ack == flow.stream[1].isn + 1):
        # The latest one until the client has answered: SYN cookies (RFC 4987 3.6) change.
        pin(flow, False, packet)
        begin_stream(flow, False, packet.seq)
        flow.syn_ack = 1
    if flow.fate == FLOW_PASSED:
        drop_if(core, flow.ruling.apply and not (flow.stream[0].known and packet.seq == flow.stream[0].isn),
                DROP_SYN_ACK, packet.queued.id, out)
    elif flow.fate == FLOW_INSPECTED and flow.syn_ack and packet.seq == flow.stream[0].isn:
        if packet.ack == flow.stream[1].isn + 1:   # a later copy may not have the latest acknowledgement
            take_acknowledgement(core, flow, False, packet, now, out)
        syn_packet(core, flow, False, packet, now, out)
    else:
        drop_if(core, flow.ruling.apply, DROP_SYN_ACK, packet.queued.id, out)
    return True


cdef Flow *reopen(Core *core, Flow *flow, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    cdef uint32_t isn = flow.other_syn, towards = flow.towards, interface = flow.interface[1]
    cdef uint8_t scale = flow.stream[1].scale, scaled = flow.stream[1].scaled, rule = flow.identity.rule
    forget_flow(core, flow, END_TIMEOUT, now, out)
    flow = open_flow(core, packet, False, now, out)
    if flow == NULL:
        return NULL
    flow.identity.rule = rule
    flow.ruling = &core.rules[rule].ruling
    begin_stream(flow, True, isn)
    flow.interface[1] = interface
    flow.stream[1].interface_known = 1
    flow.towards = towards
    flow.stream[1].scale = scale
    flow.stream[1].scaled = scaled
    return flow


cdef void reset_packet(Core *core, Flow *flow, bint to_server, Packet *packet, Operations *out) noexcept nogil:
    # Receivers check a RST's sequence number themselves (RFC 5961 3.2); one that they would not take
    # changes nothing here, and even one that they take leaves the flow inspected: it may never arrive.
    cdef Stream *stream = &flow.stream[to_server]
    # A FIN counts (RFC 9293 3.4); a socket that is gone answers with the number it was asked for.
    if packet.seq == stream.next_seq or (stream_ended(stream) and packet.seq == stream.next_seq + 1) or (
            not flow.syn_ack and not to_server):
        flow.closed = 1
        flow.end = END_RST
    if packet.payload_length and flow.ruling.apply:
        packet_trim(packet, 0)                     # RFC 9293 3.5.3 allows text; it is no part of a stream
        packet_fix_checksums(packet)
        replace(core, packet.queued.id, packet.ip, packet.length, out)
    else:
        accept(core, packet.queued.id, out)


cdef void unparsed(Core *core, ParseResult result, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    """A packet whose stream cannot be told or whose octets are not all here."""
    cdef Ruling *ruling = &core.rules[core.rule_count - 1].ruling
    cdef bint to_server
    cdef Flow *flow
    if result == NOT_TCP:
        core.counters.not_tcp += 1
        accept(core, packet.queued.id, out)
        return
    if result == FRAGMENT:
        # Conntrack joins them where it runs, and our own table makes it run.
        core.counters.fragments += 1
        drop_if(core, report_stranger(core, packet, PACKET_FRAGMENT, True, now) > ACTION_LOG, DROP_FRAGMENT,
                packet.queued.id, out)
        return
    if result != TRUNCATED:
        core.counters.malformed += 1
        drop_if(core, ruling.apply, DROP_MALFORMED, packet.queued.id, out)
        return
    core.counters.truncated += 1
    if packet.tcp == NULL:
        core.finding_counts[PACKET_TRUNCATED] += 1
        drop_if(core, ruling.apply and ruling.action[PACKET_TRUNCATED] > ACTION_LOG, DROP_TRUNCATED,
                packet.queued.id, out)
        return
    to_server = inspected_port(core, packet.destination_port)
    flow = flow_find(&core.flows, packet, to_server)
    if flow == NULL:
        drop_if(core, report_stranger(core, packet, PACKET_TRUNCATED, to_server, now) > ACTION_LOG, DROP_TRUNCATED,
                packet.queued.id, out)
    elif flow.fate == FLOW_PASSED:
        accept(core, packet.queued.id, out)
    elif flow.fate == FLOW_INSPECTED:
        refuse(core, flow, to_server, PACKET_TRUNCATED, DROP_TRUNCATED, packet, now, out)
    else:
        drop(core, DROP_FLOW_ENDED, packet.queued.id, out)
