# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Receive windows: what each receiver has room for. A server's window is lowered as memory runs short; a client's is
raised while it sends message text."""

from libc.stdint cimport int32_t, uint16_t, uint64_t

from nfmailguard.cext.memory.accounting cimport window_share
from nfmailguard.cext.memory.pool cimport pool_is_short
from nfmailguard.cext.policy.ruling cimport applies, gates
from nfmailguard.cext.smtp.grammar cimport INPUT_CHUNK, INPUT_DATA
from nfmailguard.cext.wire.packet cimport TCP_ACK, nm_seq_diff, packet_set_window

cdef enum:
    FARTHEST = 1 << 30         # no limit on a window: none is larger than this many bytes (RFC 7323 2.3)
    FEWEST_SHARES = 4          # divisor of the room, at least: flows may begin to send before windows are lowered
    LEAST_SHARE = 4096         # bytes a window is lowered to at least: below two segments, senders wait for timeouts
    LONGEST_REPLY = 512        # longest reply line in bytes (RFC 5321 4.5.3.1.5)


cdef bint narrow_window(Core *core, Flow *flow, Packet *packet) noexcept nogil:
    """Lowers a server's window to the flow's share of the room for packets on their way to the gateway and, as memory
    runs short, to its share of the memory: a sender that sends more would only lose it. True if the window was lowered.

    Only half of the room is shared out: a packet takes more of the kernel's memory than its bytes.
    """
    cdef uint32_t busy = core.dialogue_pool.dialogues.allocated
    cdef uint64_t most = FARTHEST, share
    if not applies(flow.policy):
        return False
    if core.room:
        most = core.room // 2 // (busy if busy > FEWEST_SHARES else FEWEST_SHARES)
    if pool_is_short(&core.pool):
        share = window_share(core, flow)
        most = share if share < most else most
    if most == FARTHEST:
        return False
    if most < LEAST_SHARE:
        most = LEAST_SHARE
    most = most >> window_scale(flow, False, packet)
    most = most if most else 1
    if packet.window <= most:
        return False
    core.counters.windows_narrowed += 1
    packet_set_window(packet, <uint16_t> most)
    return True


cdef bint widen_window(Core *core, Flow *flow, Packet *packet) noexcept nogil:
    """Raises a client's window while it sends message text, so that the server can send one more reply line. True if
    the window was raised.

    A server that gives up on a text says so at once, and reads the rest as commands; if the client has closed its
    window, the gateway would never see that reply. Honest clients have room, for a server says nothing in the middle of
    a text.
    """
    cdef uint32_t scale, least
    cdef int32_t unacknowledged = nm_seq_diff(flow.stream[0].next_seq, packet.ack)
    if flow.dialogue == NULL or not gates(flow.policy) or not packet.flags & TCP_ACK or unacknowledged < 0:
        return False
    if flow.dialogue.exchange.input != INPUT_DATA and flow.dialogue.exchange.input != INPUT_CHUNK:
        return False
    scale = window_scale(flow, True, packet)
    least = (<uint32_t> unacknowledged + LONGEST_REPLY + (1 << scale) - 1) >> scale
    if packet.window >= least or least > 0xffff:
        return False
    core.counters.windows_widened += 1
    packet_set_window(packet, <uint16_t> least)
    take_window(flow, True, packet)                # the server may use the raised window: its reply is within it
    return True
