# NFQUEUE's netlink messages: a datagram is parsed into a QueuedPacket, the core's answer is written as a verdict.
from libc.stdint cimport uint16_t, uint32_t, uint8_t

from nfmailguard.cext.wire.packet cimport QueuedPacket

cdef enum:
    MESSAGE_ROOM = 1024        # bytes of a packet message besides the packet; the attributes we ask for need about 150
    # Bytes of the largest packet a verdict can carry: a netlink attribute's length has 16 bits and counts its header.
    MOST_REPLACED = 65531
    VERDICT_ROOM = 48          # bytes of a verdict besides its payload: headers, mark and padding

cdef enum MessageKind:
    MESSAGE_PACKET = 0
    MESSAGE_ERROR = 1          # the kernel's reply: `error` 0 is an acknowledgement, else an errno
    MESSAGE_OTHER = 2          # a message that is neither a packet nor a reply; ignored
    MESSAGE_BAD = 3            # a message that cannot be read: without a packet id no verdict is possible

cdef struct Message:
    QueuedPacket packet        # its `data` points into the received datagram
    int error
    uint32_t mark              # the packet's mark
    uint16_t queue
    uint8_t kind

# A buffer of verdicts for one send: single NFQNL_MSG_VERDICT messages, one after the other.
cdef struct Verdicts:
    uint8_t *data
    uint32_t used
    uint32_t size
    uint32_t count             # verdict messages in `data`
    uint16_t queue

cdef enum VerdictPut:
    VERDICT_PUT = 0
    VERDICT_FULL = 1           # no room left in the buffer: send its messages, then try again
    VERDICT_TOO_LONG = 2       # the verdict fits into no netlink message, or not into this buffer

# Parses the first message in `size` bytes; returns the bytes it takes up, never 0 and never more than `size`.
cdef uint32_t message_parse(uint8_t *data, uint32_t size, Message *out) noexcept nogil
# Adds a packet's verdict. `data` replaces the packet and is copied; NULL: unchanged. `mark` NULL: it keeps its mark.
cdef int verdict_put(Verdicts *out, uint32_t id, uint32_t verdict, const uint8_t *data, uint32_t length,
                     const uint32_t *mark) noexcept nogil
# Adds one verdict that drops every packet up to `id` without verdict; only for a queue none of whose packets is held.
cdef int verdict_put_older(Verdicts *out, uint32_t id) noexcept nogil
