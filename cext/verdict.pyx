# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Forwards a packet, unchanged or changed.

A forwarded FIN may end its stream; a server's window is lowered to what we can hold, and while message text is sent
a client's window is raised to leave room for a reply.
"""

from nfmailguard.cext.tcp.stream cimport FIN_SENT, Stream, stream_ended
from nfmailguard.cext.tcp.window cimport narrow_window, widen_window
from nfmailguard.cext.wire.packet cimport TCP_FIN, nm_seq_diff, packet_fix_checksums


cdef inline void take_fin(Flow *flow, bint to_server, Packet *packet) noexcept nogil:
    # The latest FIN counts, for one that no receiver took means nothing. Bytes after the FIN reach no receiver.
    cdef Stream *stream = &flow.stream[to_server]
    cdef uint32_t place = packet.seq + packet.payload_length
    if packet.flags & TCP_FIN and not stream_ended(stream) and nm_seq_diff(place, stream.next_seq) >= 0:
        stream.fin = FIN_SENT
        stream.fin_seq = place


cdef void forward(Core *core, Flow *flow, bint to_server, Packet *packet, bint changed, Operations *out) noexcept nogil:
    take_fin(flow, to_server, packet)
    if widen_window(core, flow, packet) if to_server else narrow_window(core, flow, packet):
        changed = True
    if changed or packet.changed:
        packet_fix_checksums(packet)
        replace(core, packet.queued.id, packet.ip, packet.length, out)
    else:
        accept(core, packet.queued.id, out)
