# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Connections: how a flow begins, under which rule, and how it ends.

Promises: only a SYN begins a flow that is inspected, so nothing is ever read from
its middle; a RST or FIN never makes a flow unknown. Does not know streams or SMTP.
"""


from nfmailguard.cext.account cimport settle
from nfmailguard.cext.admission cimport narrow_window, take_acknowledgement
from nfmailguard.cext.cookie cimport note_cookie, old_number
from nfmailguard.cext.core cimport (
    DROP_FLAGS,
    DROP_FLOW_ENDED,
    DROP_FLOW_LIMIT,
    DROP_FRAGMENT,
    DROP_MALFORMED,
    DROP_MIDSTREAM,
    DROP_OPTION,
    DROP_SYN_ACK,
    DROP_TRUNCATED,
)
from nfmailguard.cext.ending cimport (
    answer_by,
    drop_held,
    emit_refusal,
    emit_reset,
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
    AGE_GREETED,
    AGE_UNCONFIRMED,
    FLOW_INSPECTED,
    FLOW_PASSED,
    flow_add,
    flow_client,
    flow_closed,
    flow_find,
    flow_gives_way,
    flow_has_share,
    flow_remove,
    flow_touch,
)
from nfmailguard.cext.options cimport MOST_SCALE, OPTION_SCALE, OPTIONS_OF_SYN, options_read
from nfmailguard.cext.packet cimport (
    FRAGMENT,
    NOT_TCP,
    TCP_ACK,
    TCP_RST,
    TCP_SYN,
    TRUNCATED,
    nm_put16,
    nm_put32,
    packet_blank_ip_options,
    packet_fix_checksums,
    packet_trim,
)
from nfmailguard.cext.record cimport (
    END_EVICTED,
    END_TIMEOUT,
    RECORD_FLOW,
    Identity,
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
from nfmailguard.cext.stream cimport Stream, stream_isn
from nfmailguard.cext.tally cimport tally_close
from nfmailguard.cext.verdict cimport accept, drop, drop_if, replace


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
    settle(core, flow, now)
    flow_remove(&core.flows, &core.pool, flow)


cdef void evict(Core *core, Flow *flow, uint64_t now, Operations *out) noexcept nogil:
    """Takes a flow out of a full table; both sides of a connection are told."""
    core.counters.flows_evicted += 1
    if flow.age == AGE_CLOSING:
        core.counters.flows_evicted_ended += 1
    elif flow.age == AGE_EMBRYONIC:
        core.counters.flows_evicted_embryonic += 1
    elif flow.age == AGE_UNCONFIRMED:
        core.counters.flows_evicted_unconfirmed += 1
    else:
        core.counters.flows_evicted_greeted += 1
    if flow.fate != FLOW_PASSED:                   # that one may as well be let through again
        core.forgot = 1                            # its next packet must not look like one that was open before us
    if flow.fate == FLOW_INSPECTED and flow.syn_ack and flow.answered and not flow_closed(flow) and flow.ruling.apply:
        emit_reset(core, flow, True, out)
        emit_reset(core, flow, False, out)
    forget_flow(core, flow, END_EVICTED, now, out)


cdef void opens(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """A handshake is complete: within its source's share the flow stays, else it ends.

    Only now the source is known: the shares of who stands in a SYN are nobody's to use up.
    """
    if flow_has_share(&core.flows, &flow.identity):
        return
    core.counters.flows_refused += 1
    core.counters.flows_refused_share += 1
    if report_condition(core, flow, FLOW_LIMIT, to_server, now) > ACTION_LOG:
        end_flow(core, flow, ACTION_RESET, now, out)


cdef Flow *open_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """A new flow with its ruling, or NULL when the table is full and none gives way, or its source has its share."""
    cdef bint begins = packet.flags & TCP_SYN != 0
    cdef Flow *flow
    cdef Flow *least
    cdef Identity client
    flow_client(packet, to_server, &client)
    if begins and not flow_has_share(&core.flows, &client):
        core.counters.flows_refused_share += 1
        return NULL
    flow = flow_add(&core.flows, &core.pool, packet, to_server, now)
    if flow == NULL:
        # For what only seems to go on, nothing that goes on gives way; for what was open before us, its like.
        least = flow_gives_way(&core.flows, not begins)
        if least == NULL and starting_up(core, now):
            least = core.flows.oldest[AGE_GREETED]
            if least != NULL and least.fate != FLOW_PASSED:
                least = NULL
        if least == NULL:
            return NULL
        evict(core, least, now, out)
        flow = flow_add(&core.flows, &core.pool, packet, to_server, now)
    if flow == NULL:
        return NULL
    core.counters.flows_opened += 1
    # By the interface the client's packets come in on: a server's packet leaves there.
    flow.identity.rule = <uint8_t> choose_rule(
        core, &flow.identity, packet.queued.in_interface if to_server else packet.queued.out_interface)
    flow.ruling = &core.rules[flow.identity.rule].ruling
    flow.connection = packet.queued.connection
    session_open(&flow.session, &core.grammar)
    return flow


cdef void refuse_flow(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    cdef uint8_t action = report_stranger(core, packet, FLOW_LIMIT, to_server, now)
    core.counters.flows_refused += 1
    drop_if(core, action > ACTION_LOG, DROP_FLOW_LIMIT, packet.queued.id, out)
    if action == ACTION_RESET:
        emit_refusal(core, packet, to_server, out)


cdef void begin_stream(Flow *flow, bint to_server, uint32_t isn) noexcept nogil:
    flow.stream[to_server].next_seq = flow.stream[to_server].kept_seq = isn + 1
    flow.stream[to_server].known = 1


cdef void first_packet(Core *core, Packet *packet, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """A packet of no known flow."""
    cdef Flow *flow
    cdef uint8_t action = ACTION_PASS
    cdef bint from_before = starting_up(core, now) and not packet.flags & TCP_SYN
    if packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN and (not to_server or inspected_port(core, packet.source_port)):
        drop_if(core, report_stranger(core, packet, PACKET_ODD_FLAGS, False, now) > ACTION_LOG, DROP_FLAGS,
                packet.queued.id, out)             # no connection is opened from a mail server's port
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
        flow_touch(&core.flows, flow, AGE_GREETED, now)
        accept(core, packet.queued.id, out)
        return
    drop(core, DROP_MIDSTREAM, packet.queued.id, out)
    end_flow(core, flow, action, now, out)


cdef void note_offer(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """What a SYN offers."""
    cdef Stream *stream = &flow.stream[to_server]
    # A client's SYN repeated: whichever its server has answered, it tells of no option that was not offered, and
    # its windows are no wider.
    cdef bint again = to_server and stream.offers & OPTION_SCALE != 0
    stream.offers = packet.options.present | (stream.offers if to_server else 0)
    if packet.options.present & OPTION_SCALE and not (again and packet.options.scale < stream.scale):
        stream.scale = packet.options.scale


cdef void syn_packet(Core *core, Flow *flow, bint to_server, bint other, Packet *packet, uint64_t now,
                     Operations *out) noexcept nogil:
    """Lets a SYN go on, without what would carry data past the stream; ``other``: it is none of this flow's."""
    cdef bint apply = flow.ruling.apply
    cdef bint changed = 0
    options_read(packet, OPTIONS_OF_SYN, flow.ruling.hold)
    if packet.options.multipath and apply:
        options_read(packet, OPTIONS_OF_SYN, True)
        packet.options.multipath = 1
    core.counters.options_blanked += packet.changed
    if flow.ruling.hold and (packet.options.refused or (packet.extended and packet.family == 6)):
        drop(core, DROP_OPTION, packet.queued.id, out)
        return
    if packet.extended and packet.family == 4 and flow.ruling.hold:
        packet_blank_ip_options(packet)
    if not other:
        note_offer(flow, to_server, packet)
    if packet.payload_length:
        # RFC 7413: data before there is a stream to decide it in. Not acknowledged, it is sent again later.
        report_condition(core, flow, PACKET_SYN_DATA, to_server, now)
        if apply:
            packet_trim(packet, 0)
            changed = 1
    if packet.options.multipath:
        # RFC 8684: more connections, each with parts of one stream. Without the option there is one.
        report_condition(core, flow, PACKET_MULTIPATH, to_server, now)
    if not to_server and narrow_window(core, flow, packet):
        changed = 1
    if changed or packet.changed:
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

    The server's begins with the SYN and ACK that answers the client's, and comes from where that one went: nobody
    on the client's side can speak for the server then, nor in a third network.
    """
    if flow.stream[to_server].interface_known:
        return flow.interface[to_server] == packet.queued.in_interface
    if to_server or not flow.stream[1].interface_known or flow.towards == 0:
        return True                                # not known, or this machine is the server
    # What this machine sends itself came in nowhere (0).
    return packet.queued.in_interface in (flow.towards, 0)


cdef bint belongs(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    """Whether a packet that another entry of conntrack's is of has its place in the flow all the same.

    Two entries, of two addresses that lead to one server, or of one that was forgotten and picked up anew, may have
    the same addresses and ports here and not beyond. A client's address is translated behind us, so a SYN does not
    tell of it yet, and the server's answer does.
    """
    if not flow.stream[1].known:
        return True                                # its beginning was not seen
    if not packet.flags & TCP_SYN:
        return False
    if flow_closed(flow) or flow.fate > FLOW_PASSED:
        return True                                # another flow, if any
    if flow.syn_ack or not (to_server or flow.connection == 0):
        return False
    flow.connection = packet.queued.connection     # the latest one counts, as a SYN's numbers do
    return True


cdef uint8_t pin_interface(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now) noexcept nogil:
    if on_its_interface(flow, to_server, packet):
        return ACTION_PASS
    if to_server and packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN and not flow.answered:
        return ACTION_PASS                         # no connection yet: this SYN begins it anew
    return report_condition(core, flow, PACKET_WRONG_INTERFACE, to_server, now)


cdef void ask_server(Core *core, Flow *flow, Packet *packet, Operations *out) noexcept nogil:
    """Makes of a SYN on an open flow an ACK with an old number: only the server knows whether it has the connection.

    If so, it says its numbers again, and a client that has forgotten them answers with the RST that ends both. If
    not, it sends a RST (RFC 9293 3.5.1, 3.10.7.4). The client's SYN is repeated, and finds no open flow then: no
    other connection ever begins at the server while this one is taken for open.
    """
    options_read(packet, 0, True)
    if packet.options.refused or (packet.extended and packet.family == 6):
        drop(core, DROP_OPTION, packet.queued.id, out)
        return
    if packet.extended:
        packet_blank_ip_options(packet)
    packet_trim(packet, 0)
    nm_put32(packet.tcp + 4, old_number(core, flow))
    nm_put32(packet.tcp + 8, flow.stream[0].kept_seq)
    packet.tcp[12] &= 0xf0
    packet.tcp[13] = TCP_ACK
    nm_put16(packet.tcp + 18, 0)
    packet_fix_checksums(packet)
    core.counters.syns_asked += 1
    replace(core, packet.queued.id, packet.ip, packet.length, out)


cdef void client_syn(Core *core, Flow *flow, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    if (flow.stream[1].known and packet.seq == stream_isn(&flow.stream[1]) and flow.fate == FLOW_INSPECTED
            and not flow_closed(flow) and not flow.answered and on_its_interface(flow, True, packet)):
        syn_packet(core, flow, True, False, packet, now, out)
    elif flow_closed(flow) or flow.fate > FLOW_PASSED or (flow.fate == FLOW_INSPECTED and (
            not flow.syn_ack or (not flow.answered and not on_its_interface(flow, True, packet)))):
        # The ports are used again: another connection, inspected from its beginning.
        forget_flow(core, flow, END_TIMEOUT, now, out)
        first_packet(core, packet, True, now, out)
        if flow_find(&core.flows, packet, True) == NULL:
            core.forgot = 1                        # its next packet must not look like one that was open before us
    elif not flow.ruling.hold:
        flow.other_syn_seen = 1
        syn_packet(core, flow, True, True, packet, now, out)
    else:
        ask_server(core, flow, packet, out)


cdef void server_syn_ack(Core *core, Flow *flow, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    """A SYN with ACK from the server: it begins the server's direction, or another flow, or has no place.

    A server that has spoken, or acknowledged bytes, has the connection and sends no SYN in it (RFC 9293 3.10.7.4):
    where a SYN could reach it all the same, one that answers it is another connection's, even with the same
    numbers, as those of SYN cookies are (RFC 4987 3.6).
    """
    cdef Stream *stream = &flow.stream[0]
    if flow.other_syn_seen and flow.answered:
        flow = reopen(core, flow, packet, now, out)
        if flow == NULL:
            refuse_flow(core, packet, False, now, out)
            return
        stream = &flow.stream[0]
    if (flow.fate == FLOW_INSPECTED and not flow.confirmed and flow.stream[1].known
            and packet.ack == stream_isn(&flow.stream[1]) + 1):
        if not flow.answered:
            # The latest one until the client has answered: SYN cookies change.
            pin(flow, False, packet)
            begin_stream(flow, False, packet.seq)
            flow.syn_ack = 1
            flow.started = now                     # a cookie is as old as the answer it stands in
            note_cookie(core, flow, now)
        if packet.seq == stream_isn(stream):
            take_acknowledgement(core, flow, False, packet, now, out)
            syn_packet(core, flow, False, False, packet, now, out)
            return
    drop_if(core, flow.ruling.apply, DROP_SYN_ACK, packet.queued.id, out)


cdef bint handshake(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                    Operations *out) noexcept nogil:
    """Packets with SYN; False when the packet has none."""
    if not packet.flags & TCP_SYN:
        return False
    if to_server and not packet.flags & TCP_ACK:
        client_syn(core, flow, packet, now, out)
    elif to_server or not packet.flags & TCP_ACK:
        # RFC 9293 3.5, figure 7: simultaneous open, or a SYN that a server sends; no mail server does.
        answer_by(core, flow, report_condition(core, flow, PACKET_ODD_FLAGS, to_server, now), DROP_FLAGS, packet,
                  now, out)
    else:
        server_syn_ack(core, flow, packet, now, out)
    return True


cdef Flow *reopen(Core *core, Flow *flow, Packet *packet, uint64_t now, Operations *out) noexcept nogil:
    """The flow that the server's answer to another SYN begins, in place of ``flow``; NULL without memory.

    What that SYN offered is not known: everything, and the widest windows.
    """
    cdef Flow old = flow[0]
    forget_flow(core, flow, END_TIMEOUT, now, out)
    flow = open_flow(core, packet, False, now, out)
    if flow == NULL:
        core.forgot = 1
        return NULL
    flow.identity.rule = old.identity.rule
    flow.ruling = &core.rules[old.identity.rule].ruling
    begin_stream(flow, True, packet.ack - 1)
    flow.interface[1] = old.interface[1]
    flow.stream[1].interface_known = old.stream[1].interface_known
    flow.towards = old.towards
    flow.stream[1].offers = OPTIONS_OF_SYN
    flow.stream[1].scale = MOST_SCALE
    return flow


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
