# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Inspection of one flow.

Keeps invariant 2 (delivered is decided): octets are decided in order and once;
retransmissions carry what was decided; what cannot be decided yet is held, or, in
message text, let through ahead of the gap and decided before the gap closes.
Keeps invariant 5: where the ruling does not apply, everything is accepted as it
came and only followed. Does not know how a flow is found or aged.
"""

from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from nfmailguard.cext.client cimport client_octets
from nfmailguard.cext.core cimport MOST_EMITTED
from nfmailguard.cext.flow cimport (
    AGE_CLOSING,
    FLOW_DROPPED,
    FLOW_INSPECTED,
    FLOW_PASSED,
    FLOW_RESET,
    flow_holds,
    flow_holds_nothing,
    flow_touch,
)
from nfmailguard.cext.operation cimport OP_DROP, OP_EMIT, operation_append
from nfmailguard.cext.packet cimport (
    PARSED,
    TCP_ACK,
    TCP_FIN,
    TCP_RST,
    TCP_URG,
    nm_put16,
    nm_seq_diff,
    packet_build,
    packet_fix_checksums,
    packet_parse,
    packet_trim,
)
from nfmailguard.cext.record cimport END_DROPPED, END_FIN
from nfmailguard.cext.reply cimport server_octets
from nfmailguard.cext.smtp cimport (
    ACTION_DROP,
    ACTION_LOG,
    ACTION_PASS,
    ACTION_RESET,
    FLOW_ASYMMETRIC,
    INPUT_DATA,
    INPUT_OPAQUE,
    STREAM_CONFLICTING_RETRANSMISSION,
    STREAM_EDIT_TOO_LATE,
    STREAM_GAP,
    STREAM_MEMORY_LIMIT,
    STREAM_PENDING_LIMIT,
    STREAM_URGENT,
    Scene,
    dialogue_close,
    report,
)
from nfmailguard.cext.stream cimport (
    Segment,
    Stream,
    stream_acknowledge,
    stream_close,
    stream_forget,
    stream_keep,
    stream_overlapping,
    stream_put_back,
    stream_remember,
    stream_take_out,
)
from nfmailguard.cext.verdict cimport accept, drop, replace

cdef enum:
    FARTHEST = 1 << 26         # octets ahead of the next one that any window reaches here


cdef void set_scene(Core *core, Flow *flow, Scene *scene, uint64_t now) noexcept nogil:
    memset(scene, 0, sizeof(Scene))
    scene.grammar = &core.grammar
    scene.ruling = flow.ruling
    scene.ring = &core.ring
    scene.lines = &core.lines
    scene.identity = &flow.identity
    scene.finding_counts = core.finding_counts
    scene.now = now


cdef uint8_t report_condition(Core *core, Flow *flow, uint8_t finding, bint to_server, uint64_t now) noexcept nogil:
    cdef Scene scene
    set_scene(core, flow, &scene, now)
    return report(&scene, &flow.dialogue, finding, to_server, 0, flow.stream[to_server].octets, NULL, 0, NULL, 0)


cdef void emit_reset(Core *core, Flow *flow, bint to_server, Operations *out) noexcept nogil:
    cdef uint8_t *packet
    cdef uint32_t seq, ack, length
    if core.emitted_now == MOST_EMITTED:
        return
    packet = core.emitted[core.emitted_now]
    core.emitted_now += 1
    ack = flow.stream[not to_server].next_seq
    # The server expects our next octet; the client expects what it has last acknowledged.
    seq = flow.stream[1].next_seq if to_server else flow.stream[0].kept_seq
    if to_server:
        length = packet_build(packet, flow.identity.family, flow.identity.client, flow.identity.server,
                              flow.identity.client_port, flow.identity.server_port, seq, ack, TCP_RST | TCP_ACK)
    else:
        length = packet_build(packet, flow.identity.family, flow.identity.server, flow.identity.client,
                              flow.identity.server_port, flow.identity.client_port, seq, ack, TCP_RST | TCP_ACK)
    operation_append(out, OP_EMIT, 0, packet, length).to_server = to_server
    core.counters.emitted += 1


cdef void drop_pending(Core *core, Flow *flow, Operations *out) noexcept nogil:
    cdef int direction
    cdef Segment *segment
    for direction in range(2):
        segment = flow.stream[direction].pending
        while segment != NULL:
            if not segment.gone:
                drop(core, segment.queued.id, out)
                core.counters.held_now -= 1
            stream_forget(&flow.stream[direction], &core.pool, segment)
            segment = flow.stream[direction].pending
    flow_holds_nothing(&core.flows, flow)


cdef void end_flow(Core *core, Flow *flow, uint8_t action, uint64_t now, Operations *out) noexcept nogil:
    drop_pending(core, flow, out)
    flow.fate = FLOW_RESET if action == ACTION_RESET else FLOW_DROPPED
    flow.end = END_DROPPED
    if action == ACTION_RESET:
        core.counters.flows_reset += 1
        emit_reset(core, flow, True, out)
        emit_reset(core, flow, False, out)
    else:
        core.counters.flows_dropped += 1
    stream_close(&flow.stream[0], &core.pool)
    stream_close(&flow.stream[1], &core.pool)
    dialogue_close(&flow.dialogue, &core.lines)
    flow_touch(&core.flows, flow, AGE_CLOSING, now)


cdef void stop_following(Core *core, Flow *flow, Operations *out) noexcept nogil:
    # Nothing more is looked at; only where nothing is held, or what is held may go.
    drop_pending(core, flow, out)
    flow.fate = FLOW_PASSED
    core.counters.flows_passed += 1
    stream_close(&flow.stream[0], &core.pool)
    stream_close(&flow.stream[1], &core.pool)
    dialogue_close(&flow.dialogue, &core.lines)


cdef inline void send_changed(Core *core, Packet *packet, Operations *out) noexcept nogil:
    packet_fix_checksums(packet)
    replace(core, packet.queued.id, packet.ip, packet.length, out)


cdef void first_seen_wins(Stream *stream, Packet *packet, uint32_t fresh, uint32_t *changed,
                          bint *conflict) noexcept nogil:
    # Octets that have gone ahead of this packet are with the receiver: they stand.
    cdef Segment *segment = stream.pending
    cdef int32_t at
    cdef uint32_t start, stop, size
    cdef const uint8_t *gone
    while segment != NULL:
        at = nm_seq_diff(segment.seq, packet.seq)
        if segment.gone and at < <int32_t> packet.payload_length:
            start = <uint32_t> at if at > <int32_t> fresh else fresh
            stop = at + segment.payload_length
            if stop > packet.payload_length:
                stop = packet.payload_length
            if <int32_t> stop > <int32_t> start:
                size = stop - start
                gone = segment.queued.data + segment.payload_at + (<int32_t> start - at)
                if memcmp(packet.payload + start, gone, size) != 0:
                    conflict[0] = 1
                    changed[0] += size
                    memcpy(packet.payload + start, gone, size)
        segment = segment.next


cdef uint32_t decide(Core *core, Flow *flow, bint to_server, Packet *packet, bint gone, uint64_t now,
                     uint32_t *changed, uint8_t *verdict, Operations *out) noexcept nogil:
    """Decides the payload of a packet that begins at or before the next octet.

    Returns how many of its octets are decided now, old ones included; ``changed``
    how many of them differ from what came, ``verdict`` the action that ends the flow.
    """
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t fresh = stream.next_seq - packet.seq     # octets before it are old
    cdef uint32_t decided, old
    cdef bint apply = flow.ruling.apply
    cdef bint conflict = 0, clash = 0
    cdef Scene scene
    set_scene(core, flow, &scene, now)
    changed[0] = 0
    verdict[0] = ACTION_PASS
    if fresh:
        old = fresh if fresh < packet.payload_length else packet.payload_length
        core.counters.retransmissions += 1
        changed[0] = stream_put_back(stream, packet.seq, packet.payload, old, apply and not gone, &conflict)
        if not apply:
            changed[0] = 0
    if fresh < packet.payload_length:
        if apply and stream.pending != NULL:
            first_seen_wins(stream, packet, fresh, changed, &clash)
        if to_server:
            decided = client_octets(&scene, &flow.dialogue, packet.payload + fresh, packet.payload_length - fresh,
                                    stream.octets)
        else:
            decided = 0
            while fresh + decided < packet.payload_length and scene.verdict == ACTION_PASS:
                decided += server_octets(&scene, &flow.dialogue, packet.payload + fresh + decided,
                                         packet.payload_length - fresh - decided, stream.octets + decided)
                if fresh + decided < packet.payload_length and flow.stream[1].pending != NULL:
                    pump(core, flow, True, now, out)   # followed only: what the client said before the next reply
        if apply:
            changed[0] += scene.edits
        if scene.verdict == ACTION_PASS and stream_keep(stream, &core.pool, packet.payload + fresh, decided) < 0:
            verdict[0] = report_condition(core, flow, STREAM_MEMORY_LIMIT, to_server, now)
            stream.next_seq += decided
            stream.octets += decided
            stream_acknowledge(stream, &core.pool, stream.next_seq)
        if scene.verdict != ACTION_PASS:
            verdict[0] = scene.verdict
        elif scene.not_smtp:
            verdict[0] = ACTION_LOG                # not to be looked at any more
        fresh += decided
    if (conflict or clash) and verdict[0] == ACTION_PASS:
        verdict[0] = report_condition(core, flow, STREAM_CONFLICTING_RETRANSMISSION, to_server, now)
        if verdict[0] <= ACTION_LOG:
            verdict[0] = ACTION_PASS
    return fresh if fresh < packet.payload_length else packet.payload_length


cdef void carry_out(Core *core, Flow *flow, uint8_t verdict, uint64_t now, Operations *out) noexcept nogil:
    # A verdict of `decide` other than ACTION_PASS.
    if verdict == ACTION_LOG:
        stop_following(core, flow, out)
    else:
        end_flow(core, flow, verdict, now, out)


cdef void edit_too_late(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    # Octets that the receiver will read as soon as the gap closes would have to change: it must not close.
    report_condition(core, flow, STREAM_EDIT_TOO_LATE, to_server, now)
    end_flow(core, flow, ACTION_RESET, now, out)


cdef void answered(Core *core, Stream *stream, Segment *segment) noexcept nogil:
    # The segment has been answered; its octets may be in an operation until the next call.
    stream_take_out(stream, segment)
    segment.next = core.released
    core.released = segment


cdef void pump(Core *core, Flow *flow, bint to_server, uint64_t now, Operations *out) noexcept nogil:
    """Decides the pending segments whose turn has come."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef Segment *segment = stream.pending
    cdef Packet packet
    cdef uint32_t changed, decided
    cdef uint8_t verdict
    cdef bint apply = flow.ruling.apply
    while segment != NULL and nm_seq_diff(segment.seq, stream.next_seq) <= 0:
        if to_server and flow.dialogue.waiting:
            if apply and segment.gone:
                edit_too_late(core, flow, to_server, now, out)
            break
        if packet_parse(&packet, &segment.queued) != PARSED:
            core.counters.internal_errors += 1
            end_flow(core, flow, ACTION_RESET, now, out)
            return
        decided = decide(core, flow, to_server, &packet, segment.gone, now, &changed, &verdict, out)
        if verdict != ACTION_PASS:
            carry_out(core, flow, verdict, now, out)
            return
        if segment.gone:
            if apply and changed:
                edit_too_late(core, flow, to_server, now, out)
                return
            if decided < packet.payload_length:
                break                              # followed only: the rest is read after the reply
        else:
            core.counters.held_now -= 1
            if changed:
                send_changed(core, &packet, out)
            else:
                accept(core, packet.queued.id, out)
        answered(core, stream, segment)
        segment = stream.pending
    if flow.stream[0].pending == NULL and flow.stream[1].pending == NULL:
        flow_holds_nothing(&core.flows, flow)


cdef void remember(Core *core, Flow *flow, bint to_server, Packet *packet, bint gone, uint64_t now,
                   Operations *out) noexcept nogil:
    """Keeps a packet whose turn has not come: let through already (``gone``), or held."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef bint apply = flow.ruling.apply
    cdef uint8_t finding = 0, action
    if stream.pending_count >= core.pending_limit or (not gone and core.counters.held_now >= core.held_limit):
        finding = STREAM_PENDING_LIMIT
    elif not gone and not core.can_hold:
        drop(core, packet.queued.id, out)                    # the sender repeats it when its turn has come
        return
    elif stream_remember(stream, &core.pool, packet, now, gone) == NULL:
        finding = STREAM_MEMORY_LIMIT
    if finding:
        action = report_condition(core, flow, finding, to_server, now)
        if not apply or action <= ACTION_LOG:
            accept(core, packet.queued.id, out)
            stop_following(core, flow, out)
        else:
            drop(core, packet.queued.id, out)
            if action != ACTION_DROP:
                end_flow(core, flow, action, now, out)
        return
    if gone:
        accept(core, packet.queued.id, out)
        return
    core.counters.held += 1
    core.counters.held_now += 1
    flow_holds(&core.flows, flow)


cdef void early(Core *core, Flow *flow, bint to_server, Packet *packet, bint text, uint64_t now,
                Operations *out) noexcept nogil:
    """A segment that cannot be decided yet; ``text``: it may go ahead, for nobody can read it before the gap closes."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef Segment *twin
    if nm_seq_diff(packet.seq, stream.next_seq) > FARTHEST:
        core.counters.beyond_window += 1
        if flow.ruling.apply:
            drop(core, packet.queued.id, out)
        else:
            accept(core, packet.queued.id, out)
        return
    core.counters.out_of_order += 1
    twin = stream_overlapping(stream, packet.seq, packet.payload_length)
    if twin == NULL:
        remember(core, flow, to_server, packet, text or not flow.ruling.apply, now, out)
    elif not flow.ruling.apply:
        if nm_seq_diff(twin.seq, packet.seq) <= 0 and nm_seq_diff(
                twin.seq + twin.payload_length, packet.seq + packet.payload_length) >= 0:
            accept(core, packet.queued.id, out)              # nothing new in it
        else:
            remember(core, flow, to_server, packet, True, now, out)
    elif (twin.seq == packet.seq and twin.payload_length == packet.payload_length
            and memcmp(twin.queued.data + twin.payload_at, packet.payload, packet.payload_length) == 0):
        if twin.gone:
            accept(core, packet.queued.id, out)
        else:
            drop(core, packet.queued.id, out)                # its twin is held already
    else:
        drop(core, packet.queued.id, out)                    # first seen wins: repeated in order, it is put right


cdef inline uint32_t forwarded_to(Stream *stream) noexcept nogil:
    # The end of what the receiver can have in order, where packets go on before they are decided.
    cdef uint32_t end = stream.next_seq
    cdef Segment *segment = stream.pending
    while segment != NULL and nm_seq_diff(segment.seq, end) <= 0:
        if segment.gone and nm_seq_diff(segment.seq + segment.payload_length, end) > 0:
            end = segment.seq + segment.payload_length
        segment = segment.next
    return end


cdef bint acknowledged(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                       Operations *out) noexcept nogil:
    """The packet's ACK, for the other direction's stream; False when it ends the flow."""
    cdef Stream *stream = &flow.stream[not to_server]
    cdef uint32_t end
    cdef uint8_t action
    if not stream.known or nm_seq_diff(packet.ack, stream.kept_seq) <= 0:
        return True
    end = stream.next_seq if flow.ruling.apply else forwarded_to(stream)
    if nm_seq_diff(packet.ack, end + stream.fin) <= 0:
        stream_acknowledge(stream, &core.pool, packet.ack if nm_seq_diff(packet.ack, stream.next_seq) <= 0
                           else stream.next_seq)
        return True
    # Octets have been acknowledged that did not come through us.
    action = report_condition(core, flow, STREAM_GAP, not to_server, now)
    if flow.ruling.apply and action == ACTION_DROP:
        drop(core, packet.queued.id, out)
    elif flow.ruling.apply and action > ACTION_LOG:
        drop(core, packet.queued.id, out)
        end_flow(core, flow, action, now, out)
    else:
        accept(core, packet.queued.id, out)
        stop_following(core, flow, out)
    return False


cdef void note_fin(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    cdef Stream *stream = &flow.stream[to_server]
    if packet.flags & TCP_FIN and not stream.fin:
        stream.fin = 1
        stream.fin_seq = packet.seq + packet.payload_length


cdef void arrive(Core *core, Flow *flow, bint to_server, Packet *packet, bint cleared, uint64_t now,
                 Operations *out) noexcept nogil:
    """A segment with payload; ``cleared``: its header has been changed already."""
    cdef Stream *stream = &flow.stream[to_server]
    cdef bint apply = flow.ruling.apply
    cdef bint waiting = to_server and flow.dialogue.waiting
    cdef int32_t ahead = nm_seq_diff(packet.seq, stream.next_seq)
    cdef uint32_t changed, decided, place, stream_end
    cdef uint8_t verdict
    if ahead > 0 or (waiting and ahead == 0):
        early(core, flow, to_server, packet,
              to_server and not waiting and flow.dialogue.input == INPUT_DATA, now, out)
        return
    stream_end = packet.seq + packet.payload_length
    if waiting and nm_seq_diff(stream_end, stream.next_seq) > 0:
        if not apply:
            early(core, flow, to_server, packet, True, now, out)
            return
        # Only the old octets may go before the reply; the sender repeats the others.
        packet_trim(packet, <uint32_t> -ahead)
        cleared = True
    decided = decide(core, flow, to_server, packet, False, now, &changed, &verdict, out)
    if verdict != ACTION_PASS:
        if verdict == ACTION_LOG:
            accept(core, packet.queued.id, out)
        else:
            drop(core, packet.queued.id, out)
        carry_out(core, flow, verdict, now, out)
        return
    place = out.count
    if not apply and decided < packet.payload_length:
        remember(core, flow, to_server, packet, True, now, out)
    elif changed or cleared:
        send_changed(core, packet, out)
    else:
        accept(core, packet.queued.id, out)
    if stream.pending != NULL and flow.fate == FLOW_INSPECTED:
        pump(core, flow, to_server, now, out)
    if not to_server and flow.fate == FLOW_INSPECTED and flow.stream[1].pending != NULL and not flow.dialogue.waiting:
        pump(core, flow, True, now, out)           # the reply that was waited for
    if flow.fate == FLOW_RESET or flow.fate == FLOW_DROPPED:
        out.items[place].kind = OP_DROP            # what closes a gap too early must not arrive


cdef void inspect_packet(Core *core, Flow *flow, bint to_server, Packet *packet, uint64_t now,
                         Operations *out) noexcept nogil:
    cdef bint cleared = 0
    cdef uint8_t action
    if packet.flags & TCP_ACK and not acknowledged(core, flow, to_server, packet, now, out):
        return
    if to_server and not flow.syn_ack and packet.payload_length:
        action = report_condition(core, flow, FLOW_ASYMMETRIC, to_server, now)
        if flow.ruling.apply and action > ACTION_LOG:
            drop(core, packet.queued.id, out)
            if action != ACTION_DROP:
                end_flow(core, flow, action, now, out)
        else:
            accept(core, packet.queued.id, out)
            stop_following(core, flow, out)
        return
    if packet.flags & TCP_URG:
        # Receivers disagree on where urgent data lies in the stream (RFC 6093 3.1): make it plain data.
        report_condition(core, flow, STREAM_URGENT, to_server, now)
        if flow.ruling.apply:
            packet.flags &= ~TCP_URG
            packet.tcp[13] = packet.flags
            nm_put16(packet.tcp + 18, 0)
            cleared = True
    note_fin(flow, to_server, packet)
    if packet.payload_length:
        arrive(core, flow, to_server, packet, cleared, now, out)
    elif cleared:
        send_changed(core, packet, out)
    else:
        accept(core, packet.queued.id, out)
    if (flow.stream[0].fin and flow.stream[1].fin and not flow.closed
            and flow.stream[0].next_seq == flow.stream[0].fin_seq
            and flow.stream[1].next_seq == flow.stream[1].fin_seq):
        flow.closed = 1
        flow.end = END_FIN
    if (flow.fate == FLOW_INSPECTED and flow.dialogue.input == INPUT_OPAQUE and flow.dialogue.tls_checked
            and flow.stream[0].pending == NULL and flow.stream[1].pending == NULL):
        stop_following(core, flow, out)            # every octet of the plain dialogue has been delivered
