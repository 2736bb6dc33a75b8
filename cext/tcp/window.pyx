# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Receive windows: what each receiver has made room for, and the server's, narrowed as memory runs short.
"""

from libc.stdint cimport uint16_t, uint64_t

from nfmailguard.cext.memory.accounting cimport window_share
from nfmailguard.cext.memory.pool cimport pool_is_short
from nfmailguard.cext.wire.packet cimport nm_put16

cdef enum:
    FARTHEST = 1 << 30         # octets ahead of the next one; no window is larger (RFC 7323 2.3)
    FEWEST_SHARES = 4          # flows may begin to send before the others' windows are lowered for them
    LEAST_SHARE = 4096         # octets: below two segments a sender waits for time-outs


cdef bint narrow_window(Core *core, Flow *flow, Packet *packet) noexcept nogil:
    """A server's window, lowered to the flow's share of the room there is for packets on their way to us, and, as
    memory runs short, of that: who sends more would only lose it. True when it was.

    Half of the room is shared: a packet takes more of the kernel's memory than its octets.
    """
    cdef uint32_t busy = core.dialogue_pool.dialogues.allocated
    cdef uint64_t most = FARTHEST, share
    if not flow.policy.apply:
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
    packet.window = <uint16_t> most
    nm_put16(packet.tcp + 14, packet.window)
    return True
